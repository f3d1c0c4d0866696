"""What is known of a published model before it is downloaded."""

from __future__ import annotations

from dataclasses import dataclass

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class KnownRelease:
    """What the release's own documentation says; its config files are read once they are there."""

    family: str
    """The value of `model.family`."""
    repository: str
    """OWNER/NAME on the hub."""
    folder: str
    """Folder of the repository that holds the model; empty: its root."""
    small_files: tuple[str, ...]
    """Files beside the weights, which every release of the family has. One that begins with / stands elsewhere in the repository, and
    is written from its root; the first one never does."""
    n_layers: int
    d_model: int
    n_heads: int
    max_length: int
    """Tokens of the longest sequence."""
    n_parameters: int
    revision: str = "main"
    """The commit that is used unless `model.revision` names another. A branch where nobody has verified a commit: then each run pins the
    commit that the branch names when the run first uses the weights (`models/pins.py`)."""

    optional_files: tuple[str, ...] = ()
    """Files beside the weights that some releases of the family have."""
    saved_from: str = ""
    """transformers' class of such models; empty for families with files of their own."""

    def path(self, file: str) -> str:
        """A file's path in the repository."""
        if file.startswith("/"):
            return file[1:]
        return f"{self.folder}/{file}" if self.folder else file

    @property
    def address(self) -> str:
        """The model's address on the hub: the repository, and the folder in it."""
        return f"{self.repository}/{self.folder}" if self.folder else self.repository
