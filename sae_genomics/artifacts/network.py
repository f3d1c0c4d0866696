"""Tables that `validate` leaves on networks: the pairs among a feature's top genes that a network knows."""

from __future__ import annotations

from sae_genomics.artifacts.table import F64, I32, I64, STR, Column, Inference, Table

_DATABASE = Column("database", STR, "name of the database, such as string")
_CHANNEL = Column(
    "channel",
    STR,
    "functional (all evidence together) | physical (the proteins touch) | experimental (evidence of experiments alone)",
)

FEATURE_NETWORK = Table(
    "feature_network.parquet",
    "Pairs of a network among each feature's top genes, beside what chance gives: one row per feature, database and channel.",
    (
        Column("feature", I32, "latent index"),
        _DATABASE,
        _CHANNEL,
        Column("n_genes", I32, "top genes that the network knows; features with fewer than two are left out"),
        Column("n_edges", I32, "pairs of them that the network has, at validation.min_score or more"),
        Column(
            "expected_degree",
            F64,
            "mean number in a random network with the same number of partners of each gene (configuration model, exact)",
        ),
        Column(
            "expected_matched",
            F64,
            "expected_degree, times the share of theirs that draws of genes with as many partners and similar expression have",
        ),
        Column("ratio", F64, "(n_edges + 0.5) / (expected_matched + 0.5)"),
        Column("n_draws", I32, "draws made: more where few reach n_edges"),
        Column("p_value", F64, "(1 + draws with at least n_edges pairs) / (1 + n_draws)"),
        Column("q_value", F64, "Benjamini-Hochberg over every feature, database and channel of the layer"),
        Column("n_clusters", I32, "groups of three or more top genes that pairs connect"),
        Column("largest_cluster", I32, "genes of the largest group"),
        Column(
            "clusters", STR, "gene symbols of each group, comma-separated; groups parted by semicolons; largest first"
        ),
    ),
    Inference(
        "one pair of a feature's top genes",
        "the pairs of the feature's n_genes genes",
        "the feature's genes are drawn among genes with as many partners in the network and of similar detection and expression",
    ),
)

NETWORK_EDGES = Table(
    "network_edges.parquet",
    "The pairs themselves, of each feature, database and channel with q_value < validation.fdr in feature_network.parquet.",
    (
        Column("feature", I32, "latent index"),
        _DATABASE,
        _CHANNEL,
        Column("gene_a", STR, "gene symbol, the first of the pair in the alphabet"),
        Column("gene_b", STR, "gene symbol"),
        Column("score", F64, "the network's score of the pair in this channel"),
    ),
)

NETWORK_NULLS = Table(
    "network_nulls.parquet",
    "How many units have more pairs among their top genes than chance gives: features, each baseline, and a matched null of each.",
    (
        Column(
            "source",
            STR,
            "features or a name of validation.baselines: the lists as they are. matched_genes: each list's genes drawn anew among "
            "genes with as many partners and similar expression",
        ),
        Column("units", STR, "whose gene lists: features, or a name of validation.baselines"),
        _DATABASE,
        _CHANNEL,
        Column("repeat", I32, "number of the draw; 0 elsewhere"),
        Column("n_units", I64, "units with at least two genes that the network knows"),
        Column("n_found", I64, "units with q < validation.fdr, over all databases and channels of these units"),
        Column("share", F64, "n_found / n_units; null without units"),
        Column("n_edges", I64, "pairs, summed over units"),
        Column("n_expected", F64, "expected_matched, summed over units"),
    ),
    Inference(
        "one unit (feature, raw neuron) with two genes that the network knows",
        "the units of each row (n_units)",
        "the rows of matched_genes: the same procedure with genes drawn anew among those with as many partners and similar expression",
    ),
)
