"""Tables that `validate` leaves."""

from __future__ import annotations

from sae_genomics.artifacts.table import F64, I32, I64, STR, Column, Inference, Table

FEATURE_TERMS = Table(
    "feature_terms.parquet",
    "Enrichment of each feature's genes in gene sets: tests with p_value <= 0.05, and the 20 best of each feature.",
    (
        Column("feature", I32, "latent index"),
        Column("collection", STR, "file name of the gene-set collection, without suffix, or name of the database"),
        Column("term", STR, "gene set"),
        Column("term_id", STR, "its id in the database; the same as term where there is none"),
        Column("n_overlap", I32, "shared genes"),
        Column("n_term", I32, "genes of the set within the background"),
        Column("n_top", I32, "genes of the feature within the background"),
        Column("n_background", I32, "genes that could have entered the list and that the collection could have named"),
        Column("odds_ratio", F64, "sample odds ratio, 0.5 added to every cell (Haldane-Anscombe)"),
        Column("odds_ratio_low", F64, "lower end of its 95 % interval (Woolf, 0.5 added to every cell)"),
        Column("odds_ratio_high", F64, "upper end"),
        Column("p_value", F64, "one-sided, by the test that validation.test names"),
        Column("q_value", F64, "Benjamini-Hochberg over every test of the layer, overlapping or not"),
        Column("q_source", F64, "Benjamini-Hochberg over every test of the layer and collection"),
        Column(
            "p_matched",
            F64,
            "p when list and set are independent within each bin of genes of similar detection and expression; null above p_value = 0.05",
        ),
        Column("q_matched", F64, "as q_value, of the larger of p_value and p_matched; 1 where p_matched is null"),
        Column(
            "q_source_matched", F64, "as q_source, of the larger of p_value and p_matched; 1 where p_matched is null"
        ),
        Column("explained_by", STR, "term_id of the more specific found term whose genes explain this one, else empty"),
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
        Column(
            "collection",
            STR,
            "all: every collection at once, by q_matched. Else one collection alone, by q_source_matched",
        ),
        Column("repeat", I32, "number of the shuffle; 0 elsewhere"),
        Column("n_units", I64, "units with at least one gene to test"),
        Column("n_annotated", I64, "units with a term at q_matched (q_source_matched) < validation.fdr"),
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
