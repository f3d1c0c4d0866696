"""Items that are records of a file, each with a label and a group: what kinds of such items (proteins, text) have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from sae_genomics.artifacts import Column, Table
from sae_genomics.data.groups import Groups, shared_labels, split_notes
from sae_genomics.data.kind import Nouns
from sae_genomics.data.plan_file import PLAN_VERSION
from sae_genomics.data.split import split_items
from sae_genomics.progress import say

if TYPE_CHECKING:
    from pathlib import Path

    from sae_genomics.data.token_counts import TokenCounts
    from sae_genomics.run import Run

_GENERIC = ("item", "item_id", "heldout", "group", "label")  # columns that every kind's `read_items` gives


def items_table(item: str, first: tuple[Column, ...], value: str, last: tuple[Column, ...]) -> Table:
    """items.parquet. item: what a row is. first: columns before those that all such kinds have, last: after them. value: `value of the
    key`, or what else stands before `data.label_key`."""
    return Table(
        "items.parquet",
        f"One row per {item} used, in the order shards take them.",
        (
            *first,
            Column("heldout", pa.bool_(), "no SAE is trained on it"),
            Column("label", pa.string(), f"{value} data.label_key; null without one"),
            Column("group", pa.string(), f"{value} data.group_key, kept whole by the split; null without one"),
            *last,
        ),
    )


def items_file(run: Run) -> Path:
    return run.prepare_dir / "items.parquet"


def read_items(run: Run, table: Table, columns: Sequence[str] | None) -> pd.DataFrame:
    """As `DataKind.read_items`; the table's further columns are given when asked for."""
    return table.read(items_file(run), list(_GENERIC if columns is None else columns))


@dataclass(frozen=True)
class LabelledItems:
    """The items that the run uses: arrays have one entry per item."""

    label_key: str | None
    labels: npt.NDArray[np.object_] | None
    """Text or None; None without a key."""
    groups: Groups | None
    heldout: npt.NDArray[np.bool_]

    @property
    def n_labels(self) -> int:
        """Different ones."""
        return 0 if self.labels is None else int(pd.Series(self.labels).nunique())

    def columns(self) -> dict[str, Any]:
        """For items.parquet."""
        group = None if self.groups is None else np.asarray(self.groups.name, dtype=object)
        return {"heldout": self.heldout, "label": self.labels, "group": group}

    def notes(self, run: Run, no_label: str, no_group: str) -> list[str]:
        """What a reader must know of labels and groups. no_label, no_group: what is said where there is no key; empty: nothing."""
        nouns: Nouns = run.kind.nouns
        found = [no_label] if self.labels is None and no_label else []
        if self.labels is not None and (missing := int(pd.isna(self.labels).sum())):
            found.append(
                f"{nouns.items.capitalize()} without a value of {self.label_key}: {missing:,} of {len(self.labels):,}; they have no label."
            )
        if self.groups is None:
            return [*found, no_group] if no_group else found
        if self.groups.key == self.label_key:
            found.append(
                f"Labels and groups are both {self.label_key}: every label is on one side of the split, so no label can be tested on "
                f"held-out {nouns.items}."
            )
        return found + split_notes(self.groups, self.heldout, run.config.data.heldout_fraction, nouns)

    def plan(self, run: Run, n_input: int, tokens: TokenCounts, **own: Any) -> dict[str, Any]:
        """plan.json, all but the estimates and the notes. n_input: items of the input. own: what the kind adds."""
        content = {
            "format_version": PLAN_VERSION,
            "kind": run.kind.name,
            "n_items": len(self.heldout),
            "n_items_input": n_input,
            "n_heldout": int(self.heldout.sum()),
            **own,
            "label_key": self.label_key,
            "shards": tokens.shards(),
            "n_tokens": int(tokens.stored.sum()),
            "n_tokens_read": tokens.read,
        }
        if self.groups is not None:
            content |= {"group_key": self.groups.key, **self.groups.numbers(self.heldout)}
        return content


def split(
    run: Run, n_items: int, label_key: str | None, labels: npt.NDArray[np.object_] | None, groups: Groups | None
) -> LabelledItems:
    """Hold items out: a share of every label, and no part of a group. Labels that are the groups cannot be shared out."""
    strata = None if groups is not None and groups.key == label_key else shared_labels(labels, groups)
    heldout = split_items(
        n_items, strata, run.config.data.heldout_fraction, run.config.run.seed, None if groups is None else groups.name
    )
    return LabelledItems(label_key, labels, groups, heldout)


def tell_groups(content: dict[str, Any]) -> None:
    """The groups of a plan in one line, where there are any."""
    if "group_key" in content:
        say(
            f"prepare: {content['n_groups']:,} groups ({content['group_key']}), {content['n_heldout_groups']:,} of them held out whole"
        )
