"""Gene sets in new items: how many of a set's genes an item's tokens show, and which.

An item's score is the score that at least half of its tokens of the set's genes reach: it is at least the threshold where at least half of these tokens
are. A set is found where it is, and where a larger share of its tokens than of the item's other tokens is above the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.concepts.concept import NEGATIVE, POSITIVE, UNCOUNTED
from sae_genomics.concepts.gene_tokens import GeneTokens, SetTable
from sae_genomics.data.units import Units

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sets:
    """The gene sets among some concepts, with the units of new data. tested: held-out genes that the registry was measured on, and all
    sets' numbers. member: bool [units, sets]. names: object [units]."""

    tested: SetTable
    member: Bool
    names: npt.NDArray[np.object_]

    @staticmethod
    def of(known: Sequence[dict[str, Any]], units: Units) -> Sets:
        """known: entries of thresholds.json. Genes are found by their names, whatever the case."""
        numbers = np.array([number for number, each in enumerate(known) if each["score"] == "token"], np.int64)
        place = {str(name).upper(): row for row, name in enumerate(units.unit_name)}

        def rows(names: Sequence[str]) -> list[int]:
            return [place[name.upper()] for name in names if name.upper() in place]

        member = np.zeros((len(units), len(numbers)), bool)
        truth = np.full((len(units), len(numbers)), UNCOUNTED, np.int8)
        for column, number in enumerate(numbers):
            genes = known[number]["genes"]
            member[rows(genes["members"]), column] = True
            truth[rows(genes["test_others"]), column] = NEGATIVE
            truth[rows(genes["test_members"]), column] = POSITIVE
        return Sets(SetTable(numbers, truth), member, units.unit_name)

    @property
    def numbers(self) -> Int64:
        """Numbers of the concepts that are gene sets."""
        return self.tested.numbers

    def tokens(self, values: npt.NDArray[np.float32], item: Int64, unit: npt.NDArray[np.integer]) -> GeneTokens:
        """Tokens of the genes that the registry was measured on. values: [T, concepts]. item, unit: [T]."""
        return self.tested.tokens(values, item, unit, np.unique(item))

    def found(
        self,
        values: npt.NDArray[np.float32],
        ptr: Int64,
        unit: npt.NDArray[np.integer],
        threshold: npt.NDArray[np.float64],
    ) -> Found:
        """Of every item. values: [T, concepts]. ptr: int64 [items + 1]. unit: [T]. threshold: [concepts]."""
        score, above = values[:, self.numbers], values[:, self.numbers] >= threshold[self.numbers]
        member = self.member[unit]
        n_tokens, n_above = _per_item(member, ptr), _per_item(member & above, ptr)
        n_others, others_above = _per_item(~member, ptr), _per_item(~member & above, ptr)
        with np.errstate(divide="ignore", invalid="ignore"):
            share, share_others = n_above / n_tokens, others_above / n_others
        half = _reached_by_half(score, member, ptr, n_tokens)
        detected = (half >= threshold[self.numbers]) & ~(share <= share_others)
        return Found(half, detected, n_tokens, share, share_others, member & above)


@dataclass(frozen=True)
class Found:
    """Of every item and gene set, [items, sets] each. score: that at least half of the set's tokens reach; NaN where the item has none of its genes.
    detected: see the module's text. n_tokens: of the set's genes. share, share_others: of these, and of all other tokens, above the
    threshold. above: bool [T, sets], tokens of the set's genes above the threshold."""

    score: npt.NDArray[np.float64]
    detected: Bool
    n_tokens: Int64
    share: npt.NDArray[np.float64]
    share_others: npt.NDArray[np.float64]
    above: Bool

    def genes(self, item: Int64, column: Int64, ptr: Int64, names: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
        """Names of the genes above the threshold, comma-separated, of some items and sets: object [rows]. names: [T], of each token's unit."""
        of_token = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
        token, which = np.nonzero(self.above)
        key = of_token[token] * self.above.shape[1] + which
        joined = pd.Series(names[token], dtype=object).groupby(key).agg(",".join)
        return joined.reindex(item * self.above.shape[1] + column).fillna("").to_numpy(object)


def _per_item(mask: Bool, ptr: Int64) -> Int64:
    """How many of each item's rows are true: int64 [items, sets]."""
    total = np.zeros((len(mask) + 1, mask.shape[1]), np.int64)
    np.cumsum(mask, axis=0, out=total[1:])
    return total[ptr[1:]] - total[ptr[:-1]]


def _reached_by_half(
    score: npt.NDArray[np.float32], member: Bool, ptr: Int64, n_tokens: Int64
) -> npt.NDArray[np.float64]:
    """The ceil(n / 2)-th largest score of each item's n members: float64 [items, sets]; NaN without any."""
    of_token = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    token, column = np.nonzero(member)
    values = score[token, column]
    order = np.lexsort((-values, column, of_token[token]))
    ends = np.cumsum(n_tokens.ravel())
    at = ends - n_tokens.ravel() + (n_tokens.ravel() + 1) // 2 - 1
    found = np.full(n_tokens.size, np.nan)
    known = n_tokens.ravel() > 0
    found[known] = values[order][at[known]]
    return found.reshape(n_tokens.shape)
