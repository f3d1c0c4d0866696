"""Sparse counts to the tokens a model reads, a whole batch of cells at once.

A cell becomes its special tokens (`<cls>`, then `<drug>` where used) followed by its expressed genes in column order.
A gene's value is the quantile bin of its count among the cell's own counts. The loops over cells are compiled
(`tx1_write_tokens.py`) and write straight into the arrays of the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from sae_genomics.tokens import Tokens, pointers

_CELLS = 16  # a thread takes so many at a time


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
    gene_ids: int32 [columns], vocabulary id of each column; columns with a negative id are left out. A token's unit is its
        column.
    rows: int64 [cells], row of each cell in the input h5ad.
    settings: what the model wants.
    seed: decides, with a cell's row alone, which genes stay when a cell has more than `max_length` tokens; the batch
        a cell comes in makes no difference.
    drugs: int64 [cells], ids in the chemical encoder's table; adds the `<drug>` token.

    Raises ValueError when the arrays do not fit one another, IndexError when counts has a column that is not there.
    """
    from sae_genomics.kernels.compiled import (
        each_range,
    )  # here, because commands that only look at a run load this module too
    from sae_genomics.models.tx1_write_tokens import write_cells

    n_cells = counts.shape[0]
    rows = np.ascontiguousarray(rows, dtype=np.int64)
    if len(rows) != n_cells or len(gene_ids) < counts.shape[1]:
        raise ValueError(f"{len(rows)} rows and {len(gene_ids)} gene ids for counts of shape {counts.shape}")
    entries, lengths = _expressed(counts, np.ascontiguousarray(gene_ids, dtype=np.int32))
    special_ids = [settings.cls_token_id] if drugs is None else [settings.cls_token_id, settings.drug_token_id]
    n_special = len(special_ids)
    n_raw = max(settings.keep_first_n_tokens - n_special, 0)
    limit = max(settings.max_length - n_special, 0)
    given = entries.data
    if settings.log_transform and not settings.do_binning:
        given = _log_shares(entries, n_raw, settings.target_sum)

    item_ptr = pointers(np.minimum(lengths, limit) + n_special)
    n_tokens = int(item_ptr[-1])
    dtypes = {"item": np.int64, "token": np.int32, "unit": np.int32, "position": np.int32, "weight": np.float32}
    columns = {name: np.empty(n_tokens, dtype) for name, dtype in dtypes.items()}
    special, value = np.zeros(n_tokens, dtype=bool), np.empty(n_tokens, dtype=np.float32)
    ids, pad_value = np.asarray(special_ids, dtype=np.int32), np.float32(settings.pad_value)
    binning = (settings.do_binning, _grades(settings.num_bins), settings.right_binning)
    each_range(
        n_cells,
        _CELLS,
        lambda start, stop: write_cells(
            *entries, given, rows, lengths, item_ptr, start, stop,
            ids, pad_value, n_raw, limit, settings.sampling, np.uint64(seed), *binning,
            *columns.values(), special, value,
        ),
    )  # fmt: skip
    per_item = {} if drugs is None else {"drug": np.asarray(drugs, dtype=np.int64).reshape(n_cells)}
    return Tokens(**columns, special=special, item_ptr=item_ptr, per_token={"value": value}, per_item=per_item)


class _Entries(NamedTuple):
    """A csr block and its genes in the one set of types that the kernels are compiled for.

    data: float32 [n]. column: uint32 [n], ascending in each cell. indptr: int64 [cells + 1]. gene_ids: int32 [columns].
    """

    data: npt.NDArray[np.float32]
    column: npt.NDArray[np.uint32]
    indptr: npt.NDArray[np.int64]
    gene_ids: npt.NDArray[np.int32]


def _expressed(counts: csr_matrix, gene_ids: npt.NDArray[np.int32]) -> tuple[_Entries, npt.NDArray[np.int64]]:
    """What the kernels read, and how many genes of each cell become tokens: int64 [cells]."""
    from sae_genomics.kernels.compiled import each_range
    from sae_genomics.models.tx1_write_tokens import OUTSIDE, UNSORTED, count_expressed

    entries = _Entries(
        np.ascontiguousarray(counts.data, dtype=np.float32),
        np.ascontiguousarray(counts.indices, dtype=np.int32).view(np.uint32),
        np.ascontiguousarray(counts.indptr, dtype=np.int64),
        gene_ids,
    )
    n_cells = counts.shape[0]
    lengths, faults = np.empty(n_cells, dtype=np.int64), np.zeros(n_cells, dtype=np.uint8)
    each_range(n_cells, _CELLS, lambda start, stop: count_expressed(*entries, start, stop, lengths, faults))
    if (faults == OUTSIDE).any():
        raise IndexError(f"a column outside the {len(gene_ids)} that have a gene")
    if (faults == UNSORTED).any():
        return _expressed(counts.sorted_indices(), gene_ids)
    return entries, lengths


def _log_shares(entries: _Entries, n_raw: int, target_sum: float) -> npt.NDArray[np.float32]:
    """log(1 + target_sum x share of the cell's counts) of each entry that becomes a token: float32 [n].

    The first `n_raw` genes of a cell keep their count and have no part in its sum, as in the reference.
    """
    is_token = (entries.data > 0) & (entries.gene_ids[entries.column] >= 0)
    token_ptr = np.concatenate([[0], np.cumsum(is_token)])[entries.indptr]
    place = np.arange(token_ptr[-1]) - np.repeat(token_ptr[:-1], np.diff(token_ptr))
    later = np.flatnonzero(is_token)[place >= n_raw]
    lengths = np.maximum(np.diff(token_ptr) - n_raw, 0)
    count, occupied = entries.data[later], lengths > 0
    totals = np.add.reduceat(count, pointers(lengths)[:-1][occupied]) if len(count) else count
    share = count / (np.repeat(totals, lengths[occupied]) + np.float32(1e-9))
    values = entries.data.copy()
    values[later] = np.log1p(share * np.float32(target_sum))
    return values


@lru_cache(maxsize=8)
def _grades(num_bins: int) -> npt.NDArray[np.float32]:
    """Quantile levels: num_bins - 1 of them from 0 to 1, with the rounding of torch.linspace."""
    import torch  # here, because commands that only look at a run's files load this module too

    return torch.linspace(0, 1, num_bins - 1, dtype=torch.float32).numpy()
