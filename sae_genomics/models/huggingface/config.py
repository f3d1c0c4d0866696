"""What can be said of the config's language model without reading weights. Imported to print a status: no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sae_genomics.errors import UserError
from sae_genomics.models import hub
from sae_genomics.models.base import ModelInfo
from sae_genomics.models.foreign_keys import refuse_other_families_keys
from sae_genomics.models.huggingface.folder import TextFolder, read_folder

if TYPE_CHECKING:
    from sae_genomics.config import ModelConfig
    from sae_genomics.models.huggingface.tokenise import TextTokeniser

READS = "text"


def describe(model: ModelConfig, cache_dir: Path | None = None) -> ModelInfo:
    """See `sae_genomics.models.describe`."""
    refuse_other_families_keys(model, "huggingface")
    if model.path is None:
        name = _name(model)
        return hub.describe_release(
            name, cache_dir, model.revision, "huggingface",
            lambda folder: read_folder(folder, model.hook_modules).describe(name),
        )  # fmt: skip
    return read_folder(Path(model.path), model.hook_modules).describe(Path(model.path).resolve().name)


def asked_revision(model: ModelConfig) -> str | None:
    """See `sae_genomics.models.asked_revision`."""
    if model.path is not None:
        return None
    return model.revision or hub.known_release(_name(model), "huggingface").revision


def find_commit(model: ModelConfig, cache_dir: Path | None, *, ask_hub: bool) -> str | None:
    """See `sae_genomics.models.find_commit`."""
    return hub.find_commit(_name(model), cache_dir, model.revision, ask_hub=ask_hub)


def text_tokeniser(model: ModelConfig, cache_dir: Path | None = None) -> TextTokeniser:
    """See `sae_genomics.models.text_tokeniser`."""
    from sae_genomics.models.huggingface.tokenise import read_tokeniser

    return read_tokeniser(small_files(model, cache_dir))


def small_files(model: ModelConfig, cache_dir: Path | None = None) -> TextFolder:
    """The folder's config. Downloads a model on the hub."""
    return read_folder(find_folder(model, cache_dir), model.hook_modules)


def find_folder(model: ModelConfig, cache_dir: Path | None) -> Path:
    """The folder that `model.path` or `model.name` stands for, downloaded where needed. Raises UserError."""
    if model.path is not None:
        return Path(model.path)
    name = _name(model)
    hub.known_release(name, "huggingface")
    return hub.download(name, cache_dir, model.revision)


def _name(model: ModelConfig) -> str:
    if model.name in (None, "demo"):
        raise UserError(
            "model.family huggingface has no bundled model; set model.path to a folder, or model.name to OWNER/NAME of the hub, "
            "such as google/gemma-3-4b-it"
        )
    return str(model.name)
