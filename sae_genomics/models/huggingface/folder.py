"""A language model's folder as save_pretrained leaves it: config.json, tokenizer files and safetensors files; read without weights or torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sae_genomics.errors import UserError
from sae_genomics.models.base import HOOKS, ModelInfo
from sae_genomics.models.checkpoint import folder_identity, n_parameters
from sae_genomics.models.huggingface.architectures import Architecture, architecture
from sae_genomics.models.huggingface.releases import TOKENISER_FILES
from sae_genomics.models.model_folder import read_object, require_files
from sae_genomics.models.releases import SINGLE
from sae_genomics.models.transformers_folder import shapes_in, weight_files
from sae_genomics.models.transformers_quiet import quiet, reason_of

# what other architectures call the same
_NAMES = {
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads"),
    "max_position_embeddings": ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"),
    "vocab_size": ("vocab_size",),
}
# their angles depend on the longest sequence of the batch, so a document's activations would depend on its neighbours
_ROPE_OF_THE_BATCH = ("dynamic", "longrope")


@dataclass(frozen=True)
class TextFolder:
    """A model folder whose config has been read and checked."""

    folder: Path
    config: dict[str, Any]
    """config.json."""
    architecture: Architecture
    numbers: Mapping[str, int]
    """num_hidden_layers, hidden_size, num_attention_heads, max_position_embeddings, vocab_size of the text model."""

    @cached_property
    def weights(self) -> tuple[str, ...]:
        """Names of the weight files, the index first where there is one. Raises UserError where they are missing."""
        return weight_files(self.folder, "AutoModelForCausalLM")

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor, under the names of the files."""
        return shapes_in(self.folder, self.weights)

    @property
    def tokeniser_files(self) -> tuple[str, ...]:
        """Those of the files that a tokenizer may consist of which are there."""
        return tuple(name for name in TOKENISER_FILES if (self.folder / name).is_file())

    def describe(self, name: str) -> ModelInfo:
        """What the folder says about itself. Its content hash is that of config, tokenizer and weights."""
        return ModelInfo(
            family="huggingface",
            name=name,
            n_layers=self.numbers["num_hidden_layers"],
            d_model=self.numbers["hidden_size"],
            n_heads=self.numbers["num_attention_heads"],
            max_length=self.numbers["max_position_embeddings"],
            n_parameters=n_parameters(self.shapes),
            identity=folder_identity(self.folder, ("config.json", *self.tokeniser_files, *self.weights)),
            hooks=tuple(hook for hook in HOOKS if hook in self.architecture.hooks),
        )


def read_folder(folder: Path, hook_modules: Mapping[str, str] | None = None) -> TextFolder:
    """Read and check config.json. hook_modules: `model.hook_modules`.

    Raises UserError for missing or unreadable files, and for a model that is not a causal decoder that can be read here.
    """
    require_files(folder, ("config.json",), f"config.json, tokenizer.json and {SINGLE}")
    path = folder / "config.json"
    config = read_object(path)
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise UserError(f"{path}: model_type is missing; copy or download it again")
    if "auto_map" in config and kind not in _known_types():
        raise UserError(
            f"{path}: model_type {kind!r} needs code of its own repository, which is never run; use a model that transformers has"
        )
    if config.get("quantization_config"):
        raise UserError(
            f"{path} has a quantization_config; quantised weights are not supported; use the model that they were made from"
        )
    found = architecture(kind, hook_modules, str(path))
    text: dict[str, Any] = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    _refuse_what_is_not_causal(path, text)
    return TextFolder(folder, config, found, _numbers(folder, config, text))


def _refuse_what_is_not_causal(path: Path, text: Mapping[str, Any]) -> None:
    if text.get("use_bidirectional_attention") or text.get("is_causal") is False or text.get("is_encoder_decoder"):
        raise UserError(
            f"{path}: the model is not a causal decoder; model.family huggingface reads causal decoders alone"
        )
    if text.get("add_cross_attention"):
        raise UserError(f"{path}: add_cross_attention is true; only decoders without an encoder are supported")
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    for part in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        kind = part.get("rope_type", part.get("type"))
        if kind in _ROPE_OF_THE_BATCH:
            raise UserError(
                f"{path}: rope_type {kind!r} makes a document's activations depend on the longest one beside it, and is not "
                "supported; use a model with another rope_type"
            )


def _numbers(folder: Path, config: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, int]:
    """From config.json; what it leaves out has the default of transformers' own class, which is loaded for it."""
    found = {key: next((text[name] for name in names if name in text), None) for key, names in _NAMES.items()}
    if None in found.values():
        known = own_config(folder).get_text_config()
        found = {key: getattr(known, key, None) if value is None else value for key, value in found.items()}
    for key, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{folder / 'config.json'}: {key}: {value!r} should be a whole number of 1 or more")
    return {key: int(value) for key, value in found.items() if value is not None}


def own_config(folder: Path) -> Any:
    """transformers' config object. Raises UserError where it refuses the file."""
    from transformers import AutoConfig

    try:
        with quiet():
            return AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of many kinds: also those of huggingface_hub's checked dataclasses
        raise UserError(
            f"{folder / 'config.json'} is not understood by transformers ({reason_of(error)}); copy or download it again"
        ) from None


def _known_types() -> frozenset[str]:
    from transformers import CONFIG_MAPPING

    return frozenset(CONFIG_MAPPING.keys())
