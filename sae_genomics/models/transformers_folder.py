"""A model folder as transformers' save_pretrained leaves it: config.json and safetensors files; read without weights or torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae_genomics.errors import UserError
from sae_genomics.models.checkpoint import tensor_shapes
from sae_genomics.models.hub import conversion, shard_files
from sae_genomics.models.model_folder import read_object
from sae_genomics.models.releases import INDEX, SINGLE

_OLD_NAMES = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))


def read_config(path: Path, model_type: str, family: str, defaults: Mapping[str, int | None]) -> dict[str, Any]:
    """config.json of an encoder, checked.

    defaults: keys that must be whole numbers of 1 or more, with what transformers takes where they are not given.
    Raises UserError when it cannot be read, and for another `model_type`.
    """
    values = read_object(path)
    if values.get("model_type") != model_type:
        raise UserError(
            f"{path}: model_type is {values.get('model_type')!r}, not {model_type!r}; is it a model of model.family {family}?"
        )
    for key, default in defaults.items():
        value = values.setdefault(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{path}: {key}: {value!r} should be a whole number of 1 or more")
    if values["hidden_size"] % values["num_attention_heads"]:
        raise UserError(f"{path}: hidden_size is not a multiple of num_attention_heads")
    return values


def weight_files(folder: Path, saved_from: str) -> tuple[str, ...]:
    """Names of the weight files, with the index where there is one; each of them is there.

    saved_from: transformers' class of such models, for the command that converts other files. Raises UserError.
    """
    if (folder / SINGLE).is_file():
        return (SINGLE,)
    if (folder / INDEX).is_file():
        found = (INDEX, *shard_files(folder / INDEX))
        for name in found:
            if not (folder / name).is_file():
                raise UserError(f"model folder {folder} is incomplete: no {name}; copy or download it again")
        return found
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise UserError(
            f"model folder {folder} has no {SINGLE}, and files made by torch.save are not read because they can run code; "
            f"fix it with: {conversion(str(folder), saved_from)}; then set model.path to that folder"
        )
    raise UserError(f"model folder {folder} is incomplete: no {SINGLE}; copy or download it again")


def shapes_in(folder: Path, files: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor, from the headers of the safetensors files, under the names that it has there."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name in files:
        if name.endswith(".safetensors"):
            shapes.update(tensor_shapes(folder / name))
    return shapes


def header_shapes(
    folder: Path, files: tuple[str, ...], prefix: str, heads: tuple[str, ...]
) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor, under the names of the class with a head, whichever class saved it.

    prefix: of the encoder's tensors, which the class without a head leaves out. heads: prefixes of the others.
    """
    shapes = shapes_in(folder, files)
    has_prefix = any(name.startswith(prefix) for name in shapes)
    full = {}
    for name, shape in shapes.items():
        for old, new in _OLD_NAMES:
            name = name.replace(old, new)
        full[name if has_prefix or name.startswith(heads) else prefix + name] = shape
    return full
