"""Which commit a run takes a published model's weights from: told once, recorded, and used from then on.

Branches move, and caches are emptied. A run that asked for `main` on every node and every day could therefore mix the weights of
two commits without a word. Its record (`run.json`) names the commit instead; the names that stood for it, such as `main`, are not
looked up again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_genomics.models import hub, reads
from sae_genomics.models.named import published_name
from sae_genomics.revisions import is_commit

if TYPE_CHECKING:
    from sae_genomics.config import ModelConfig


@dataclass(frozen=True)
class Pin:
    """A commit of a published model.

    model: its name. commit: 40 hexadecimal digits. asked_as: the revisions by which this run asked for it.
    """

    model: str
    commit: str
    asked_as: tuple[str, ...]

    def to_record(self) -> dict[str, Any]:
        """For the run's record; JSON values."""
        return {"model": self.model, "commit": self.commit, "asked_as": list(self.asked_as)}

    @classmethod
    def from_record(cls, record: object) -> Pin | None:
        """What `to_record` made; None for anything else."""
        if not isinstance(record, dict) or not is_commit(record.get("commit")):
            return None
        asked_as = record.get("asked_as")
        names = tuple(map(str, asked_as)) if isinstance(asked_as, list) else ()
        return cls(str(record.get("model")), record["commit"], names)


def find_pin(model: ModelConfig, cache_dir: Path | None, recorded: Pin | None, *, ask_hub: bool) -> Pin | None:
    """The commit that a run with this config uses.

    recorded: what the run recorded; a revision that it names is not looked up again.
    ask_hub: False uses no network; then None is returned where nothing here tells the commit.

    Returns None for a model that is a local folder. Raises UserError when the hub is asked in vain.
    """
    reads(model)  # refuses an unknown family; a family from outside may add releases of its own when it is imported
    name = published_name(model)
    if name is None:
        return None
    revision = model.revision or hub.known_release(name, model.family).revision
    if recorded is not None and recorded.model != model.name:
        recorded = None
    if recorded is not None and revision in (*recorded.asked_as, recorded.commit):
        return recorded
    commit = hub.find_commit(name, cache_dir, revision, ask_hub=ask_hub)
    if commit is None:
        return None
    if recorded is not None and commit == recorded.commit:  # one more name of the same weights
        return replace(recorded, asked_as=(*recorded.asked_as, revision))
    return Pin(str(model.name), commit, (revision,))


def pinned(model: ModelConfig, pin: Pin | None) -> ModelConfig:
    """The config's section `model`, with the commit in place of the revision that was asked for."""
    return model if pin is None else model.model_copy(update={"revision": pin.commit})
