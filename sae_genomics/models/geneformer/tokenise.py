"""Cells to Geneformer's tokens: genes in descending order of their rank value, cut at the model's length.

    rank value = counts / all counts of the cell x 10,000 / the gene's median        no logarithm

The order of the arithmetic and its precision (float64) are those of Geneformer's `TranscriptomeTokenizer`, so that values that are nearly
equal rank alike. Where two are equal, its order is that of an unstable sort. Here the gene with the lower token id comes first.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sae_genomics.items import CountItems
from sae_genomics.models.geneformer.folder import GeneformerFolder
from sae_genomics.tokens import Tokens, pointers, ranges

TARGET_SUM = 10_000
_FEW = 1 << 16


class RankTokeniser:
    """A model's cells as its tokens."""

    def __init__(self, folder: GeneformerFolder):
        self.folder = folder
        self.medians = medians_by_token(folder)

    def __call__(self, items: CountItems) -> Tokens:
        """See `tokenise`."""
        return tokenise(items, self.folder, self.medians)


def medians_by_token(folder: GeneformerFolder) -> npt.NDArray[np.float64]:
    """float64 [vocabulary]; NaN where a token is no gene or has no median."""
    dictionaries = folder.dictionaries
    found = np.full(len(dictionaries.tokens), np.nan)
    for gene, level in dictionaries.medians.items():
        found[dictionaries.tokens[gene]] = level
    return found


def tokenise(items: CountItems, folder: GeneformerFolder, medians: npt.NDArray[np.float64]) -> Tokens:
    """The tokens of some cells. A token's unit is its column of the counts, its position its place in the sequence.

    medians: as `medians_by_token` gives them. Where the items' totals are not known, the sums of the counts that are there stand for them.
    A cell without any gene of the model has its special tokens alone. A model without such reads one <pad> of it, as a special
    token: every cell then has a row, which no SAE is trained on and no cell's embedding is made of.
    """
    counts = items.counts.sorted_indices() if not items.counts.has_sorted_indices else items.counts
    n_cells = counts.shape[0]
    totals = items.totals
    if totals is None:
        totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    cell = np.repeat(np.arange(n_cells), np.diff(counts.indptr))
    token = items.token[counts.indices]
    median = np.where(token >= 0, medians[token], np.nan)
    is_token = np.flatnonzero((counts.data > 0) & ~np.isnan(median))
    cell, token, unit = cell[is_token], token[is_token], counts.indices[is_token]
    weight = counts.data[is_token].astype(np.float64)
    order = _descending(weight / totals[cell] * TARGET_SUM / median[is_token], cell, token, n_cells)

    settings = folder.tokeniser
    found = np.bincount(cell, minlength=n_cells)
    lengths = np.minimum(found, settings.max_length - settings.n_special)
    kept = order[ranges(pointers(found)[:-1], lengths)]
    n_special = np.where(lengths == 0, max(settings.n_special, 1), settings.n_special)
    ptr = pointers(lengths + n_special)
    of_cell = np.repeat(np.arange(n_cells), lengths + n_special)
    place = np.arange(ptr[-1]) - ptr[of_cell]
    with_special = n_special > 0
    special = np.zeros(len(place), dtype=bool)
    special[ptr[:-1][with_special]] = special[ptr[1:][with_special] - 1] = True
    tokens = Tokens(
        item=np.asarray(items.rows, dtype=np.int64)[of_cell],
        token=np.full(len(place), folder.dictionaries.tokens.get("<pad>", 0), dtype=np.int32),
        unit=np.full(len(place), -1, dtype=np.int32),
        position=place.astype(np.int32),
        weight=np.zeros(len(place), dtype=np.float32),
        special=special,
        item_ptr=ptr,
    )
    tokens.token[~special], tokens.unit[~special], tokens.weight[~special] = token[kept], unit[kept], weight[kept]
    if settings.n_special:
        tokens.token[ptr[:-1]] = folder.dictionaries.tokens["<cls>"]
        tokens.token[ptr[1:] - 1] = folder.dictionaries.tokens["<eos>"]
    return tokens


def _descending(
    value: npt.NDArray[np.float64], cell: npt.NDArray[np.int64], token: npt.NDArray[np.int32], n_cells: int
) -> npt.NDArray[np.int64]:
    """Cell by cell from the highest value to the lowest, equal ones by token id: int64 [n].

    Three stable sorts, the last key first. Few cells are sorted as 16-bit numbers, for which NumPy counts instead of comparing.
    """
    order = (
        np.argsort(token, kind="stable") if (np.diff(token)[np.diff(cell) == 0] < 0).any() else np.arange(len(token))
    )
    order = order[np.argsort(-value[order], kind="stable")]
    key = cell.astype(np.uint16) if n_cells <= _FEW else cell
    return order[np.argsort(key[order], kind="stable")]
