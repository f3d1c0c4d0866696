"""One file that training goes on from: weights, moments, counters, and in the header everything else, as JSON.

The header holds a digest of all that. The checkpoint before the last one is kept too, because a damaged one is of no use.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sae_genomics.atomic import atomic_path
from sae_genomics.progress import say
from sae_genomics.sae.state import SaeState

FORMAT_VERSION = 2
_VERSION_WITHOUT_DIGEST = 1
_KEY, _DIGEST_KEY = "sae_genomics", "digest"
_READING_ERRORS = (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)


def earlier_checkpoint(path: Path) -> Path:
    """Where the checkpoint before the one at `path` stands."""
    return path.with_name(f"{path.stem}.before{path.suffix}")


def save_checkpoint(path: Path, state: SaeState, facts: dict[str, Any]) -> None:
    """Write state and facts (JSON values: fingerprint, sampler state, scale, ...) as one file that appears whole.

    What stood there is kept as the checkpoint before.
    """
    header = json.dumps(
        {
            "format_version": FORMAT_VERSION,
            "batch_threshold": state.batch_threshold,
            "step": state.step,
            "threshold_updates": state.threshold_updates,
            "facts": facts,
        }
    )
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors().items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={_KEY: header, _DIGEST_KEY: _digest(header, tensors)})
        _keep(path)


def _keep(path: Path) -> None:
    """Let what stands at `path` be the checkpoint before; it stands at both until the next one takes its place."""
    before = earlier_checkpoint(path)
    if not path.exists():
        return
    before.unlink(missing_ok=True)
    try:
        os.link(path, before)
    except OSError:  # a file system without hard links
        os.replace(path, before)


def load_checkpoint(path: Path, fingerprint: str) -> tuple[SaeState, dict[str, Any]] | None:
    """The state and facts of the last checkpoint that is whole.

    None when there is none, or it belongs to another config. A damaged one is named and removed.
    """
    for each in (path, earlier_checkpoint(path)):
        if not each.exists():
            continue
        try:
            header, tensors = _read(each)
        except _READING_ERRORS as error:
            then = "the checkpoint before it" if each == path and earlier_checkpoint(path).exists() else "the beginning"
            say(f"{each} cannot be used: {error}; training goes on from {then}")
            each.unlink(missing_ok=True)  # it must not take the place of the one before it
            continue
        if header["facts"].get("fingerprint") != fingerprint:
            say(f"{each.name}: belongs to another configuration; training starts from the beginning")
            return None
        step = header["step"]
        # checkpoints of earlier versions did not count: one update per step
        updates = header.get("threshold_updates", step)
        return SaeState.from_tensors(tensors, header["batch_threshold"], step, updates), header["facts"]
    return None


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Header and tensors of a checkpoint. Raises one of _READING_ERRORS where it is not as it was written."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        # Copies: a product's rounding can depend on how its operands are aligned, and views of the file are not.
        tensors: dict[str, torch.Tensor] = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    header: dict[str, Any] = json.loads(metadata[_KEY])
    has_none = header["format_version"] == _VERSION_WITHOUT_DIGEST and _DIGEST_KEY not in metadata
    if not has_none and metadata[_DIGEST_KEY] != _digest(metadata[_KEY], tensors):
        raise ValueError("its content is not what was written")
    if header["format_version"] > FORMAT_VERSION:
        raise ValueError("a later version of this software wrote it")
    return header, tensors


def _digest(header: str, tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.blake2b(header.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
