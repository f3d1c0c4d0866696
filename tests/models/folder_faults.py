"""What can go wrong with a model folder that transformers' save_pretrained left: functions that do it to a good one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Fault = Callable[[Path], None]
WEIGHTS = "model.safetensors"


def edit(**values: object) -> Fault:
    """Other values in config.json."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def remove(name: str) -> Fault:
    return lambda folder: (folder / name).unlink()


def as_torch_file(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def cut_short(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


def rewritten(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Fault:
    """The weights as `change` gives them."""

    def write(folder: Path) -> None:
        save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})

    return write


def another_shape(name: str, *shape: int) -> Fault:
    return rewritten(lambda weights: {**weights, name: torch.zeros(*shape)})


def without_tensor(name: str) -> Fault:
    return rewritten(lambda weights: {key: x for key, x in weights.items() if key != name})
