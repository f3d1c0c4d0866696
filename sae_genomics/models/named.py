"""The model that the config's section `model` names: a published one, the one that comes with the package, or a folder of the user's.

A family makes one `NamedModels`; its `describe` and `small_files` are the two functions that `sae_genomics.models` asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from sae_genomics.errors import UserError
from sae_genomics.models import hub
from sae_genomics.models.base import ModelInfo
from sae_genomics.models.foreign_keys import refuse_other_families_keys

if TYPE_CHECKING:
    from sae_genomics.config import ModelConfig


class Folder(Protocol):
    """What a family has read of a model folder's small files."""

    def describe(self, name: str) -> ModelInfo:
        """What the folder says about itself. name: of the model, for a reader."""


AnyFolder = TypeVar("AnyFolder", bound=Folder)


@dataclass(frozen=True)
class NamedModels(Generic[AnyFolder]):
    """The models of a family that has files."""

    family: str
    read: Callable[[Path, ModelConfig], AnyFolder]
    """Reads and checks a folder's small files, and no weights. Raises UserError."""
    bundled: Path | None = None
    """The folder of the model that comes with the package (`model.name: demo`)."""
    none_named: str = ""
    """What to tell where the config names no model and none is bundled: why, and what to set."""

    def describe(self, model: ModelConfig, cache_dir: Path | None = None) -> ModelInfo:
        """See `sae_genomics.models.describe`."""
        refuse_other_families_keys(model, self.family)
        name = published_name(model)
        if name is not None:
            return hub.describe_release(
                name, cache_dir, model.revision, self.family, lambda folder: self.read(folder, model).describe(name)
            )
        folder = self.find_folder(model, cache_dir)
        return self.read(folder, model).describe("demo" if model.path is None else folder.name or folder.resolve().name)

    def small_files(self, model: ModelConfig, cache_dir: Path | None = None) -> AnyFolder:
        """What the model's small files say. Downloads a model on the hub. Raises UserError as `describe` does."""
        return self.read(self.find_folder(model, cache_dir), model)

    def find_folder(self, model: ModelConfig, cache_dir: Path | None = None) -> Path:
        """The folder that `model.path` or `model.name` stands for, downloaded where needed. Raises UserError."""
        if model.path is not None:
            return Path(model.path)
        name = published_name(model)
        if name is not None:
            return hub.download(name, cache_dir, model.revision)
        if self.bundled is None:
            raise UserError(f"model.family: {self.family} {self.none_named}")
        return self.bundled


def published_name(model: ModelConfig) -> str | None:
    """The model's name in `hub.RELEASES`, or OWNER/NAME; None for a folder, the bundled model, and a family that has none on the hub.

    Raises UserError for a name that is not known, or of another family.
    """
    if model.path is not None or model.name in (None, "demo") or not hub.has_releases(model.family):
        return None
    hub.known_release(str(model.name), model.family)
    return hub.ALIASES.get(str(model.name), str(model.name))
