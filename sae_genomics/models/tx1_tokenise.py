"""Sparse counts to the tokens a model reads, a whole batch of cells at once.

A cell becomes its special tokens (`<cls>`, then `<drug>` where used) followed by its expressed genes in column order.
A gene's value is the quantile bin of its count among the cell's own counts. `kernels.tokenise` writes the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from sae_genomics.tokens import Tokens, pointers

if TYPE_CHECKING:
    from sae_genomics.kernels.tokenise import Counts


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

    @property
    def n_special(self) -> int:
        """Special tokens of each cell, the drug's not counted: `<cls>`."""
        return 1


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
    # here, because commands that only look at a run load this module too
    from sae_genomics.kernels.tokenise import Rules, write_tokens

    n_cells = counts.shape[0]
    items = np.ascontiguousarray(rows, dtype=np.int64)
    if len(items) != n_cells or len(gene_ids) < counts.shape[1]:
        raise ValueError(f"{len(items)} rows and {len(gene_ids)} gene ids for counts of shape {counts.shape}")
    entries, lengths = _expressed(counts, np.ascontiguousarray(gene_ids, dtype=np.int32))
    special_ids = [settings.cls_token_id] if drugs is None else [settings.cls_token_id, settings.drug_token_id]
    rules = Rules(
        special_ids=np.asarray(special_ids, dtype=np.int32),
        pad_value=np.float32(settings.pad_value),
        n_raw=max(settings.keep_first_n_tokens - len(special_ids), 0),
        limit=max(settings.max_length - len(special_ids), 0),
        sampling=settings.sampling,
        seed=np.uint64(seed),
        binning=settings.do_binning,
        levels=_levels(settings.num_bins),
        right=settings.right_binning,
    )
    given = entries.data
    if settings.log_transform and not settings.do_binning:
        given = _log_shares(entries, rules.n_raw, settings.target_sum)
    item_ptr, columns = write_tokens(entries, given, items, lengths, rules)
    arrays = columns._asdict()
    per_token = {"value": arrays.pop("value")}
    per_item = {} if drugs is None else {"drug": np.asarray(drugs, dtype=np.int64).reshape(n_cells)}
    return Tokens(**arrays, item_ptr=item_ptr, per_token=per_token, per_item=per_item)


def _expressed(counts: csr_matrix, gene_ids: npt.NDArray[np.int32]) -> tuple[Counts, npt.NDArray[np.int64]]:
    """What the kernels read, and how many genes of each cell become tokens: int64 [cells]."""
    from sae_genomics.kernels.tokenise import OUTSIDE, UNSORTED, Counts, count_expressed

    entries = Counts(
        np.ascontiguousarray(counts.data, dtype=np.float32),
        np.ascontiguousarray(counts.indices, dtype=np.int32).view(np.uint32),
        np.ascontiguousarray(counts.indptr, dtype=np.int64),
        gene_ids,
    )
    lengths, faults = count_expressed(entries)
    if (faults == OUTSIDE).any():
        raise IndexError(f"a column outside the {len(gene_ids)} that have a gene")
    if (faults == UNSORTED).any():
        return _expressed(counts.sorted_indices(), gene_ids)
    return entries, lengths


def _log_shares(entries: Counts, n_raw: int, target_sum: float) -> npt.NDArray[np.float32]:
    """log(1 + target_sum x share of the cell's counts) of each entry that becomes a token: float32 [n].

    The first `n_raw` genes of a cell keep their count and have no part in its sum, as in the reference.
    """
    is_token = (entries.data > 0) & (entries.gene_ids[entries.column] >= 0)
    token_ptr = np.concatenate([[0], np.cumsum(is_token)])[entries.indptr]
    index = np.arange(token_ptr[-1]) - np.repeat(token_ptr[:-1], np.diff(token_ptr))  # of a gene in its cell
    later = np.flatnonzero(is_token)[index >= n_raw]
    lengths = np.maximum(np.diff(token_ptr) - n_raw, 0)
    count, occupied = entries.data[later], lengths > 0
    totals = np.add.reduceat(count, pointers(lengths)[:-1][occupied]) if len(count) else count
    share = count / (np.repeat(totals, lengths[occupied]) + np.float32(1e-9))
    values = entries.data.copy()
    values[later] = np.log1p(share * np.float32(target_sum))
    return values


@lru_cache(maxsize=8)
def _levels(num_bins: int) -> npt.NDArray[np.float32]:
    """Quantile levels: num_bins - 1 of them from 0 to 1, with the rounding of torch.linspace."""
    import torch  # here, because commands that only look at a run's files load this module too

    return torch.linspace(0, 1, num_bins - 1, dtype=torch.float32).numpy()
