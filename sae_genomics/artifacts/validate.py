"""Tables that `validate` leaves."""

from __future__ import annotations

from sae_genomics.artifacts.table import F64, I32, I64, STR, Column, Inference, Table

FEATURE_TERMS = Table(
    "feature_terms.parquet",
    "Over-representation of each feature's top genes in gene sets: every test with at least one shared gene.",
    (
        Column("feature", I32, "latent index"),
        Column("collection", STR, "file name of the gene-set collection, without suffix"),
        Column("term", STR, "gene set"),
        Column("n_overlap", I32, "shared genes"),
        Column("n_term", I32, "genes of the set within the background"),
        Column("n_top", I32, "genes of the feature that were tested"),
        Column("n_background", I32, "genes that could have entered the list"),
        Column("odds_ratio", F64, "sample odds ratio, 0.5 added to every cell (Haldane-Anscombe)"),
        Column("p_value", F64, "one-sided, by the test that validation.test names"),
        Column("q_value", F64, "Benjamini-Hochberg over every test made, overlapping or not"),
        Column("genes", STR, "shared gene symbols, comma-separated"),
    ),
    Inference(
        "one gene of the background",
        "the feature's top genes (n_top) among all genes of the background (n_background)",
        "the feature's genes are drawn at random from the background",
    ),
)

ANNOTATION_NULLS = Table(
    "annotation_nulls.parquet",
    "How many units are annotated at validation.fdr, and with how many terms: features, each baseline, and two nulls of each.",
    (
        Column(
            "source",
            STR,
            "features or a name of validation.baselines: the lists as they are. shuffled_genes: gene names shuffled among all genes "
            "that can be listed. matched_genes: among genes of similar token number and mean expression",
        ),
        Column("units", STR, "whose gene lists: features, or a name of validation.baselines"),
        Column("repeat", I32, "number of the shuffle; 0 elsewhere"),
        Column("n_units", I64, "units with at least one gene to test"),
        Column("n_annotated", I64, "units with a term at q < validation.fdr"),
        Column("share", F64, "n_annotated / n_units"),
        Column("n_tests", I64, "tests made"),
        Column("n_terms", I64, "different terms found"),
        Column("terms_per_100_units", F64, "100 x n_terms / n_units; null without units"),
    ),
    Inference(
        "one unit (feature, raw neuron) with a gene to test",
        "the units of each row (n_units)",
        "the rows of shuffled genes: the same procedure with the genes' names dealt out anew",
    ),
)
