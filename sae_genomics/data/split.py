"""Which cells no SAE is trained on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def split_cells(
    n_cells: int, labels: npt.ArrayLike | None, heldout_fraction: float, seed: int
) -> npt.NDArray[np.bool_]:
    """Held-out cells: bool [n_cells], True for held-out.

    labels: [n_cells], the annotation to stratify by, or None; missing values (NaN, None) count as one more label.
    heldout_fraction: share of cells held out, 0 (none) up to but not including 1.

    Systematic sampling: with the cells in random order within each label and the labels one after the other, every
    (1 / heldout_fraction)-th cell is held out, from a random start. Each label thus gives its share to within one cell,
    and so do all together. Of two cells or more at least one is held out, unless the fraction is 0, and at least one is not.
    """
    heldout = np.zeros(n_cells, dtype=bool)
    if heldout_fraction <= 0 or n_cells < 2:
        return heldout
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(n_cells)
    if labels is not None:
        _, number = np.unique(np.asarray(labels).astype(str), return_inverse=True)
        shuffled = shuffled[np.argsort(number[shuffled], kind="stable")]
    passed = np.floor(np.arange(n_cells + 1) * heldout_fraction + generator.random())
    heldout[shuffled[np.diff(passed) > 0]] = True
    if not heldout.any():
        heldout[shuffled[0]] = True
    elif heldout.all():
        heldout[shuffled[0]] = False
    return heldout
