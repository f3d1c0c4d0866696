"""Foundation models behind one small interface. docs/models.md says how to add a family."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_genomics import cpu
from sae_genomics.errors import UserError
from sae_genomics.installed import entries
from sae_genomics.models.base import FoundationModel, ModelInfo, resolve_layers

if TYPE_CHECKING:
    import torch

    from sae_genomics.config import ModelConfig
    from sae_genomics.models.base import CellTokeniser
    from sae_genomics.models.word_pieces import TextTokeniser

__all__ = [
    "FAMILIES", "FoundationModel", "ModelInfo", "check_model", "describe", "gene_symbols",
    "load_model", "most_residues", "pick_device", "reads", "register", "resolve_layers", "text_tokeniser", "tokeniser_settings", "unit_tokens", "untrained_model", "used_dtype", "vocabulary",
]  # fmt: skip

# family: (module with READS, describe and small_files, which read no weights; module with load, untrained and check). One that reads
# sequences has unit_tokens and most_residues in the first; one that reads text text_tokeniser.
FAMILIES = {
    "tx1": ("sae_genomics.models.tx1_config", "sae_genomics.models.tx1"),
    "esm2": ("sae_genomics.models.esm2.config", "sae_genomics.models.esm2.model"),
    "huggingface": ("sae_genomics.models.huggingface.config", "sae_genomics.models.huggingface.model"),
    "geneformer": ("sae_genomics.models.geneformer.config", "sae_genomics.models.geneformer.model"),
    "scgpt": ("sae_genomics.models.scgpt.config", "sae_genomics.models.scgpt.model"),
    "planted": ("sae_genomics.models.planted.config", "sae_genomics.models.planted.model"),
}


def register(name: str, package: str) -> None:
    """Add a family. package: where its modules `config` and `model` are. Raises ValueError when the name is taken."""
    modules = f"{package}.config", f"{package}.model"
    if FAMILIES.get(name, modules) != modules:
        raise ValueError(f"{name}: that name is taken by {FAMILIES[name][0]}")
    FAMILIES[name] = modules


for _entry in entries("sae_genomics.families"):  # of installed packages, each `name = "package"`
    if _entry.name not in FAMILIES:
        register(_entry.name, _entry.value)


def describe(model: ModelConfig, cache_dir: Path | None = None) -> ModelInfo:
    """What the config's model is, from its small files alone; a model on the hub is not downloaded for it.

    cache_dir: where downloaded models are kept; default: HF_HOME, else ~/.cache/huggingface.
    Raises UserError for an unknown family or name, and for a folder that is incomplete or not understood.
    """
    info: ModelInfo = _family(model, 0).describe(model, cache_dir)
    return info


def reads(model: ModelConfig) -> str:
    """Name of the data kind that the model reads. Raises UserError for an unknown family."""
    kind: str = _family(model, 0).READS
    return kind


def vocabulary(model: ModelConfig, cache_dir: Path | None = None) -> dict[str, int]:
    """Gene name -> id of the model's gene tokens, special tokens left out. Downloads a model on the hub.

    Raises UserError as `describe` does.
    """
    genes: dict[str, int] = _family(model, 0).small_files(model, cache_dir).vocab
    return genes


def gene_symbols(model: ModelConfig, cache_dir: Path | None = None) -> dict[str, str]:
    """Id -> symbol of the genes that the model's own files name (`small_files(...).symbols`); empty for a family without such a table."""
    symbols: dict[str, str] = getattr(_family(model, 0).small_files(model, cache_dir), "symbols", {})
    return symbols


def tokeniser_settings(model: ModelConfig, cache_dir: Path | None = None) -> CellTokeniser:
    """How the model wants its tokens. Downloads a model on the hub. Raises UserError as `describe` does."""
    settings: CellTokeniser = _family(model, 0).small_files(model, cache_dir).tokeniser
    return settings


def unit_tokens(model: ModelConfig, cache_dir: Path | None = None) -> dict[str, int]:
    """Letter -> token id, of a family that reads sequences. Downloads a model on the hub. Raises UserError as `describe` does."""
    tokens: dict[str, int] = _family(model, 0).unit_tokens(model, cache_dir)
    return tokens


def most_residues(model: ModelConfig, cache_dir: Path | None = None) -> int:
    """Longest sequence that one pass takes, special tokens not counted, of a family that reads sequences."""
    most: int = _family(model, 0).most_residues(model, cache_dir)
    return most


def text_tokeniser(model: ModelConfig, cache_dir: Path | None = None) -> TextTokeniser:
    """Documents to word pieces, of a family that reads text. Downloads a model on the hub. Raises UserError as `describe` does."""
    tokeniser: TextTokeniser = _family(model, 0).text_tokeniser(model, cache_dir)
    return tokeniser


def check_model(model: ModelConfig, cache_dir: Path | None = None) -> None:
    """Raise UserError when the checkpoint's tensors and its config disagree; reads no weights. Downloads a model on
    the hub."""
    _family(model, 1).check(model, cache_dir)


def load_model(
    model: ModelConfig, device: str | torch.device | None = None, cache_dir: Path | None = None
) -> FoundationModel:
    """Load the config's model, downloading it where it is not there yet.

    device: default: what `model.device` says.
    Raises UserError as `describe` does, and when weights and config disagree.
    """
    import torch

    chosen = torch.device(device) if device is not None else pick_device(model.device)
    dtype = used_dtype(model, chosen)
    if dtype != model.compute_dtype:
        cpu.say_replaced("model.compute_dtype", model.compute_dtype, dtype)
        model = model.model_copy(update={"compute_dtype": dtype})
    loaded: FoundationModel = _family(model, 1).load(model, chosen, cache_dir)
    return loaded


def untrained_model(
    model: ModelConfig, device: torch.device, seed: int, cache_dir: Path | None = None
) -> FoundationModel:
    """A model of the shape of the config's, with random weights as the family's training begins with; reads no weights.

    The same seed gives the same weights on every device. Raises UserError as `describe` does.
    """
    dtype = used_dtype(model, device)
    made: FoundationModel = _family(model, 1).untrained(
        model.model_copy(update={"compute_dtype": dtype}), device, cache_dir, seed
    )
    return made


def used_dtype(model: ModelConfig, device: torch.device) -> str:
    """What the forward pass is computed in there: `model.compute_dtype`, or float32 on a CPU that lacks its products."""
    return cpu.compute_dtype(model.compute_dtype, device.type)


def pick_device(name: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda`, `cuda:N` or `mps` stands for. Raises UserError when it is not there."""
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise UserError(
            f"device: {name} asked for, but this machine offers {torch.cuda.device_count()} CUDA devices; use auto"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device: mps asked for, but this machine does not offer it; use auto")
    return device


def _family(model: ModelConfig, part: int) -> Any:
    if model.family not in FAMILIES:
        raise UserError(f"model.family: {model.family!r} is not known; the families are {', '.join(FAMILIES)}")
    return import_module(FAMILIES[model.family][part])
