"""A kind of data: what its items are called, where they are read from, and how they become tables.

An item (cell, protein) is a sequence of tokens to the model. A unit (gene, residue) is what a token stands for. A label is an
annotation of an item. A group is what items have in common, and is kept whole by the split. A span is an annotated part of an item.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from sae_genomics.errors import UserError
from sae_genomics.hashes import hash_file, hash_values
from sae_genomics.section import Section

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from sae_genomics.data.units import Units
    from sae_genomics.items import Items
    from sae_genomics.run import Run


@dataclass(frozen=True)
class Nouns:
    """What a reader calls the parts of the data, one and many."""

    item: str
    items: str
    unit: str
    units: str
    token: str
    tokens: str
    label: str
    labels: str
    group: str
    groups: str
    span: str
    spans: str


class DataSection(Section):
    """What the section `data` has for every kind; each kind adds its own settings."""

    kind: str = Field(description="what a run is made of; see docs/kinds.md")
    path: str = Field(description="the input")
    group_key: str | None = Field(None, description="what items have in common; groups are kept whole by the split")
    heldout_fraction: float = Field(0.2, ge=0.0, lt=1.0, description="share of items that no SAE is trained on")


class DataKind(ABC):
    """One kind of data. Importing its module is quick: what needs torch, numba or anndata is imported where it is used.

    name: as in `data.kind`. section: the config's section `data` for this kind.
    input_keys: those of its keys that name input files; the files' content decides what comes out, not their names.
    units_are_genes: gene sets say something about the units, and tables about them have the names that those of cells have.
    named_items: `read_items` gives a further column, `name`, when it is asked for: what people call an item (text or None).
    carried_keys: settings that say how a file is read, and go with the run to further files (`scripts/detect_concepts.py`).
    own_keys: settings that this kind's readers know by another name than the generic one, `section.key` -> `section.key`.
    """

    name: ClassVar[str]
    nouns: ClassVar[Nouns]
    section: ClassVar[type[DataSection]]
    input_keys: ClassVar[frozenset[str]] = frozenset({"path"})
    units_are_genes: ClassVar[bool] = False
    named_items: ClassVar[bool] = False
    carried_keys: ClassVar[frozenset[str]] = frozenset()
    own_keys: ClassVar[Mapping[str, str]] = {}

    def key(self, setting: str) -> str:
        """The name of a setting in what is said to a reader. setting: its generic name, such as `data.max_items`."""
        return self.own_keys.get(setting, setting)

    @abstractmethod
    def inputs(self, settings: Any) -> list[Path]:
        """The input files, absolute, the main one first. Raises UserError when one is not there.

        settings: the config's section `data`, of this kind's `section`; likewise below.
        """

    def content_hash(self, settings: Any) -> str:
        """Over all that the input files hold. A kind whose files can be left out one by one says which are there."""
        hashes = [hash_file(path) for path in self.inputs(settings)]
        return hashes[0] if len(hashes) == 1 else hash_values(hashes)

    @abstractmethod
    def count_items(self, settings: Any) -> int:
        """Items that the run uses, from the input's header or a quick look. Raises UserError when the input cannot be read."""

    @abstractmethod
    def prepare_files(self, run: Run) -> tuple[Path, ...]:
        """What `prepare` leaves, `run.plan_file` and `run.units_file` among it."""

    @abstractmethod
    def prepare(self, run: Run) -> None:
        """The stage prepare: check the input, leave the tables and the plan.

        Raises UserError for every fault of the input, config or disk that can be known before the model runs; then nothing is left.
        """

    @abstractmethod
    def read_items(self, run: Run, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The items that the run uses, in the order that shards take them.

        Columns: item (int64, row in the input), item_id (text), heldout (bool), group (text or None), label (text or None).
        columns: some of these; default: all. Raises DamagedArtifact when the prepared files cannot be read.
        """

    def check_columns(self, settings: Any, asked: Mapping[str, str]) -> None:
        """Raise what `read_columns` would, where a quick look at the input tells it."""
        if asked:
            raise self._no_columns(asked)

    def read_columns(self, run: Run, asked: Mapping[str, str]) -> pd.DataFrame:
        """More annotations of the items, from one pass over the input: a column of text or None for each key, in the rows of `read_items`.

        asked: at least one key -> the config key that asks for it, for the error.
        Raises UserError for a key that the input does not have, and for a kind whose input has no more annotations.
        """
        raise self._no_columns(asked)

    def _no_columns(self, asked: Mapping[str, str]) -> UserError:
        return UserError(
            f"{next(iter(asked.values()))}: data.kind {self.name} has no more annotations; leave it out, or give a table (docs/concepts.md)"
        )

    @abstractmethod
    def read_units(self, run: Run) -> Units:
        """The units of the run. Raises DamagedArtifact when the prepared files cannot be read."""

    @abstractmethod
    def read_spans(self, run: Run) -> pd.DataFrame | None:
        """The annotated parts of items; None where the kind has none, or none were given.

        Columns: item_index (int64, row of `read_items`), start and stop (int32, 0-based, half-open), concept, name.
        """

    @abstractmethod
    def read(self, run: Run, indices: npt.NDArray[np.int64]) -> Items:
        """What the model's tokeniser takes, of some items.

        indices: ascending rows of `read_items`. Only these items are read.
        Raises DamagedArtifact when the prepared files cannot be read, UserError when the input cannot.
        """
