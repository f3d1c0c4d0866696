"""Which genes could have entered a list: the background of every test, and the bins that the second null shuffles within.

A gene enters a list only if the ranking can rank it. By specificity it needs associations.min_gene_tokens stored tokens; by score
one. A gene that no list can hold would make every shared gene look rarer than it is, so it is no part of the background. Neither is a gene
that the source of a set could not have named: `Membership.universe` leaves it out of that source's tests, from list and background alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.config import RunConfig
from sae_genomics.validation.enrichment import Sets
from sae_genomics.validation.gene_sets import Collection, Membership, NoSetFits, membership

FEATURES = "features"
DECILES = 10
LEAST_IN_BIN = 50

# The tokens that decide what a baseline can list, where they are not those of the whole layer.
_TOKEN_COLUMNS = {"untrained": "n_tokens_untrained"}


@dataclass(frozen=True)
class Background:
    """members: gene sets over the genes that can be listed. bins: int64 [background], see `matched_bins`."""

    members: Membership
    bins: npt.NDArray[np.int64]

    @property
    def sets(self) -> Sets:
        """What a test is given."""
        members = self.members
        return Sets(members.matrix, members.source, members.universe, self.bins)


def background_of(units: str, genes: pd.DataFrame, collections: Sequence[Collection], config: RunConfig) -> Background:
    """The background of the lists of `units` (`features`, or a name of validation.baselines).

    genes: gene_tokens.parquet.

    Raises NoSetFits, which says what to set, when there is nothing to test.
    """
    settings = config.validation
    known = listable(genes, units, settings.rank_by, config.associations.min_gene_tokens)
    if known.empty:
        raise NoSetFits(
            f"none of the {len(genes):,} genes has associations.min_gene_tokens = {config.associations.min_gene_tokens} stored "
            "tokens; set associations.min_gene_tokens lower, or validation.rank_by to score"
        )
    symbols = known["gene_symbol"].to_numpy(object)
    members = membership(
        collections, symbols, settings.min_set_size, settings.max_set_size, settings.background == "source"
    )
    position, n_symbols = members.positions(symbols), len(members.background)
    tokens = np.bincount(position, known["tokens"], n_symbols)  # several genes of one symbol are one
    expression = np.bincount(position, known["tokens"] * known["mean_expression"], n_symbols) / tokens
    return Background(members, matched_bins(tokens, expression))


def listable(genes: pd.DataFrame, units: str, rank_by: str, min_gene_tokens: int) -> pd.DataFrame:
    """The genes that can enter a list of `units`: gene_symbol, tokens (int64), mean_expression.

    genes: gene_tokens.parquet. rank_by: specificity | score.
    """
    tokens = genes[token_column(units, genes)].fillna(0).astype(np.int64)
    found = genes[["gene_symbol", "mean_expression"]].assign(tokens=tokens)
    return found[tokens >= (max(min_gene_tokens, 1) if rank_by == "specificity" else 1)]


def token_column(units: str, genes: pd.DataFrame) -> str:
    """The column of gene_tokens.parquet that says which genes the lists of `units` can hold."""
    column = _TOKEN_COLUMNS.get(units, "n_tokens_stored")
    return column if column in genes else "n_tokens_stored"


def matched_bins(tokens: npt.NDArray[np.number], expression: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Genes of similar detection rate and similar expression share a bin: int64 [genes], from 0 without gaps.

    tokens: stored tokens of each gene. expression: mean count over them.

    With n genes, and r the rank of a gene by tokens (ties by expression), its decile is

        d = floor(D r / n),    D = min(10, floor(n / 50)), at least 1.

    With m genes in the decile, and s the rank of a gene by expression among them, its part is

        e = floor(E s / m),    E = min(10, floor(m / 50)), at least 1.

    The bin is the pair (d, e). So there are at most 100 bins, all within one gene of equal size in a decile. Why two steps: the
    number of stored tokens decides how surely a gene is ranked, and the count decides how much a token weighs in the score; they
    go together, so a grid of fixed edges would leave most bins empty. Why at least 50 genes: a bin must be larger than what a set puts into it.
    The genes of one programme are expressed alike. Where they fill a bin, they are compared with one another, and neither the null nor
    `matched.matched_overlaps` can see that a list has them.
    """
    decile = _even_parts(np.lexsort((expression, tokens)))
    bins = np.empty(len(tokens), dtype=np.int64)
    used = 0
    for number in range(int(decile.max(initial=-1)) + 1):
        genes = np.flatnonzero(decile == number)
        part = _even_parts(np.argsort(expression[genes], kind="stable"))
        bins[genes] = used + part
        used += int(part.max()) + 1
    return bins


def _even_parts(order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The part of each gene, from 0, when the genes in this order are cut into parts of at least LEAST_IN_BIN."""
    n_parts = max(1, min(DECILES, len(order) // LEAST_IN_BIN))
    part = np.empty(len(order), dtype=np.int64)
    part[order] = np.arange(len(order)) * n_parts // max(len(order), 1)
    return part
