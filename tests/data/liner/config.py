"""The part of a model family that tells what it reads and how large it is. It reads no weights, and imports no torch."""

from __future__ import annotations

from pathlib import Path

from sae_genomics.config import ModelConfig
from sae_genomics.models.base import ModelInfo

READS = "lines"
N_LAYERS, D_MODEL, N_TOKENS = 2, 16, 64
MASK = 1


def describe(model: ModelConfig, cache_dir: Path | None = None) -> ModelInfo:
    return ModelInfo("liner", "a toy", N_LAYERS, D_MODEL, 2, N_TOKENS, 1000, "abc", hooks=("resid_post",))
