"""A feature's own targets, and the matched targets of the same item that they are compared with.

**Values** (cells): a target is a unit, a gene. A feature's own units are those with the highest specificity for it
(`associations/gene_ranking.specificity`) on *training* items. They are measured on held-out items: a set that is chosen where the edit is
large would find a large effect by its choice. Matched units share the bin of detection rate and mean expression
(`validation/background.matched_bins`).

**Distributions** (proteins): a target is a token. A feature's own tokens are those where it is active; matched ones are tokens of the same
unit (amino acid) of the same item where it is not.

Within an item, with D_t the change of target t, O its own targets and C_s the other targets of stratum s (bin, or amino acid),

    own = mean of D over O,    matched = sum over s of |O in s| / |O| x mean of D over C_s.

Own targets of a stratum without other targets are compared with all other targets of the item.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from sae_genomics.associations.gene_ranking import specificity
from sae_genomics.validation.background import matched_bins

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

LEAST_TOKENS = 3  # of a unit on training items, on which the feature is active, so that the unit can be its own


@dataclass(frozen=True)
class Fired:
    """What features do on training items.

    activation, n_active: csr [features, units], summed activation and tokens with activation > 0. unit_tokens: int64 [units].
    unit_weight: float64 [units], mean weight (count) of the unit's tokens. n_tokens: tokens that count.
    """

    activation: sparse.csr_matrix
    n_active: sparse.csr_matrix
    unit_tokens: Ints
    unit_weight: Floats
    n_tokens: int

    @property
    def rate(self) -> Floats:
        """Share of the tokens on which each feature is active: [features]."""
        return np.asarray(self.n_active.sum(axis=1)).ravel() / max(self.n_tokens, 1)

    @property
    def mean(self) -> Floats:
        """Mean activation where a feature is active; 0 where it never is: [features]."""
        total = np.asarray(self.activation.sum(axis=1)).ravel()
        return total / np.maximum(np.asarray(self.n_active.sum(axis=1)).ravel(), 1)


def own_units(fired: Fired, features: npt.ArrayLike, most: int) -> Bools:
    """Up to `most` units with the highest specificity above 0 for each feature: bool [features named, units]."""
    chosen = np.asarray(features, dtype=np.int64)
    own = np.zeros((len(chosen), len(fired.unit_tokens)), dtype=bool)
    for row, feature in enumerate(chosen.tolist()):  # one sort of a feature's own units: a few of the layer's features
        part = slice(*fired.activation.indptr[feature : feature + 2])
        unit, n = fired.activation.indices[part], fired.n_active.data[part]
        value = fired.activation.data[part]
        bits = specificity(value, value.sum(), n.sum(), fired.unit_tokens[unit], fired.n_tokens)
        known = (n >= LEAST_TOKENS) & (bits > 0)
        best = np.lexsort((unit[known], -bits[known]))[:most]
        own[row, unit[known][best]] = True
    return own


def unit_bins(fired: Fired) -> Ints:
    """Units of similar detection rate and similar mean weight share a bin: int64 [units]; -1 for units that were never met."""
    bins = np.full(len(fired.unit_tokens), -1, dtype=np.int64)
    met = np.flatnonzero(fired.unit_tokens > 0)
    if len(met):
        bins[met] = matched_bins(fired.unit_tokens[met], fired.unit_weight[met])
    return bins


@dataclass(frozen=True)
class Targets:
    """The targets of one feature in some items, one entry per token.

    item: int64 [T], 0 to n_items - 1, ascending. own, control: bool [T], own targets and all other targets that count; of tokens that do
    not count both are False. stratum: int64 [T], what matched targets have in common. key: int64 [T], tokens of one key are one
    target (a gene in several cells).
    """

    item: Ints
    own: Bools
    control: Bools
    stratum: Ints
    key: Ints
    n_items: int

    @property
    def usable(self) -> Bools:
        """Items with own targets and others: bool [items]."""
        return (self._count(self.own) > 0) & (self._count(self.control) > 0)

    def _count(self, which: Bools) -> Floats:
        return np.bincount(self.item[which], minlength=self.n_items).astype(np.float64)

    def weights(self) -> tuple[Floats, Floats]:
        """Weights [T] of own and of matched targets: an item's mean change is the sum of weight x change over its tokens."""
        own_weight, matched = np.zeros(len(self.item)), np.zeros(len(self.item))
        n_own, n_control = self._count(self.own), self._count(self.control)
        usable = self.usable
        own_weight[self.own] = 1 / n_own[self.item[self.own]]
        cell = _cells(self.item, self.stratum)
        own_in, control_in = (
            np.bincount(cell[which], minlength=int(cell.max(initial=-1)) + 1) for which in (self.own, self.control)
        )
        orphans = np.bincount(self.item[self.own], (control_in[cell[self.own]] == 0).astype(float), self.n_items)
        item, cell = self.item[self.control], cell[self.control]
        with np.errstate(divide="ignore", invalid="ignore"):
            weight = (own_in[cell] / control_in[cell] + orphans[item] / n_control[item]) / n_own[item]
        matched[self.control] = weight
        unused = ~usable[self.item]
        own_weight[unused] = matched[unused] = 0
        return own_weight, matched

    def per_item(self, change: Floats, weight: Floats) -> Floats:
        """Sum of weight x change over each item's tokens: float64 [items]; NaN for items that are not usable. change: [T]."""
        sums = np.bincount(self.item, change * weight, self.n_items)
        return np.where(self.usable, sums, np.nan)

    def residuals(self, change: Floats) -> Floats:
        """Each token's change minus the mean over the other targets of its item and stratum, else of its item: float64 [T]."""
        cell = _cells(self.item, self.stratum)
        n_cells = int(cell.max(initial=-1)) + 1
        n_cell, n_item = np.bincount(cell[self.control], minlength=n_cells), self._count(self.control)
        with np.errstate(divide="ignore", invalid="ignore"):
            of_cell = np.bincount(cell[self.control], change[self.control], n_cells) / n_cell
            of_item = np.bincount(self.item[self.control], change[self.control], self.n_items) / n_item
        return change - np.where(n_cell[cell] > 0, of_cell[cell], of_item[self.item])


