"""The genes that a list is compared with: those that could have been in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.annotate.gene_files import read_genes
from sae_genomics.annotate.symbols import Symbols
from sae_genomics.artifacts import GENE_TOKENS
from sae_genomics.config import RunConfig, ValidationConfig
from sae_genomics.errors import DamagedArtifact, UserError
from sae_genomics.validation.background import FEATURES, Background, listable, matched_bins
from sae_genomics.validation.gene_sets import Collection, Membership

_LEAST_TOKENS = 1


@dataclass(frozen=True)
class Listable:
    """symbols: text [genes], distinct in upper case. bins: int64 [genes], genes of similar expression; None where it is not known.

    said: what these genes are, for a reader.
    """

    symbols: npt.NDArray[np.object_]
    bins: npt.NDArray[np.int64] | None
    said: str

    def within(self, members: Membership) -> Background:
        """As the tests see it. members: of these very genes, in an order of its own; without known expression all are in one bin."""
        bins = np.zeros(len(members.background), dtype=np.int64)
        if self.bins is not None:
            bins[members.positions(self.symbols)] = self.bins
        return Background(members, bins)


def listable_genes(
    file: Path | None,
    symbols: Symbols,
    collections: Sequence[Collection],
    settings: ValidationConfig,
    config: RunConfig | None,
) -> Listable:
    """The genes of `file`; without one, all genes that make proteins, or, without HGNC's table, all that a gene set has.

    file: text, or gene_tokens.parquet of a run's layer, which tells the expression of genes too.
    """
    if file is not None and file.suffix == ".parquet":
        return _of_run(file, symbols, settings, config)
    if file is not None:
        if not file.is_file():
            raise UserError(
                f"--background: no such file: {file}; name a file with one gene per line, or a run's gene_tokens.parquet"
            )
        return Listable(_distinct(symbols.current(read_genes(file))), None, f"the genes of {file}")
    if symbols.coding:
        return Listable(_distinct(symbols.coding), None, "all genes that make proteins (HGNC)")
    named = [gene for each in collections for gene_set in each.sets for gene in gene_set.genes]
    named += [gene for each in collections for gene in sorted(each.universe or ())]
    return Listable(_distinct(named), None, "all genes that the gene sets name")


def _of_run(file: Path, symbols: Symbols, settings: ValidationConfig, config: RunConfig | None) -> Listable:
    try:
        table = GENE_TOKENS.read(file)
        least = config.associations.min_gene_tokens if config is not None else _LEAST_TOKENS
        known = listable(table, FEATURES, settings.rank_by, least)
    except (DamagedArtifact, OSError, KeyError):
        raise UserError(
            f"--background: {file} is not there or is no gene_tokens.parquet; name results/RUN/layer_LL/gene_tokens.parquet, or a "
            "text file with one gene per line"
        ) from None
    known = known.assign(symbol=symbols.current(known["gene_symbol"].astype(str).tolist()))
    known = known.assign(upper=known["symbol"].str.upper(), total=known["tokens"] * known["mean_expression"])
    genes = known.groupby("upper", as_index=False).agg(
        symbol=("symbol", "first"), tokens=("tokens", "sum"), total=("total", "sum")
    )
    bins = matched_bins(genes["tokens"].to_numpy(), (genes["total"] / genes["tokens"]).to_numpy())
    return Listable(genes["symbol"].to_numpy(object), bins, f"the genes that {file} lets a feature list")


def _distinct(names: Sequence[str]) -> npt.NDArray[np.object_]:
    frame = pd.DataFrame({"symbol": list(names)}, dtype=object)
    return frame.loc[~frame["symbol"].str.upper().duplicated(), "symbol"].to_numpy(object)
