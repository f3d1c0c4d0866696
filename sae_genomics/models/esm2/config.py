"""What can be said of the config's ESM2 model without reading weights. Imported to print a status: no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sae_genomics.models import hub
from sae_genomics.models.base import ModelInfo
from sae_genomics.models.esm2.folder import Esm2Folder, read_folder
from sae_genomics.models.foreign_keys import refuse_other_families_keys

if TYPE_CHECKING:
    from sae_genomics.config import ModelConfig

READS = "proteins"
DEMO_FOLDER = Path(__file__).parents[2] / "assets" / "demo_protein_model"


def describe(model: ModelConfig, cache_dir: Path | None = None) -> ModelInfo:
    """See `sae_genomics.models.describe`."""
    refuse_other_families_keys(model, "esm2")
    if _is_published(model):
        name = hub.ALIASES.get(str(model.name), str(model.name))
        return hub.describe_release(
            name, cache_dir, model.revision, "esm2", lambda folder: read_folder(folder).describe(name)
        )
    folder = find_folder(model, cache_dir)
    return read_folder(folder).describe(folder.name if model.path is not None else "demo")


def asked_revision(model: ModelConfig) -> str | None:
    """See `sae_genomics.models.asked_revision`."""
    if not _is_published(model):
        return None
    return model.revision or hub.known_release(str(model.name), "esm2").revision


def find_commit(model: ModelConfig, cache_dir: Path | None, *, ask_hub: bool) -> str | None:
    """See `sae_genomics.models.find_commit`."""
    return hub.find_commit(str(model.name), cache_dir, model.revision, ask_hub=ask_hub)


def unit_tokens(model: ModelConfig, cache_dir: Path | None = None) -> dict[str, int]:
    """Residue letter -> token id, in the order of the ids. Downloads a model on the hub. Raises UserError as `describe` does."""
    return small_files(model, cache_dir).residues


def most_residues(model: ModelConfig, cache_dir: Path | None = None) -> int:
    """Residues of the longest sequence that one pass takes. Downloads a model on the hub. Raises UserError as `describe` does."""
    return small_files(model, cache_dir).most_residues


def small_files(model: ModelConfig, cache_dir: Path | None = None) -> Esm2Folder:
    """The folder's config, vocabulary and tensor shapes."""
    return read_folder(find_folder(model, cache_dir))


def find_folder(model: ModelConfig, cache_dir: Path | None) -> Path:
    """The folder that `model.path` or `model.name` stands for, downloaded where needed. Raises UserError."""
    if model.path is not None:
        return Path(model.path)
    if not _is_published(model):
        return DEMO_FOLDER
    hub.known_release(str(model.name), "esm2")
    return hub.download(str(model.name), cache_dir, model.revision)


def _is_published(model: ModelConfig) -> bool:
    return model.path is None and model.name not in (None, "demo")
