"""The automatic names of features, and the table of all annotations of a run that is made to be handed on."""

from __future__ import annotations

from sae_genomics.artifacts.table import BOOL, F64, I32, STR, Column, Inference, Table

UNNAMED = "unnamed"
_UNIT = "one gene of the background of the term's source"
_NULL = "list and gene set are independent within each bin of genes of similar detection and expression"

FEATURE_NAMES = Table(
    "feature_names.parquet",
    "A short name for each feature with a gene to test: its strongest, most specific term at q_matched < validation.fdr.",
    (
        Column("feature", I32, "latent index"),
        Column("name", STR, "the term's name, cut at 60 characters; unnamed where no term passes"),
        Column("collection", STR, "source of the term; empty without a name"),
        Column("term", STR, "gene set, as in feature_terms.parquet; empty without a name"),
        Column("term_id", STR, "its id in the source; empty without a name"),
        Column("q_matched", F64, "of the term, as in feature_terms.parquet; null without a name"),
        Column("n_overlap", I32, "genes that feature and term share; 0 without a name"),
        Column(
            "sources",
            STR,
            "independent sources with a found term on the same genes, comma-separated; of sources that hold the same statements one stands "
            "here, the one that contains the fewest others",
        ),
    ),
    Inference(_UNIT, "the feature's top genes, as in feature_terms.parquet", _NULL),
)

ANNOTATIONS = Table(
    "annotations.parquet",
    "All annotations of a run: one row per layer, feature and term that is found; one row alone for a feature without any.",
    (
        Column("layer", I32, "layer of the model, from 0"),
        Column("feature", I32, "latent index"),
        Column("name", STR, "short name; unnamed where no term passes"),
        Column("sources", STR, "independent sources that the name rests on, comma-separated"),
        Column("source", STR, "source of this row's term; empty for a feature without any"),
        Column("term", STR, "gene set"),
        Column("term_id", STR, "its id in the source"),
        Column("n_overlap", I32, "shared genes"),
        Column("n_term", I32, "genes of the set within the background"),
        Column("odds_ratio", F64, "sample odds ratio, 0.5 added to every cell"),
        Column("odds_ratio_low", F64, "lower end of its 95 % interval"),
        Column("odds_ratio_high", F64, "upper end"),
        Column("p_value", F64, "one-sided, by the test that validation.test names"),
        Column("p_matched", F64, "the same among genes of similar detection and expression"),
        Column("q_matched", F64, "over every test of the layer, of the larger of both p"),
        Column("q_source_matched", F64, "the same over the tests of this source alone"),
        Column(
            "in_headline", BOOL, "q_matched < validation.fdr; else only q_source_matched is, and the term gives no name"
        ),
        Column("explained_by", STR, "id of the more specific found term whose genes explain this one, else empty"),
        Column("genes", STR, "shared gene symbols, comma-separated"),
    ),
    Inference(_UNIT, "the feature's top genes, as in feature_terms.parquet", _NULL),
)
