"""Whole rankings of genes, that `associate` leaves where `validation.test` reads them."""

from __future__ import annotations

from sae_genomics.artifacts.table import F32, I32, Column, Table

_COLUMNS = (
    Column("feature", I32, "latent index, or number of the baseline's unit"),
    Column("gene", I32, "row of gene_tokens.parquet"),
    Column(
        "value",
        F32,
        "what validation.rank_by names: specificity (bits), or score; genes without a value above zero have no row",
    ),
)


def _table(file: str, whose: str) -> Table:
    return Table(
        file, f"What ranks the genes of {whose}: by feature, then gene; genes without a row are tied below.", _COLUMNS
    )


# `features` or name in validation.baselines -> its rankings
RANKINGS: dict[str, Table] = {
    "features": _table("feature_rankings.parquet", "every feature"),
    "neurons": _table("neuron_rankings.parquet", "the layer's raw neurons, both signs"),
    "pca": _table("pca_rankings.parquet", "the principal components, both signs"),
    "ica": _table("ica_rankings.parquet", "the independent components, both signs"),
    "untrained": _table("untrained_rankings.parquet", "the features of an SAE on an untrained model"),
}
