"""What becomes of a feature from layer to layer: persistent, split, merged, born, died.

From linked pairs (`matching`) of two consecutive layers. The children of i are the features of the next layer whose best linked partner
is i; the parents of j are the features of the layer before whose best linked partner is j. Two children count as a split only when both
together explain clearly more of i than the better one does:

    R2 = (r1^2 + r2^2 - 2 r1 r2 r12) / (1 - r12^2)        split when R2 - max(r1^2, r2^2) >= GAIN

with r1, r2 the correlations of i with its two strongest children and r12 theirs with each other; likewise for parents. Then:

    after       split        its children share it
                merged       its best partner is shared by several parents, or belongs to another feature
                persistent   it and its best partner are each other's best, and share with nobody
                died         no linked partner
                unit         no linked partner, but one that correlates as well when tokens are permuted within their unit
    before      the same towards the layer before, with born in place of died

`fate` is one word for both: born where `before` is, else died where `after` is, else the first of split, merged, persistent and unit that
either is. A feature that a second seed's SAE of the same layer does not find again (`found_again`) can also be lacking in the next layer's
SAE by the luck of its training: born and died say least of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.cross_layer.correlations import Candidates, Features, same_layer_correlations
from sae_genomics.cross_layer.matching import Matches, best_pair

GAIN = 0.1  # of the variance of a feature, that a second partner must add
_ORDER = ("born", "died", "split", "merged", "persistent", "unit")
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Text = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Step:
    """Two consecutive layers. Of features of the first (after) and of the second (before), arrays [features].

    after, before: words, None for a feature that never varies. child, parent: int64, best linked partner, -1 for none.
    r_child, r_parent: float64, its correlation, NaN for none. n_children, n_parents: int64. heir: int64 [features of the first], the
    partner that it is mutual best with, -1 for none.
    """

    after: Text
    before: Text
    child: Int64
    parent: Int64
    r_child: Float64
    r_parent: Float64
    n_children: Int64
    n_parents: Int64
    heir: Int64


def step(first: Features, second: Features, matches: Matches, min_correlation: float) -> Step:
    """What becomes of the first layer's features, and where the second's come from."""
    pairs = matches.pairs.take(matches.linked)
    best_child = best_pair(pairs.first, pairs.correlation, first.d_sae)
    best_parent = best_pair(pairs.second, pairs.correlation, second.d_sae)
    child, r_child = _partner(best_child, pairs.second, pairs.correlation)
    parent, r_parent = _partner(best_parent, pairs.first, pairs.correlation)
    splits, n_children = _shared(_turned(pairs), best_parent, first.d_sae, second)
    merges, n_parents = _shared(pairs, best_child, second.d_sae, first)
    heir = np.where((child >= 0) & (parent[child] == np.arange(first.d_sae)), child, -1)
    is_heir = np.zeros(second.d_sae, dtype=bool)
    is_heir[heir[heir >= 0]] = True

    after = np.full(first.d_sae, "merged", dtype=object)  # its best partner belongs to another feature
    after[(heir >= 0) & ~merges[child]] = "persistent"
    after[splits] = "split"
    before = np.full(second.d_sae, "split", dtype=object)
    before[is_heir & ~splits[parent]] = "persistent"
    before[merges] = "merged"
    by_unit = _reaches(matches.pairs, min_correlation, first.d_sae, second.d_sae)
    for word, alone, unit, live, features in (
        (after, (child < 0) & (n_children == 0), by_unit[0], first.live, "died"),
        (before, (parent < 0) & (n_parents == 0), by_unit[1], second.live, "born"),
    ):
        word[alone] = features
        word[alone & unit] = "unit"
        word[~live] = None
    return Step(after, before, child, parent, r_child, r_parent, n_children, n_parents, heir)


def _partner(best: Int64, other: npt.NDArray[np.int32], r: Float64) -> tuple[Int64, Float64]:
    """The partner that each feature's best pair names, and its correlation."""
    if not len(other):
        return np.full(len(best), -1, dtype=np.int64), np.full(len(best), np.nan)
    return np.where(best >= 0, other[best], -1).astype(np.int64), np.where(best >= 0, r[best], np.nan)


def _turned(pairs: Candidates) -> Candidates:
    return Candidates(pairs.second, pairs.first, pairs.correlation)


