"""One file that training goes on from: weights, moments, counters, and in the header everything else, as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sae_genomics.atomic import atomic_path
from sae_genomics.progress import say
from sae_genomics.sae.state import SaeState

FORMAT_VERSION = 1
_KEY = "sae_genomics"


def save_checkpoint(path: Path, state: SaeState, facts: dict[str, Any]) -> None:
    """Write state and facts (JSON values: fingerprint, sampler state, scale, ...) as one file that appears whole."""
    header = {
        "format_version": FORMAT_VERSION,
        "batch_threshold": state.batch_threshold,
        "step": state.step,
        "threshold_updates": state.threshold_updates,
        "facts": facts,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors().items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={_KEY: json.dumps(header)})


def load_checkpoint(path: Path, fingerprint: str) -> tuple[SaeState, dict[str, Any]] | None:
    """The checkpoint's state and facts, or None when there is none, it is unreadable, or it belongs to another config."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            if header.get("format_version") != FORMAT_VERSION or header["facts"].get("fingerprint") != fingerprint:
                say(f"{path.name}: belongs to another configuration; training starts from the beginning")
                return None
            # Copies: a product's rounding can depend on how its operands are aligned, and views of the file are not.
            tensors: dict[str, torch.Tensor] = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, json.JSONDecodeError, KeyError) as error:
        say(f"{path.name}: cannot be read ({error}); training starts from the beginning")
        return None
    step = header["step"]
    updates = header.get(
        "threshold_updates", step
    )  # checkpoints of earlier versions did not count: one update per step
    return SaeState.from_tensors(tensors, header["batch_threshold"], step, updates), header["facts"]
