"""A model family that reads proteins and computes nothing: what `prepare` asks of a family, for both of its modules."""

from __future__ import annotations

from typing import Any

from sae_genomics.models.base import ModelInfo

READS = "proteins"
LETTERS = "LAGVSERTIDPFQKNYMHWCXBUZO"
MOST = 50


def describe(model: Any, cache_dir: Any = None) -> ModelInfo:
    return ModelInfo("toy", "toy", 2, 8, 2, MOST + 2, 1000, "toy-weights")


def unit_tokens(model: Any, cache_dir: Any = None) -> dict[str, int]:
    return {letter: 4 + i for i, letter in enumerate(LETTERS)}


def most_residues(model: Any, cache_dir: Any = None) -> int:
    return MOST


def check(model: Any, cache_dir: Any = None) -> None:
    pass