def _shared(pairs: Candidates, best: Int64, n_second: int, first: Features) -> tuple[npt.NDArray[np.bool_], Int64]:
    """Whether a feature of the second layer is shared by its two strongest followers of the first: bool [n_second]; and how many there are.

    A follower is a feature of the first layer whose best pair is with it. best: int64 [features of the first], row of `pairs`, -1 for none.
    """
    rows = best[best >= 0]
    leader, follower, r = pairs.second[rows], pairs.first[rows], pairs.correlation[rows]
    n_followers = np.bincount(leader, minlength=n_second)
    order = np.lexsort((follower, -r, leader))
    leader, follower, r = leader[order], follower[order], r[order]
    at = np.flatnonzero(leader[1:] == leader[:-1])
    at = at[np.r_[True, leader[at][1:] != leader[at][:-1]]] if len(at) else at  # the two strongest of each
    shared = np.zeros(n_second, dtype=bool)
    gain = gain_of_both(r[at], r[at + 1], same_layer_correlations(first, follower[at], follower[at + 1]))
    shared[leader[at[gain >= GAIN]]] = True
    return shared, n_followers.astype(np.int64)


def gain_of_both(r1: Float64, r2: Float64, r12: Float64) -> Float64:
    """Share of variance that two predictors explain beyond the better one. r12: their correlation; 0 where they are the same."""
    left = 1 - r12**2
    both = np.divide(r1**2 + r2**2 - 2 * r1 * r2 * r12, left, out=np.zeros_like(r1), where=left > 1e-6)
    return np.where(left > 1e-6, both - np.maximum(r1**2, r2**2), 0.0)


def _reaches(
    pairs: Candidates, min_correlation: float, n_first: int, n_second: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Whether each feature has a partner, linked or not, of at least that correlation."""
    first, second = np.zeros(n_first, dtype=bool), np.zeros(n_second, dtype=bool)
    enough = pairs.correlation >= min_correlation
    first[pairs.first[enough]] = True
    second[pairs.second[enough]] = True
    return first, second


def fate_table(
    layers: list[int],
    features: dict[int, Features],
    steps: list[Step],
    found_again: Mapping[int, npt.NDArray[np.bool_]],
) -> pd.DataFrame:
    """Rows of fates.parquet: every feature of every layer that varies on the sampled tokens.

    steps: between consecutive layers. found_again: layer -> bool [features], in the SAE of a second seed, of layers that have one.
    """
    tables, n_chains = [], 0
    chain = np.empty(0, dtype=np.int64)
    for number, layer in enumerate(layers):
        of = features[layer]
        earlier, later = steps[number - 1] if number else None, steps[number] if number < len(steps) else None
        inherited = np.full(of.d_sae, -1, dtype=np.int64)
        if earlier is not None:
            heirs = np.flatnonzero(earlier.heir >= 0)
            inherited[earlier.heir[heirs]] = chain[heirs]
        new = inherited < 0
        chain = inherited
        chain[new] = n_chains + np.arange(int(new.sum()))
        n_chains += int(new.sum())
        table = _layer_table(layer, of, earlier, later, chain)
        again = found_again.get(layer)
        table["found_again"] = pd.NA if again is None else again
        tables.append(table.astype({"found_again": "boolean"})[of.live])
    return pd.concat(tables, ignore_index=True)


def _layer_table(layer: int, of: Features, earlier: Step | None, later: Step | None, chain: Int64) -> pd.DataFrame:
    n = of.d_sae
    nobody, nothing, nowhere = np.full(n, None, dtype=object), np.full(n, np.nan), np.full(n, -1)
    before = nobody if earlier is None else earlier.before
    after = nobody if later is None else later.after
    return pd.DataFrame(
        {
            "layer": layer, "feature": np.arange(n), "fate": _fate(before, after), "before": before, "after": after,
            "feature_before": _nullable(nowhere if earlier is None else earlier.parent),
            "correlation_before": nothing if earlier is None else earlier.r_parent,
            "n_parents": _nullable(nowhere if earlier is None else earlier.n_parents),
            "feature_after": _nullable(nowhere if later is None else later.child),
            "correlation_after": nothing if later is None else later.r_child,
            "n_children": _nullable(nowhere if later is None else later.n_children),
            "chain": chain, "firing_rate": np.diff(of.by_feature.ptr) / max(len(of.by_token.ptr) - 1, 1),
        }
    )  # fmt: skip


def _fate(before: Text, after: Text) -> Text:
    """One word for both."""
    fate = np.full(len(before), None, dtype=object)
    for word in reversed(_ORDER):
        fate[(before == word) | (after == word)] = word
    return fate


def _nullable(values: Int64) -> pd.arrays.IntegerArray:
    return pd.arrays.IntegerArray(values.astype(np.int64), values < 0)
