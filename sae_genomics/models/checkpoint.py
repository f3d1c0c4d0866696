"""A checkpoint folder on disk: its identity, its tensors' shapes, and reading them onto a device."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sae_genomics.errors import UserError
from sae_genomics.hashes import hash_file, hash_values

if TYPE_CHECKING:
    import torch


def folder_identity(folder: Path, files: tuple[str, ...]) -> str:
    """A hash of the named files' content, wherever the folder stands: 16 hexadecimal digits.

    Of files above 1 GiB evenly spaced blocks count, so that a change of the weights shows without reading gigabytes.
    """
    return hash_values([(name, hash_file(folder / name)) for name in sorted(files)])


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor, read from the file's header alone. Raises UserError when the file is damaged.

    The layout is that of safetensors: 8 bytes of header length (little-endian), a JSON header, then the tensors.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > size - 8:
            raise _damaged(path)
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
            shapes = {name: tuple(int(n) for n in entry["shape"]) for name, entry in header.items()}
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            raise _damaged(path) from None
    if size != 8 + length + end:
        raise _damaged(path, f"{size:,} bytes on disk, {8 + length + end:,} expected")
    return shapes


def n_parameters(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Numbers in all tensors."""
    return sum(math.prod(shape) for shape in shapes.values())


def _damaged(path: Path, why: str = "its header cannot be read") -> UserError:
    return UserError(f"{path} is truncated or not a safetensors file ({why}); copy or download it again")


def check_shapes(module: torch.nn.Module, path: Path, *, prefix: str, ignore: tuple[str, ...]) -> list[str]:
    """Compare a checkpoint's header with a module (which may be on the meta device); no weights are read.

    prefix: what stands before the module's own names in the file. ignore: prefixes of tensors that the file may hold
    and the module does not need.

    Returns the names in the file of the module's tensors. Raises UserError naming the first tensor that is missing, has
    another shape, or that the config does not account for.
    """
    found = tensor_shapes(path)
    expected = {prefix + name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    for name, shape in expected.items():
        if name not in found:
            raise UserError(
                f"{path} has no tensor {name}, which the model's config asks for; is model_config.yml its own?"
            )
        if found[name] != shape:
            raise UserError(
                f"{path}: tensor {name} has shape {list(found[name])}, the model's config says {list(shape)}; "
                f"is model_config.yml its own?"
            )
    extra = sorted(name for name in found if name not in expected and not name.startswith(ignore))
    if extra:
        raise UserError(f"{path}: tensor {extra[0]} has no place in the model's config; is model_config.yml its own?")
    return list(expected)


def load_weights(
    module: torch.nn.Module,
    path: Path,
    *,
    prefix: str,
    ignore: tuple[str, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Give a module built on the meta device its weights, each tensor read straight to its device and dtype.

    Raises UserError as `check_shapes` does, which explains prefix and ignore.
    """
    from safetensors import SafetensorError, safe_open

    expected = check_shapes(module, path, prefix=prefix, ignore=ignore)
    weights: dict[str, torch.Tensor] = {}
    try:
        with safe_open(str(path), framework="pt", device=str(device)) as file:
            for name in expected:
                weights[name[len(prefix) :]] = file.get_tensor(name).to(dtype)
    except SafetensorError as error:
        raise _damaged(path, str(error)) from None
    module.load_state_dict(weights, strict=True, assign=True)
