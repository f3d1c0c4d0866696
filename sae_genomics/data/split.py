"""Which items are used, and which of them no SAE is trained on."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt
import pandas as pd

_STARTS = 8
_STEPS = 200
_CANDIDATES = 256
_SAME = 1e-12  # sums differ by less between machines


def split_items(
    n_items: int,
    labels: npt.ArrayLike | pd.Categorical | None,
    heldout_fraction: float,
    seed: int,
    groups: npt.ArrayLike | pd.Categorical | None = None,
) -> npt.NDArray[np.bool_]:
    """Held-out items: bool [n_items], True for held-out.

    labels: [n_items], the annotation to stratify by, or None; missing values (NaN, None) count as one more label.
    heldout_fraction: share of items held out, 0 (none) up to but not including 1.
    groups: [n_items], donors, samples or batches that are not to be cut, at least two of them; see `split_groups`. None: every
        item stands for itself.

    Systematic sampling: with the items in random order within each label and the labels one after the other, every
    (1 / heldout_fraction)-th item is held out, from a random start. Each label thus gives its share to within one item,
    and so do all together. A label of two items or more then gives one if it gave none, and keeps one if it kept none.
    """
    heldout = np.zeros(n_items, dtype=bool)
    if heldout_fraction <= 0 or n_items < 2:
        return heldout
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(n_items)
    group = np.zeros(n_items, dtype=np.int64) if labels is None else _groups(labels)
    if len(group) != n_items:
        raise ValueError(f"{len(group)} labels for {n_items} items")
    if groups is not None:
        return _by_groups(_groups(groups), group, heldout_fraction, generator)
    shuffled = shuffled[np.argsort(group[shuffled], kind="stable")]
    passed = np.floor(np.arange(n_items + 1) * heldout_fraction + generator.random())
    heldout[shuffled[np.diff(passed) > 0]] = True

    sizes = np.bincount(group)
    first = shuffled[np.concatenate([[0], np.cumsum(sizes)[:-1]])]  # one random item of each label
    taken = np.bincount(group, weights=heldout)
    heldout[first[(sizes >= 2) & (taken == 0)]] = True
    heldout[first[(sizes >= 2) & (taken == sizes)]] = False
    if not heldout.any():
        heldout[first[0]] = True
    elif heldout.all():
        heldout[first[0]] = False
    return heldout


def _by_groups(
    owner: npt.NDArray[np.int64], label: npt.NDArray[np.int64], heldout_fraction: float, generator: np.random.Generator
) -> npt.NDArray[np.bool_]:
    n_groups, n_labels = int(owner.max()) + 1, int(label.max()) + 1
    items = np.bincount(owner * n_labels + label, minlength=n_groups * n_labels).reshape(n_groups, n_labels)
    return split_groups(items, heldout_fraction, generator)[owner]


def split_groups(
    items: npt.NDArray[np.integer], heldout_fraction: float, generator: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Which groups are held out, each of them whole: bool [groups], at least one True and one False.

    items: [groups, labels], items of each label in each group, at least two groups.

    With s_t the share of label t's items that is held out, s that of all items, and f the heldout_fraction, the choice makes

        (s - f)^2 + mean over t of (s_t - f)^2

    small. Labels that follow from the group (each stands in one group alone) count for nothing: no choice of groups gives such a
    label its share. From each of a few random choices one group changes sides, or two swap sides, for as long as that helps; the best
    end is taken. Of very many groups random ones are tried at each step.
    """
    n_groups = len(items)
    if n_groups < 2:
        raise ValueError("one group cannot be held out whole and trained on")
    if ((items > 0).sum(axis=0) <= 1).all():
        items = items.sum(axis=1, keepdims=True)
    totals = items.sum(axis=0)
    rows = np.column_stack([items / totals / np.sqrt(len(totals)), items.sum(axis=1) / totals.sum()])
    target = heldout_fraction * rows.sum(axis=0)
    sizes = items.sum(axis=1)
    best, least = np.zeros(n_groups, dtype=bool), np.inf
    for _ in range(_STARTS):
        order = generator.permutation(n_groups)
        far = np.abs(np.cumsum(sizes[order])[:-1] - heldout_fraction * sizes.sum())
        chosen = np.zeros(n_groups, dtype=bool)
        chosen[order[: int(far.argmin()) + 1]] = True
        cost = _improve(chosen, rows, target, generator)
        if cost < least - _SAME:
            best, least = chosen, cost
    return best


def _improve(
    chosen: npt.NDArray[np.bool_],
    rows: npt.NDArray[np.float64],
    target: npt.NDArray[np.float64],
    generator: np.random.Generator,
) -> float:
    """Change `chosen` while the squared distance of its rows' sum from the target falls; returns that distance."""
    for _ in range(_STEPS):
        inside, outside = _some(np.flatnonzero(chosen), generator), _some(np.flatnonzero(~chosen), generator)
        missed = rows[chosen].sum(axis=0) - target
        leaving = np.square(rows[inside]).sum(axis=1) - 2 * rows[inside] @ missed
        coming = np.square(rows[outside]).sum(axis=1) + 2 * rows[outside] @ missed
        # changes[i, j]: inside[i] leaves and outside[j] comes; the last row and column: nobody does
        changes = np.zeros((len(inside) + 1, len(outside) + 1))
        changes[:-1, :-1] = leaving[:, None] + coming - 2 * rows[inside] @ rows[outside].T
        changes[:-1, -1], changes[-1, :-1] = leaving, coming
        if chosen.sum() == 1:
            changes[:-1, -1] = np.inf
        if chosen.sum() == len(chosen) - 1:
            changes[-1, :-1] = np.inf
        if changes.min() >= -_SAME:
            break
        first = int(np.flatnonzero(changes.ravel() <= changes.min() + _SAME)[0])
        i, j = divmod(first, len(outside) + 1)
        if i < len(inside):
            chosen[inside[i]] = False
        if j < len(outside):
            chosen[outside[j]] = True
    return float(np.square(rows[chosen].sum(axis=0) - target).sum())


def _some(candidates: npt.NDArray[np.int64], generator: np.random.Generator) -> npt.NDArray[np.int64]:
    if len(candidates) <= _CANDIDATES:
        return candidates
    return np.sort(generator.choice(candidates, _CANDIDATES, replace=False))


def _groups(labels: npt.ArrayLike | pd.Categorical) -> npt.NDArray[np.int64]:
    """Number of each item's label, by the labels' alphabetical order: int64 [items]."""
    values = labels if isinstance(labels, pd.Categorical) else np.asarray(labels, dtype=object)
    number, names = pd.factorize(values, use_na_sentinel=False)
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.argsort(np.asarray(names, dtype=object).astype(str), kind="stable")] = np.arange(len(names))
    return rank[number]


def choose_items(n_items: int, max_items: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Rows of the items that are used, ascending, so that shards read the file from front to back: int64 [used]."""
    if max_items is None or max_items >= n_items:
        return np.arange(n_items, dtype=np.int64)
    generator = np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(b"max_cells")]))
    return np.sort(generator.choice(n_items, max_items, replace=False, shuffle=False)).astype(np.int64)
