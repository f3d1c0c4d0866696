"""Sparse counts to scGPT's tokens, a whole batch of cells at once.

A cell is `<cls>` and its expressed genes in column order, as `embed_data` of scgpt 0.2.4 (`tasks/cell_emb.py`) has it: counts are binned
as they are, without normalisation or logarithm. All expressed genes of a cell count for the bins, also those that are then left out
because the cell has more than fit.
"""

from __future__ import annotations

import numpy as np

from sae_genomics.items import CountItems
from sae_genomics.kernels.tokenise import OUTSIDE, UNSORTED, Counts, Rules, count_expressed, write_tokens
from sae_genomics.models.scgpt.binning import bin_counts, uniform_numbers
from sae_genomics.models.scgpt.folder import ScgptTokeniser
from sae_genomics.tokens import Tokens, pointers


def tokenise(items: CountItems, settings: ScgptTokeniser, seed: int) -> Tokens:
    """Tokens of a batch of cells. `per_token["value"]`: float32 [T], the bin; `<cls>` has `pad_value`.

    seed: decides, with a cell's row and a gene's vocabulary id alone, in which of the tied bins a count falls, and which genes stay where a
    cell has more than fit. A token's unit is its column.

    Raises ValueError when the arrays do not fit one another, IndexError when counts has a column that is not there.
    """
    matrix = items.counts if items.counts.has_sorted_indices else items.counts.sorted_indices()
    if len(items.rows) != matrix.shape[0] or len(items.token) < matrix.shape[1]:
        raise ValueError(f"{len(items.rows)} rows and {len(items.token)} gene ids for counts of shape {matrix.shape}")
    rows = np.ascontiguousarray(items.rows, dtype=np.int64)
    entries = Counts(
        np.ascontiguousarray(matrix.data, dtype=np.float32),
        np.ascontiguousarray(matrix.indices, dtype=np.int32).view(np.uint32),
        np.ascontiguousarray(matrix.indptr, dtype=np.int64),
        np.ascontiguousarray(items.token, dtype=np.int32),
    )
    lengths, faults = count_expressed(entries)
    if (faults == OUTSIDE).any():
        raise IndexError(f"a column outside the {len(items.token)} that have a gene")
    assert not (faults == UNSORTED).any()
    rules = Rules(
        special_ids=np.array([settings.cls_id], dtype=np.int32),
        pad_value=np.float32(settings.pad_value),
        n_raw=0,
        limit=settings.max_length - settings.n_special,
        sampling=True,
        seed=np.uint64(seed),
        binning=False,
        levels=np.zeros(0, dtype=np.float32),
        right=False,
    )
    item_ptr, columns = write_tokens(entries, _values(entries, rows, lengths, settings, seed), rows, lengths, rules)
    arrays = columns._asdict()
    return Tokens(per_token={"value": arrays.pop("value")}, **arrays, item_ptr=item_ptr)


def _values(entries: Counts, rows: np.ndarray, lengths: np.ndarray, settings: ScgptTokeniser, seed: int) -> np.ndarray:
    """The value of each entry: float32 [entries]. One that becomes no token keeps its count."""
    gene = entries.gene_ids[entries.column]
    expressed = (entries.data > 0) & (gene >= 0)
    values = entries.data.copy()
    uniform = uniform_numbers(seed, rows, lengths, gene[expressed])
    values[expressed] = bin_counts(entries.data[expressed], pointers(lengths), uniform, settings.n_bins)
    return values
