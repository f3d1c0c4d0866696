"""The part of a model family that tells what it reads and how large it is, for lines."""

from __future__ import annotations

from pathlib import Path

from sae_genomics.config import ModelConfig
from sae_genomics.models import ModelInfo

READS = "lines"


def describe(model: ModelConfig, cache_dir: Path | None = None) -> ModelInfo:
    return ModelInfo("liner", "a toy", 2, 16, 2, 64, 1000, "abc")
