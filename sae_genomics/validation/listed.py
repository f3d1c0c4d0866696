"""Top genes of units among the genes that a network or a regulon could have named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.artifacts import BASELINE_GENES, FEATURE_GENES, GENE_TOKENS, Table
from sae_genomics.config import RunConfig
from sae_genomics.validation.background import FEATURES, listable
from sae_genomics.validation.gene_lists import Background, GeneLists, top_genes

RANKED_COLUMNS = ["feature", "gene_symbol", "score", "specificity", "rank_score", "rank_specificity"]


@dataclass(frozen=True)
class GeneIndex:
    """The genes that can enter a list.

    background: distinct symbols, upper case, sorted. symbols: the same as the data spells them.
    tokens: int64 [genes], stored tokens. expression: float64 [genes], mean count over them.
    """

    background: npt.NDArray[np.object_]
    symbols: npt.NDArray[np.object_]
    tokens: npt.NDArray[np.int64]
    expression: npt.NDArray[np.float64]

    def positions(self, symbols: npt.NDArray[np.object_]) -> npt.NDArray[np.int64]:
        """Where each symbol is in the background, in any case of letters; -1 for one that is not there."""
        upper = pd.Series(symbols, dtype=object).astype(str).str.upper()
        return pd.Index(self.background).get_indexer(upper).astype(np.int64)


def gene_index(genes: pd.DataFrame, units: str, config: RunConfig) -> GeneIndex:
    """The genes that can enter a list of `units`; several genes of one symbol are one. genes: gene_tokens.parquet."""
    known = listable(genes, units, config.validation.rank_by, config.associations.min_gene_tokens)
    upper = known["gene_symbol"].astype(str).str.upper().to_numpy(object)
    background, first, place = np.unique(upper.astype(str), return_index=True, return_inverse=True)
    tokens = known["tokens"].to_numpy(np.int64)
    total = np.bincount(place, tokens, len(background))
    expression = np.bincount(place, tokens * known["mean_expression"].fillna(0).to_numpy(np.float64), len(background))
    return GeneIndex(
        background.astype(object),
        known["gene_symbol"].to_numpy(object)[first],
        total.astype(np.int64),
        expression / total,
    )


def unit_table(units: str) -> Table:
    """The table of the top genes of features, or of a baseline."""
    return FEATURE_GENES if units == FEATURES else BASELINE_GENES[units]


def read_genes(folder: Path) -> pd.DataFrame:
    """gene_tokens.parquet of a layer."""
    return GENE_TOKENS.read(folder / GENE_TOKENS.file)


def read_lists(folder: Path, units: str, index: Background, config: RunConfig) -> GeneLists:
    """The top genes of features, or of a baseline."""
    table, settings = unit_table(units), config.validation
    return top_genes(table.read(folder / table.file, RANKED_COLUMNS), index, settings.rank_by, settings.top_genes)


def nested_bins(
    keys: list[npt.NDArray[np.floating] | npt.NDArray[np.integer]], parts: list[int], least: int
) -> npt.NDArray[np.int64]:
    """Genes that are alike in every key share a bin: int64 [genes], from 0 without gaps.

    Genes are ranked by the first key and cut into parts[0] groups of equal size, each group by the second key into
    parts[1], and so on; into fewer where a part would have less than `least` genes. Equal values are parted by the keys after it.
    """
    bins = np.zeros(len(keys[0]), dtype=np.int64)
    for depth, n_parts in enumerate(parts):
        order = np.lexsort((*reversed(keys[depth:]), bins))
        size = np.bincount(bins)
        start = np.cumsum(size) - size
        rank = np.empty(len(bins), dtype=np.int64)
        rank[order] = np.arange(len(bins)) - start[bins[order]]
        n_cut = np.clip(size // least, 1, n_parts)
        part = rank * n_cut[bins] // size[bins]
        bins = np.unique(bins * n_parts + part, return_inverse=True)[1].astype(np.int64)
    return bins


def permutations_within(bins: npt.NDArray[np.int64], n: int, generator: np.random.Generator) -> npt.NDArray[np.int32]:
    """n random permutations of positions that stay within bins: int32 [n, genes]."""
    names = np.empty((n, len(bins)), dtype=np.int32)
    order = np.argsort(bins, kind="stable").astype(np.int32)
    for genes in np.split(order, np.flatnonzero(np.diff(bins[order])) + 1):
        names[:, genes] = generator.permuted(np.broadcast_to(genes, (n, len(genes))), axis=1)
    return names
