"""Whether stored values are counts, and getting counts back from log1p of normalised ones.

Normalisation divides a cell's counts by its depth and multiplies by a target, so a cell's values are c x unit with
whole c and one unit per cell; log1p keeps that readable: expm1(value) = c x unit. The unit is found from the cell's
smallest value, which is nearly always a count of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

Scale = Literal["counts", "log1p_counts", "log1p_normalised", "normalised"]

INTEGRAL_TOLERANCE = 1e-3  # absolute; counts that passed through other software can carry rounding
RELATIVE_TOLERANCE = 0.005  # of a recovered count
LARGEST_MULTIPLE = 10  # a cell's smallest count is looked for up to here
MIN_EVIDENCE_BITS = 20.0
_FIRST_VALUES = 1 << 16
_SURE_COUNT = 20  # below this a count is read off right although the unit is known only roughly
_LARGE_COUNT = 200


@dataclass(frozen=True)
class CountsForm:
    """How a matrix's values become counts.

    scale: what the values are; `normalised` means that they are used as they are.
    decimals: digits after the point that were kept when the values were stored; None when they were not rounded.
    """

    scale: Scale
    decimals: int | None = None


class NotCounts(Exception):
    """A value that does not fit the form. row: within the block. what: `negative`, `nan`, `infinite` or `fraction`."""

    def __init__(self, row: int, column: int, value: float, what: str):
        super().__init__(f"{what} value {value} at row {row}, column {column}")
        self.row, self.column, self.value, self.what = row, column, value, what


def to_counts(block: csr_matrix, form: CountsForm) -> tuple[csr_matrix, float]:
    """Counts of whole cells.

    block: [cells, genes], every stored value of each cell, in the dtype on disk.
    form: what the values are.

    Returns (counts [cells, genes] without stored zeros: whole numbers, or the values themselves for `normalised`;
    evidence in bits, see `_evidence`; inf where nothing had to be recovered). Raises NotCounts at the first value that
    does not fit. A cell's counts depend on that cell alone.
    """
    check_values(block)
    if block.nnz and block.data.min() == 0:
        block = block.copy()
        block.eliminate_zeros()
    if form.scale == "normalised":
        return block, np.inf
    if form.scale == "counts":
        return _whole(block), np.inf
    return _recover(block, form)


def check_values(block: csr_matrix) -> None:
    """Raise NotCounts when a value is NaN, infinite or negative."""
    if not block.nnz or block.dtype.kind in "ub":
        return
    low, high = float(block.data.min()), float(block.data.max())  # NaN comes through both
    if low >= 0 and high < np.inf:
        return
    for bad, what in ((np.isnan, "nan"), (np.isinf, "infinite"), (lambda data: data < 0, "negative")):
        wrong = bad(block.data)
        if wrong.any():
            raise _not_counts(block, int(np.argmax(wrong)), what)


def check_logs(block: csr_matrix) -> None:
    """Raise NotCounts when most values of a block are whole numbers, which logs are not."""
    whole = block.data == np.rint(block.data)
    if whole[:_FIRST_VALUES].sum() > 0.5 * min(block.nnz, _FIRST_VALUES) and not whole.all():
        raise _not_counts(block, int(np.argmin(whole)), "fraction")


def stored_decimals(block: csr_matrix) -> int | None:
    """Digits after the point that all values of a block have at most: 1 to 5, or None when they have more."""
    data = block.data[:_FIRST_VALUES].astype(np.float64)
    if not len(data):
        return None
    precision = 4 * np.finfo(block.dtype).eps if block.dtype.kind == "f" else 0.0
    for decimals in range(1, 6):
        scaled = data * 10.0**decimals
        # beyond the type's own precision every number looks rounded
        if (scaled * precision).max() > 0.1:
            return None
        if (np.abs(scaled - np.rint(scaled)) <= scaled * precision + 1e-9).all():
            return decimals
    return None


def _not_counts(block: csr_matrix, position: int, what: str) -> NotCounts:
    row = int(np.searchsorted(block.indptr, position, side="right")) - 1
    return NotCounts(row, int(block.indices[position]), float(block.data[position]), what)


def _whole(block: csr_matrix) -> csr_matrix:
    if block.dtype.kind in "iub":
        return block
    whole = np.rint(block.data)
    if np.array_equal(whole, block.data):
        return block
    wrong = (np.abs(whole - block.data) > INTEGRAL_TOLERANCE) | (whole == 0)
    if wrong.any():
        raise _not_counts(block, int(np.argmax(wrong)), "fraction")
    return csr_matrix((whole, block.indices, block.indptr), shape=block.shape)


def _recover(block: csr_matrix, form: CountsForm) -> tuple[csr_matrix, float]:
    """Counts c with expm1(value) = c x unit, |expm1(value) / unit - c| <= 0.005 c plus what rounding explains.

    The unit of a cell is tried as its smallest expm1(value) divided by 1, 2, ... 10, each time refined by weighted
    least squares over the counts it gives, unit = sum(w c e) / sum(w c^2) with w = 1 / (1 + e)^2, since an error d of
    the stored value is an error (1 + e) d of e = expm1(value). `log1p_counts` has unit 1 throughout; there too a
    cell's smallest count is at most 10, or any large numbers would do.
    """
    lengths = np.diff(block.indptr)
    occupied = np.flatnonzero(lengths)
    if not len(occupied):
        return block, 0.0
    e = np.expm1(block.data.astype(np.float64))
    if not np.isfinite(e).all() or e.min() <= 0:
        raise _not_counts(block, int(np.argmax(~np.isfinite(e) | (e <= 0))), "fraction")
    slack = (1 + e) * (0.5 * 10.0**-form.decimals if form.decimals is not None else 0.0)
    cell = np.repeat(np.arange(len(occupied)), lengths[occupied])
    smallest = np.minimum.reduceat(e, block.indptr[:-1][occupied])
    counts, share = np.zeros(block.nnz), np.zeros(block.nnz)
    multiple_of = np.zeros(len(occupied), dtype=np.int64)  # 0 while a cell's unit is not found
    for multiple in [1] if form.scale == "log1p_counts" else range(1, LARGEST_MULTIPLE + 1):
        tried = np.flatnonzero(multiple_of[cell] == 0)
        if not len(tried):
            break
        some, its_cell = e[tried], cell[tried]
        unit = np.ones(len(occupied))
        if form.scale != "log1p_counts":
            unit = _refined(smallest / multiple, some, its_cell)
        part = some / unit[its_cell]
        whole = np.rint(part)
        tolerance = RELATIVE_TOLERANCE * whole + slack[tried] / unit[its_cell]
        misses = (np.abs(part - whole) > tolerance) | (whole == 0)
        failed = np.bincount(its_cell, weights=misses, minlength=len(occupied)) > 0
        failed |= smallest > (LARGEST_MULTIPLE + 0.5) * unit
        multiple_of[(multiple_of == 0) & ~failed] = multiple
        fits = ~failed[its_cell]
        counts[tried[fits]], share[tried[fits]] = whole[fits], part[fits]
    if not multiple_of.all():
        raise _worst_of_cell(block, int(occupied[np.argmin(multiple_of != 0)]), e)
    informative = np.ones(block.nnz, dtype=bool) if form.scale == "log1p_counts" else e > smallest[cell]
    bits = _evidence(block.data[informative], counts[informative], share[informative])
    bits -= float(np.log2(LARGEST_MULTIPLE) * (multiple_of > 1).sum())
    return csr_matrix((counts, block.indices, block.indptr), shape=block.shape), bits


def _evidence(
    value: npt.NDArray[np.floating], counts: npt.NDArray[np.float64], share: npt.NDArray[np.float64]
) -> float:
    """How surprising the fit would be for values that are no counts, in bits.

    With d the largest relative deviation seen, a value that is no count comes as close to count c by chance with
    probability p = min(1, 2 d c); the bits are -log2 p summed over distinct values, because equal ones are no news.
    Large counts add nothing. (A cell's smallest value fixes its unit and is left out; `_recover` takes log2(10) off for
    each cell whose smallest count was not 1.)
    """
    if not len(value):
        return 0.0
    deviation = max(float((np.abs(share - counts) / counts).max()), 1e-7)
    _, distinct = np.unique(value, return_index=True)
    return float(-np.log2(np.minimum(2 * deviation * counts[distinct], 1.0)).sum())


def _refined(
    unit: npt.NDArray[np.float64], e: npt.NDArray[np.float64], cell: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """The unit of each cell by least squares, first over small counts, then over larger ones too."""
    weight = (1 + e) ** -2.0
    for limit in (_SURE_COUNT, _LARGE_COUNT):
        whole = np.rint(e / unit[cell])
        use = np.where(whole <= limit, weight * whole, 0.0)
        above = np.bincount(cell, weights=use * e, minlength=len(unit))
        below = np.bincount(cell, weights=use * whole, minlength=len(unit))
        unit = np.where(below > 0, above / np.where(below > 0, below, 1.0), unit)
    return unit


def _worst_of_cell(block: csr_matrix, row: int, e: npt.NDArray[np.float64]) -> NotCounts:
    """The value of a cell that is furthest from a multiple of its smallest."""
    part = slice(block.indptr[row], block.indptr[row + 1])
    share = e[part] / e[part].min()
    return _not_counts(block, int(part.start + np.argmax(np.abs(share - np.rint(share)) / share)), "fraction")
