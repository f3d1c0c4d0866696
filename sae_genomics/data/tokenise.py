"""Sparse counts to the tokens a model reads, a whole batch of cells at once.

A cell becomes its special tokens (`<cls>`, then `<drug>` where used) followed by its expressed genes in column order.
A gene's value is the quantile bin of its count among the cell's own counts. Nothing here loops over cells: one sort of
packed integer keys orders every cell's counts, and everything else is arithmetic on that order.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

_KEY_BITS = 63
_VALUE_BITS = 31  # a positive float32 without its sign bit; such integers stand in the order of the floats


@dataclass(frozen=True)
class TokeniserSettings:
    """How a model family wants its tokens. Field names follow Tahoe-x1's `collator_config.yml`."""

    cls_token_id: int
    pad_token_id: int
    drug_token_id: int | None = None
    pad_value: float = -2.0
    mask_value: float = -1.0
    num_bins: int = 51
    do_binning: bool = True
    right_binning: bool = False
    log_transform: bool = False
    target_sum: float = 10_000.0
    max_length: int = 1024
    sampling: bool = True
    keep_first_n_tokens: int = 1


@dataclass(frozen=True)
class Tokens:
    """Tokens of some cells, one row a token, cells one after the other, never padded.

    cell: int64 [T], row of the cell in the input h5ad.
    gene: int32 [T], vocabulary id.
    expression: float32 [T], the count read; 0 for special tokens.
    value: float32 [T], what the model is given.
    cell_ptr: int64 [cells + 1]; the rows of cell c are cell_ptr[c] to cell_ptr[c + 1].
    drug: int64 [cells], row of the chemical encoder's table, or None where no drug is used.
    n_special: leading special tokens of each cell: 1, or 2 with `<drug>`.
    """

    cell: npt.NDArray[np.int64]
    gene: npt.NDArray[np.int32]
    expression: npt.NDArray[np.float32]
    value: npt.NDArray[np.float32]
    cell_ptr: npt.NDArray[np.int64]
    drug: npt.NDArray[np.int64] | None = None
    n_special: int = 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each cell, special ones included: int64 [cells]."""
        return np.diff(self.cell_ptr)

    @property
    def n_cells(self) -> int:
        return len(self.cell_ptr) - 1

    def __len__(self) -> int:
        return int(self.cell_ptr[-1])

    def take(self, cells: npt.ArrayLike) -> Tokens:
        """The tokens of the chosen cells, in the chosen order.

        cells: int64 [n], positions among this object's cells (not rows of the h5ad).
        """
        cells = np.asarray(cells, dtype=np.int64)
        lengths = self.lengths[cells]
        cell_ptr = _pointers(lengths)
        rows = np.repeat(self.cell_ptr[:-1][cells] - cell_ptr[:-1], lengths) + np.arange(cell_ptr[-1])
        return Tokens(
            cell=self.cell[rows],
            gene=self.gene[rows],
            expression=self.expression[rows],
            value=self.value[rows],
            cell_ptr=cell_ptr,
            drug=None if self.drug is None else self.drug[cells],
            n_special=self.n_special,
        )

    @staticmethod
    def concatenate(parts: list[Tokens]) -> Tokens:
        """All cells of all parts, in order. The parts come from one model."""
        arrays = {
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(Tokens)
            if field.name in ("cell", "gene", "expression", "value")
        }
        drugs = [part.drug for part in parts if part.drug is not None]
        return Tokens(
            **arrays,
            cell_ptr=_pointers(np.concatenate([part.lengths for part in parts])),
            drug=np.concatenate(drugs) if drugs else None,
            n_special=parts[0].n_special,
        )


def tokenise(
    counts: csr_matrix,
    gene_ids: npt.NDArray[np.integer],
    rows: npt.NDArray[np.integer],
    *,
    settings: TokeniserSettings,
    seed: int,
    drugs: npt.NDArray[np.integer] | None = None,
) -> Tokens:
    """Tokens of a batch of cells.

    counts: [cells, columns], non-negative; only entries above zero become tokens.
    gene_ids: int32 [columns], vocabulary id of each column; columns with a negative id are left out.
    rows: int64 [cells], row of each cell in the input h5ad.
    settings: what the model wants.
    seed: decides, with a cell's row alone, which genes stay when a cell has more than `max_length` tokens; the batch
        a cell comes in makes no difference.
    drugs: int64 [cells], ids in the chemical encoder's table; adds the `<drug>` token.
    """
    n_cells = counts.shape[0]
    cell_rows = np.asarray(rows, dtype=np.int64)
    gene, count, lengths = _expressed(counts, np.asarray(gene_ids, dtype=np.int32))
    n_special = 1 if drugs is None else 2
    n_raw = max(settings.keep_first_n_tokens - n_special, 0)
    value = _values(count, lengths, n_raw, settings)

    kept = _kept(gene, lengths, cell_rows, seed, settings.max_length - n_special, n_raw, settings.sampling)
    if kept is not None:
        gene, count, value = gene[kept], count[kept], value[kept]
        lengths = np.minimum(lengths, settings.max_length - n_special)

    cell_ptr = _pointers(lengths + n_special)
    n_tokens = int(cell_ptr[-1])
    is_gene = np.ones(n_tokens, dtype=bool)
    leading = cell_ptr[:-1, None] + np.arange(n_special)
    is_gene[leading] = False
    special_ids = [settings.cls_token_id] if drugs is None else [settings.cls_token_id, settings.drug_token_id]
    all_genes = np.empty(n_tokens, dtype=np.int32)
    all_genes[leading] = np.asarray(special_ids, dtype=np.int32)
    all_genes[is_gene] = gene
    expression = np.zeros(n_tokens, dtype=np.float32)
    expression[is_gene] = count
    all_values = np.full(n_tokens, settings.pad_value, dtype=np.float32)
    all_values[is_gene] = value
    return Tokens(
        cell=np.repeat(cell_rows, lengths + n_special),
        gene=all_genes,
        expression=expression,
        value=all_values,
        cell_ptr=cell_ptr,
        drug=None if drugs is None else np.asarray(drugs, dtype=np.int64).reshape(n_cells),
        n_special=n_special,
    )


def _pointers(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    pointers = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=pointers[1:])
    return pointers


def _expressed(
    counts: csr_matrix, gene_ids: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Vocabulary ids and counts of the expressed genes of all cells, and how many each cell has."""
    if not counts.has_sorted_indices:
        counts = counts.sorted_indices()
    gene = gene_ids[counts.indices]
    count = counts.data.astype(np.float32, copy=False)
    keep = (count > 0) & (gene >= 0)
    if keep.all():
        return gene, count, np.diff(counts.indptr).astype(np.int64)
    before = np.concatenate([[0], np.cumsum(keep)])
    return gene[keep], count[keep], np.diff(before[counts.indptr])


