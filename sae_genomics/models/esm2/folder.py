"""ESM2's folder as transformers' save_pretrained leaves it: config.json, vocab.txt and safetensors files; read without weights or torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_genomics.errors import UserError
from sae_genomics.models.base import ModelInfo
from sae_genomics.models.checkpoint import folder_identity, tensor_shapes
from sae_genomics.models.hub import conversion, shard_files
from sae_genomics.models.releases import INDEX, SINGLE

SPECIAL = ("<cls>", "<eos>", "<pad>", "<mask>")
_INV_FREQ = re.compile(r"(encoder\.layer\.[^.]+\.attention\.self\.)?rotary_embeddings\.inv_freq")
_OLD_NAMES = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))


@dataclass(frozen=True)
class Esm2Folder:
    """A model folder whose small files and headers have been read."""

    folder: Path
    files: tuple[str, ...]
    """Names of the files that are read, weights included."""
    config: dict[str, Any]
    """config.json, checked."""
    vocab: tuple[str, ...]
    """The token of each id."""
    shapes: dict[str, tuple[int, ...]]
    """Shape of every tensor, under the names of EsmForMaskedLM."""

    @property
    def n_layers(self) -> int:
        return int(self.config["num_hidden_layers"])

    @property
    def d_model(self) -> int:
        return int(self.config["hidden_size"])

    @property
    def residues(self) -> dict[str, int]:
        """Letter -> token id, in the order of the ids."""
        return {token: number for number, token in enumerate(self.vocab) if re.fullmatch("[A-Z]", token)}

    @property
    def most_residues(self) -> int:
        """Residues of the longest sequence: what the position table has rows for, or what training went up to."""
        return int(self.config["max_position_embeddings"]) - int(self.config["pad_token_id"]) - 1 - 2

    @property
    def has_head(self) -> bool:
        """Whether the checkpoint can predict residues: it was saved from EsmForMaskedLM."""
        return "lm_head.dense.weight" in self.shapes

    def token_id(self, token: str) -> int:
        """Of a special token."""
        return self.vocab.index(token)

    @property
    def unknown_id(self) -> int:
        """The token of letters that the vocabulary does not have."""
        return self.vocab.index("X" if "X" in self.vocab else "<unk>")

    def describe(self, name: str) -> ModelInfo:
        """What the folder says about itself. Its content hash is that of all its files."""
        return ModelInfo(
            family="esm2",
            name=name,
            n_layers=self.n_layers,
            d_model=self.d_model,
            n_heads=int(self.config["num_attention_heads"]),
            max_length=self.most_residues + 2,
            n_parameters=sum(_product(shape) for key, shape in self.shapes.items() if not key.endswith("inv_freq")),
            identity=folder_identity(self.folder, self.files),
        )


def read_folder(folder: Path) -> Esm2Folder:
    """Read and check config.json, vocab.txt and the headers of the safetensors files.

    Raises UserError for missing or unreadable files, and for a model that is not ESM2's encoder.
    """
    if not folder.is_dir():
        raise UserError(f"no such model folder: {folder}; it should hold config.json, vocab.txt and {SINGLE}")
    for name in ("config.json", "vocab.txt"):
        if not (folder / name).is_file():
            raise UserError(f"model folder {folder} is incomplete: no {name}; copy it from where the model comes from")
    config = _read_config(folder / "config.json")
    vocab = _read_vocab(folder / "vocab.txt", int(config["vocab_size"]))
    for key, token in (("pad_token_id", "<pad>"), ("mask_token_id", "<mask>")):
        if config.get(key) is None:
            config[key] = vocab.index(token)
        elif config[key] != vocab.index(token):
            raise UserError(
                f"{folder / 'config.json'}: {key} is {config[key]}, but {token} is line {vocab.index(token) + 1} of vocab.txt; "
                "are both of one model?"
            )
    weights = _weight_files(folder)
    shapes: dict[str, tuple[int, ...]] = {}
    for name in weights:
        if not (folder / name).is_file():
            raise UserError(f"model folder {folder} is incomplete: no {name}; copy or download it again")
        if name.endswith(".safetensors"):
            shapes.update(tensor_shapes(folder / name))
    shapes = _full_names(shapes)
    found = Esm2Folder(folder, ("config.json", "vocab.txt", *weights), config, vocab, shapes)
    if found.most_residues < 1:
        raise UserError(f"{folder / 'config.json'}: max_position_embeddings leaves no room for a residue")
    return found


def _weight_files(folder: Path) -> tuple[str, ...]:
    if (folder / SINGLE).is_file():
        return (SINGLE,)
    if (folder / INDEX).is_file():
        return (INDEX, *shard_files(folder / INDEX))
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise UserError(
            f"model folder {folder} has no {SINGLE}, and files made by torch.save are not read because they can run code; "
            f"fix it with: {conversion(str(folder))}; then set model.path to that folder"
        )
    raise UserError(f"model folder {folder} is incomplete: no {SINGLE}; copy or download it again")


def _full_names(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The tensors under the names that EsmForMaskedLM has today, whichever of its classes and versions saved them."""
    has_prefix = any(name.startswith("esm.") for name in shapes)
    full = {}
    for name, shape in shapes.items():
        for old, new in _OLD_NAMES:
            name = name.replace(old, new)
        if not has_prefix and not name.startswith("lm_head."):
            name = f"esm.{name}"
        if _INV_FREQ.fullmatch(name.removeprefix("esm.")):
            name = "esm.rotary_embeddings.inv_freq"
        full[name] = shape
    return full


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError):
        raise UserError(f"{path} is not valid JSON; copy or download it again") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} should be a JSON object; copy or download it again")
    if values.get("model_type") != "esm":
        raise UserError(
            f"{path}: model_type is {values.get('model_type')!r}, not 'esm'; is it a model of model.family esm2?"
        )
    defaults = {  # as EsmConfig has them
        "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
        "max_position_embeddings": 1026, "vocab_size": None,
    }  # fmt: skip
    for key, default in defaults.items():
        value = values.setdefault(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{path}: {key}: {value!r} should be a whole number of 1 or more")
    if values["hidden_size"] % values["num_attention_heads"]:
        raise UserError(f"{path}: hidden_size is not a multiple of num_attention_heads")
    kind = values.setdefault("position_embedding_type", "absolute")
    if kind not in ("rotary", "absolute"):
        raise UserError(f"{path}: position_embedding_type: {kind!r} is not supported; it should be rotary or absolute")
    for key in ("is_folding_model", "is_decoder", "add_cross_attention"):
        if values.get(key):
            raise UserError(f"{path}: {key} is true; only ESM2's plain encoder is supported")
    return values


def _read_vocab(path: Path, size: int) -> tuple[str, ...]:
    try:
        vocab = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text; copy or download it again") from None
    if len(vocab) > size:
        raise UserError(
            f"{path} has {len(vocab)} tokens, but config.json says vocab_size: {size}; are both of one model?"
        )
    missing = [token for token in SPECIAL if token not in vocab]
    if "X" not in vocab and "<unk>" not in vocab:
        missing.append("X")
    if missing:
        raise UserError(f"{path} has no {missing[0]} token; copy or download it again")
    return vocab


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total
