"""What can be said of the config's scGPT model without reading weights. Imported to print a status: no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sae_genomics.errors import UserError
from sae_genomics.models.base import ModelInfo
from sae_genomics.models.foreign_keys import refuse_other_families_keys
from sae_genomics.models.scgpt.folder import FILES, ScgptFolder, read_folder

if TYPE_CHECKING:
    from sae_genomics.config import ModelConfig

READS = "cells"


def describe(model: ModelConfig, cache_dir: Path | None = None) -> ModelInfo:
    """See `sae_genomics.models.describe`."""
    refuse_other_families_keys(model, "scgpt")
    return small_files(model, cache_dir).describe(find_folder(model).name)


def small_files(model: ModelConfig, cache_dir: Path | None = None) -> ScgptFolder:
    """The folder's args.json and vocab.json: `.vocab` and `.tokeniser` are what `prepare` asks for."""
    return read_folder(find_folder(model))


def find_folder(model: ModelConfig) -> Path:
    """The folder that `model.path` names. Raises UserError without one: no hub holds scGPT's own files."""
    if model.path is None:
        named = "" if model.name is None else f" of the name {model.name}"
        raise UserError(
            f"model.family scgpt has no published model{named}: download one as scGPT's page on GitHub (bowang-lab/scGPT) says, "
            f"then set model.path to its folder ({', '.join(FILES)})"
        )
    return Path(model.path)