def _values(
    count: npt.NDArray[np.float32], lengths: npt.NDArray[np.int64], n_raw: int, settings: TokeniserSettings
) -> npt.NDArray[np.float32]:
    """What the model is given for each gene. The first `n_raw` genes of a cell keep their count, as the reference
    does when `keep_first_n_tokens` is more than the special tokens there are."""
    if not (settings.do_binning or settings.log_transform):
        return count.copy()
    if n_raw == 0:
        return _transformed(count, lengths, settings)
    later = _position(lengths) >= n_raw
    value = count.copy()
    value[later] = _transformed(count[later], np.maximum(lengths - n_raw, 0), settings)
    return value


def _transformed(
    count: npt.NDArray[np.float32], lengths: npt.NDArray[np.int64], settings: TokeniserSettings
) -> npt.NDArray[np.float32]:
    if settings.do_binning:
        return _quantile_bins(count, lengths, settings.num_bins, settings.right_binning)
    occupied = lengths > 0
    totals = np.add.reduceat(count, _pointers(lengths)[:-1][occupied]) if len(count) else count
    share = count / (np.repeat(totals, lengths[occupied]) + np.float32(1e-9))
    return np.log1p(share * np.float32(settings.target_sum))


def _position(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Place of each element within its cell: 0, 1, 2, … for each cell."""
    pointers = _pointers(lengths)
    return np.arange(pointers[-1]) - np.repeat(pointers[:-1], lengths)


def _cell_blocks(lengths: npt.NDArray[np.int64], bits: int) -> list[slice]:
    """Cut the cells so that cell number, `bits` and place within the cell fit one key. One block is usual."""
    place_bits = int(lengths.max(initial=1)).bit_length()
    cells = 1 << max(_KEY_BITS - bits - place_bits, 0)
    return [slice(start, start + cells) for start in range(0, len(lengths), cells)]


def _order_within_cells(
    bits: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], n_bits: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Sort non-negative integers below 2**n_bits within each cell, ties by place.

    Returns the sorted keys (cell number, then integer, then place) and, for each, which element it was. One sort of
    plain integers is several times faster than an argsort or a lexicographic sort.
    """
    place_bits = int(lengths.max(initial=1)).bit_length()
    keys = np.repeat(np.arange(len(lengths), dtype=np.int64) << (n_bits + place_bits), lengths)
    keys |= bits << place_bits
    keys |= _position(lengths)
    keys.sort()
    element = keys & ((1 << place_bits) - 1)
    element += np.repeat(_pointers(lengths)[:-1], lengths)
    return keys, element


@lru_cache(maxsize=8)
def _grades(num_bins: int) -> npt.NDArray[np.float32]:
    """Quantile levels: num_bins - 1 of them from 0 to 1, with the rounding of torch.linspace."""
    import torch  # here, because commands that only look at a run's files load this module too

    return torch.linspace(0, 1, num_bins - 1, dtype=torch.float32).numpy()


def _quantile_bins(
    count: npt.NDArray[np.float32], lengths: npt.NDArray[np.int64], num_bins: int, right: bool
) -> npt.NDArray[np.float32]:
    """Bin of each count among its own cell's counts, exactly as the reference bins one cell.

    Left-sided: 1 + the number of the cell's edges below the count; right-sided: the number of edges not above it.
    The edges are the quantiles of the cell's counts at num_bins - 1 equidistant levels, linearly interpolated.
    """
    bins = np.empty(len(count), dtype=np.float32)
    pointers = _pointers(lengths)
    for block in _cell_blocks(lengths, _VALUE_BITS):
        part = slice(pointers[block][0], pointers[min(block.stop, len(lengths))])
        bins[part] = _bins_of_block(count[part], lengths[block], num_bins, right)
    return bins


def _bins_of_block(
    count: npt.NDArray[np.float32], lengths: npt.NDArray[np.int64], num_bins: int, right: bool
) -> npt.NDArray[np.float32]:
    if not len(count):
        return np.empty(0, dtype=np.float32)
    keys, element = _order_within_cells(_float_bits(count), lengths, _VALUE_BITS)
    edges, occupied = _quantiles(count[element], lengths, _grades(num_bins))

    # An edge stands after all counts that are not above it (left-sided), or before all that are not below it.
    place_bits = int(lengths.max()).bit_length()
    edge_keys = (occupied[:, None] << (_VALUE_BITS + place_bits)) | (_float_bits(edges) << place_bits)
    if not right:
        edge_keys |= (1 << place_bits) - 1
    stands = np.searchsorted(keys, edge_keys.ravel(), side="left" if right else "right")
    passed = np.cumsum(np.bincount(stands, minlength=len(keys) + 1)[:-1])
    cell_of_key = keys >> (_VALUE_BITS + place_bits)
    rank_of_cell = np.zeros(len(lengths), dtype=np.int64)
    rank_of_cell[occupied] = np.arange(len(occupied))
    passed -= rank_of_cell[cell_of_key] * edges.shape[1]
    bins = np.empty(len(count), dtype=np.float32)
    bins[element] = passed if right else passed + 1
    return bins


def _float_bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    return np.ascontiguousarray(values).view(np.int32).astype(np.int64)


def _quantiles(
    ordered: npt.NDArray[np.float32], lengths: npt.NDArray[np.int64], grades: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Quantiles of each cell that has any counts: float32 [occupied cells, grades], and those cells' numbers.

    ordered: float32 [n], counts sorted within each cell.

    Rounds as torch.quantile does: the rank is a float32 product, and the interpolation starts from the nearer
    neighbour and is a fused multiply-add.
    """
    occupied = np.flatnonzero(lengths)
    first = _pointers(lengths)[:-1][occupied, None]
    rank = grades[None, :] * (lengths[occupied, None] - 1).astype(np.float32)
    below = rank.astype(np.int64)
    weight = rank - below.astype(np.float32)
    low = ordered[first + below]
    high = ordered[first + np.ceil(rank).astype(np.int64)]
    near_low = weight < np.float32(0.5)
    base = np.where(near_low, low, high)
    factor = np.where(near_low, weight, weight - np.float32(1))
    return _fused_multiply_add(factor, high - low, base), occupied


def _fused_multiply_add(
    a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], c: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """a * b + c rounded once to float32.

    In float64 the product of two float32 is exact; the sum is rounded to odd, after which the rounding to float32
    gives what rounding the exact sum would (Boldo and Melquiond, 2008).
    """
    product = a.astype(np.float64) * b.astype(np.float64)
    addend = c.astype(np.float64)
    total = product + addend
    part = total - product
    error = (product - (total - part)) + (addend - part)
    inexact = (error != 0) & ((total.view(np.int64) & 1) == 0)
    towards = np.where(error > 0, np.inf, -np.inf)
    return np.where(inexact, np.nextafter(total, towards), total).astype(np.float32)


def _kept(
    gene: npt.NDArray[np.int32],
    lengths: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    seed: int,
    limit: int,
    n_raw: int,
    sampling: bool,
) -> npt.NDArray[np.bool_] | None:
    """Which genes stay when no cell may have more than `limit`: bool [n], or None when all do.

    Each gene gets a random number from (seed, row, gene) and the smallest stay, so that the choice needs no generator
    state. The first `n_raw` genes always stay; without `sampling` simply the first `limit` do.
    """
    too_long = lengths > limit
    if not too_long.any():
        return None
    if not sampling:
        return _position(lengths) < limit
    keep = np.ones(len(gene), dtype=bool)
    chosen = np.flatnonzero(np.repeat(too_long, lengths))
    long_lengths = lengths[too_long]
    number = _random_bits(seed, np.repeat(rows[too_long], long_lengths), gene[chosen])
    number[_position(long_lengths) < n_raw] = 0
    pointers = _pointers(long_lengths)
    for block in _cell_blocks(long_lengths, _VALUE_BITS):
        part = slice(pointers[block][0], pointers[min(block.stop, len(long_lengths))])
        _, element = _order_within_cells(number[part], long_lengths[block], _VALUE_BITS)
        dropped = element[_position(long_lengths[block]) >= limit]
        keep[chosen[part][dropped]] = False
    return keep


def _random_bits(seed: int, rows: npt.NDArray[np.int64], gene: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """31 random bits for each (seed, row, gene), 1 or more: splitmix64's finaliser, applied once for each of the three."""
    state = _mix(np.full(1, seed, dtype=np.uint64))
    state = _mix(state ^ rows.astype(np.uint64))
    state = _mix(state ^ gene.astype(np.uint64))
    return np.maximum((state >> np.uint64(33)).astype(np.int64), 1)


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """splitmix64 (Steele, Lea and Flood, 2014): add the golden gamma, then Stafford's mix 13."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
