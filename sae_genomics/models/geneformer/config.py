"""What can be said of the config's Geneformer model without reading weights. Imported to print a status: no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sae_genomics.errors import UserError
from sae_genomics.models import hub
from sae_genomics.models.base import ModelInfo
from sae_genomics.models.foreign_keys import refuse_other_families_keys
from sae_genomics.models.geneformer.folder import GeneformerFolder, read_folder

if TYPE_CHECKING:
    from sae_genomics.config import ModelConfig

READS = "cells"


def describe(model: ModelConfig, cache_dir: Path | None = None) -> ModelInfo:
    """See `sae_genomics.models.describe`."""
    refuse_other_families_keys(model, "geneformer")
    if model.path is not None:
        folder = Path(model.path)
        return read_folder(folder).describe(folder.name)
    name = _published_name(model)
    return hub.describe_release(
        name, cache_dir, model.revision, "geneformer", lambda folder: read_folder(folder).describe(name)
    )


def asked_revision(model: ModelConfig) -> str | None:
    """See `sae_genomics.models.asked_revision`."""
    if model.path is not None:
        return None
    return model.revision or hub.known_release(_published_name(model), "geneformer").revision


def find_commit(model: ModelConfig, cache_dir: Path | None, *, ask_hub: bool) -> str | None:
    """See `sae_genomics.models.find_commit`."""
    return hub.find_commit(_published_name(model), cache_dir, model.revision, ask_hub=ask_hub)


def small_files(model: ModelConfig, cache_dir: Path | None = None) -> GeneformerFolder:
    """The folder's config, dictionaries and tensor shapes."""
    return read_folder(find_folder(model, cache_dir))


def find_folder(model: ModelConfig, cache_dir: Path | None) -> Path:
    """The folder that `model.path` or `model.name` stands for, downloaded where needed. Raises UserError."""
    if model.path is not None:
        return Path(model.path)
    return hub.download(_published_name(model), cache_dir, model.revision)


def _published_name(model: ModelConfig) -> str:
    """Raises UserError where no published model is named: this family has no bundled one."""
    if model.name in (None, "demo"):
        raise UserError(
            "model.family: geneformer has no bundled model; set model.name to Geneformer-V2-104M, or model.path to a folder"
        )
    name = hub.ALIASES.get(str(model.name), str(model.name))
    hub.known_release(name, "geneformer")
    return name
