"""Which cells are used, and which of them no SAE is trained on."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt
import pandas as pd


def split_cells(
    n_cells: int, labels: npt.ArrayLike | pd.Categorical | None, heldout_fraction: float, seed: int
) -> npt.NDArray[np.bool_]:
    """Held-out cells: bool [n_cells], True for held-out.

    labels: [n_cells], the annotation to stratify by, or None; missing values (NaN, None) count as one more label.
    heldout_fraction: share of cells held out, 0 (none) up to but not including 1.

    Systematic sampling: with the cells in random order within each label and the labels one after the other, every
    (1 / heldout_fraction)-th cell is held out, from a random start. Each label thus gives its share to within one cell,
    and so do all together. A label of two cells or more then gives one if it gave none, and keeps one if it kept none.
    """
    heldout = np.zeros(n_cells, dtype=bool)
    if heldout_fraction <= 0 or n_cells < 2:
        return heldout
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(n_cells)
    group = np.zeros(n_cells, dtype=np.int64) if labels is None else _groups(labels)
    if len(group) != n_cells:
        raise ValueError(f"{len(group)} labels for {n_cells} cells")
    shuffled = shuffled[np.argsort(group[shuffled], kind="stable")]
    passed = np.floor(np.arange(n_cells + 1) * heldout_fraction + generator.random())
    heldout[shuffled[np.diff(passed) > 0]] = True

    sizes = np.bincount(group)
    first = shuffled[np.concatenate([[0], np.cumsum(sizes)[:-1]])]  # one random cell of each label
    taken = np.bincount(group, weights=heldout)
    heldout[first[(sizes >= 2) & (taken == 0)]] = True
    heldout[first[(sizes >= 2) & (taken == sizes)]] = False
    if not heldout.any():
        heldout[first[0]] = True
    elif heldout.all():
        heldout[first[0]] = False
    return heldout


def _groups(labels: npt.ArrayLike | pd.Categorical) -> npt.NDArray[np.int64]:
    """Number of each cell's label, by the labels' alphabetical order: int64 [cells]."""
    values = labels if isinstance(labels, pd.Categorical) else np.asarray(labels, dtype=object)
    number, names = pd.factorize(values, use_na_sentinel=False)
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.argsort(np.asarray(names, dtype=object).astype(str), kind="stable")] = np.arange(len(names))
    return rank[number]


def choose_cells(n_cells: int, max_cells: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Rows of the cells that are used, ascending, so that shards read the file from front to back: int64 [used]."""
    if max_cells is None or max_cells >= n_cells:
        return np.arange(n_cells, dtype=np.int64)
    generator = np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(b"max_cells")]))
    return np.sort(generator.choice(n_cells, max_cells, replace=False, shuffle=False)).astype(np.int64)
