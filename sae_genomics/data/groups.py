"""Groups of items that have something in common (`data.group_key`): donors, samples or batches of cells, families of proteins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.data.kind import Nouns
from sae_genomics.errors import UserError

if TYPE_CHECKING:
    from sae_genomics.run import Run

LEAST_FOR_A_TEST = 3  # held-out groups below which no p-value over groups is given
_MOST_PAIRS = 1 << 21  # of groups and labels
_MISSED = 0.05  # how far the held-out share may be from what was asked for before that is said


@dataclass(frozen=True)
class Groups:
    """The group of every item that is used. key: the column. name: categorical [items], nothing missing."""

    key: str
    name: pd.Categorical

    def numbers(self, heldout: npt.NDArray[np.bool_]) -> dict[str, int]:
        """What plan.json says of them."""
        return {"n_groups": len(set(self.name.codes)), "n_heldout_groups": len(set(self.name.codes[heldout]))}


def group_numbers(
    run: Run, items: pd.DataFrame, rows: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.int64] | None:
    """Number of the group of each item, by first appearance: int64 [rows]; None without `data.group_key`.

    items: of `kind.read_items`, with the column group. rows: those of its rows that count; default: all.
    """
    if run.config.data.group_key is None:
        return None
    named = items["group"].to_numpy(object)
    return pd.factorize(named if rows is None else named[rows], use_na_sentinel=False)[0].astype(np.int64)


@dataclass(frozen=True)
class GroupWording:
    """How messages about a kind's groups read. column: what a column of the input is called. usual: what good groups are."""

    nouns: Nouns
    column: str
    usual: str


def make_groups(
    key: str,
    values: npt.ArrayLike | pd.Categorical,
    item_id: Callable[[int], str],
    heldout_fraction: float,
    wording: GroupWording,
) -> Groups:
    """The groups of the items that are used.

    An item without a group is refused, and is not made a group of its own: nobody knows whether its relatives are on the other side of
    the split, and every such item would count as one more replicate. Empty text and the text `nan` are no group either.

    values: [items], the group of each. item_id: gives the name of the i-th of them.
    Raises UserError when an item has no group, and when the groups cannot be held out whole.
    """
    name = pd.Categorical(values).remove_unused_categories()
    blank = [str(each).strip().lower() in ("", "nan") for each in name.categories]
    name = name.remove_categories(name.categories[blank])
    missing = np.flatnonzero(name.codes < 0)
    if len(missing):
        raise UserError(
            f"data.group_key: {len(missing):,} of {len(name):,} {wording.nouns.items} have no value in {wording.column} {key!r} "
            f"(the first is {item_id(int(missing[0]))}); fill it in, remove these {wording.nouns.items}, or leave data.group_key out"
        )
    if heldout_fraction > 0 and len(name) > 1:
        _check_splittable(key, name, wording)
    return Groups(key, name)


def _check_splittable(key: str, name: pd.Categorical, wording: GroupWording) -> None:
    if len(name.categories) == 1:
        raise UserError(
            f"data.group_key: all {wording.nouns.items} have the same {key!r} ({name.categories[0]}), so none can be held out whole; "
            f"leave data.group_key out, name another {wording.column}, or set data.heldout_fraction to 0"
        )
    if len(name.categories) == len(name):
        raise UserError(
            f"data.group_key: every {wording.nouns.item} has a value of its own in {wording.column} {key!r}; "
            f"name the column of {wording.usual}"
        )


def split_notes(groups: Groups, heldout: npt.NDArray[np.bool_], heldout_fraction: float, nouns: Nouns) -> list[str]:
    """What a reader must know of how the groups were split."""
    if not heldout.any():
        return []
    notes, n_heldout = [], groups.numbers(heldout)["n_heldout_groups"]
    if abs(heldout.mean() - heldout_fraction) > _MISSED:
        notes.append(
            f"{heldout.mean():.0%} of the {nouns.items} are held out, not {heldout_fraction:.0%}: groups ({groups.key}) stay whole."
        )
    if n_heldout < LEAST_FOR_A_TEST:
        notes.append(
            f"Held-out groups ({groups.key}): {n_heldout}. Tests of {nouns.labels} need {LEAST_FOR_A_TEST}: raise data.heldout_fraction, "
            "use data with more groups, or name a finer column in data.group_key."
        )
    return notes


def shared_labels(labels: npt.NDArray[np.object_] | None, groups: Groups | None) -> npt.NDArray[np.object_] | None:
    """The labels that each side of the split gets its share of: all of them, or the most frequent ones where there are very many.

    The split of groups holds a number for each pair of a group and a label: thousands of labels and a hundred thousand groups would not
    fit in memory. (Labels that are the groups are left out: what is a group cannot be shared out.)
    """
    if labels is None or groups is None:
        return labels
    most = max(_MOST_PAIRS // len(groups.name.categories), 1)
    text = pd.Series(labels, dtype=object)
    kept: npt.NDArray[np.object_] = text.where(text.isin(text.value_counts().index[:most]), None).to_numpy(dtype=object)
    return kept


def copies_notes(
    digest: npt.NDArray[np.int64], heldout: npt.NDArray[np.bool_], has_groups: bool, nouns: Nouns, content: str
) -> list[str]:
    """What a reader must know of items that are there twice.

    digest: [items], the same for the same content. content: what a reader calls it (sequence, text).
    """
    _, number, times = np.unique(digest, return_inverse=True, return_counts=True)
    n_copied = int((times[number] > 1).sum())
    if not n_copied:
        return []
    n_held = np.bincount(number, weights=heldout, minlength=len(times))
    both = int(((n_held > 0) & (n_held < times)).sum())
    text = f"{nouns.items.capitalize()} whose {content} another one has too: {n_copied:,}."
    if both:
        advice = "name one group for the copies" if has_groups else "data.group_key can keep copies together"
        text += f" Of {both:,} {content}s there are copies on both sides of the split: held-out numbers are too good by that; {advice}."
    return [text]