def random_targets(targets: Targets, change: Floats, draws: int, generator: np.random.Generator) -> Floats:
    """What (own - matched) is for random targets in place of the own ones: float64 [items, draws], NaN without any in the item.

    Each own target is replaced by one of the others of its stratum, drawn with replacement; where there is none, by any other of the
    item (of any item, where a target is in several). No forward pass: the edit's change of every token is known.
    """
    own_key, own_stratum, own_item = _distinct(targets, targets.own)
    key, stratum, item = _distinct(targets, targets.control)
    if not len(key) or not len(own_key):
        return np.full((targets.n_items, draws), np.nan)
    if len(np.unique(targets.key)) < len(targets.key):  # a target is in several items: any item's will do
        item, own_item = np.zeros_like(item), np.zeros_like(own_item)
    order = np.lexsort((stratum, item))
    key, stratum, item = key[order], stratum[order], item[order]
    first, last = _range(_pairs(item, stratum), _pairs(own_item, own_stratum))
    item_first, item_last = _range(item, own_item)
    none = first == last
    first, last = np.where(none, item_first, first), np.where(none, item_last, last)
    known = np.flatnonzero(last > first)
    at = first[known] + (generator.random((draws, len(known))) * (last - first)[known]).astype(np.int64)
    n_keys = int(targets.key.max()) + 1
    sets = sparse.csr_matrix(
        (np.ones(at.size), (key[at].ravel(), np.repeat(np.arange(draws), len(known)))), shape=(n_keys, draws)
    )
    control = targets.control
    shape = (targets.n_items, n_keys)
    where = (targets.item[control], targets.key[control])
    sums = (sparse.csr_matrix((targets.residuals(change)[control], where), shape=shape) @ sets).toarray()
    counts = (sparse.csr_matrix((np.ones(int(control.sum())), where), shape=shape) @ sets).toarray()
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((counts > 0) & targets.usable[:, None], sums / counts, np.nan)


def _distinct(targets: Targets, which: Bools) -> tuple[Ints, Ints, Ints]:
    """Key, stratum and first item of each distinct target."""
    key, first = np.unique(targets.key[which], return_index=True)
    return key, targets.stratum[which][first], targets.item[which][first]


def _cells(item: Ints, stratum: Ints) -> Ints:
    """The pair of item and stratum of each token, from 0 without gaps."""
    return np.unique(_pairs(item, stratum), return_inverse=True)[1].astype(np.int64)


def _pairs(item: Ints, stratum: Ints) -> Ints:
    return item * (1 << 40) + stratum


def _range(ordered: Ints, wanted: Ints) -> tuple[Ints, Ints]:
    return np.searchsorted(ordered, wanted, "left"), np.searchsorted(ordered, wanted, "right")
