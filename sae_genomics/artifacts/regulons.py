"""Tables that `validate` leaves on regulons: transcription factors and the genes that they regulate."""

from __future__ import annotations

from sae_genomics.artifacts.table import F64, I32, I64, STR, Column, Inference, Table

_DATABASE = Column("database", STR, "name of the database, such as trrust")
_SOURCE = Column(
    "source",
    STR,
    "features or a name of validation.baselines: as they are",
)
_UNITS = Column("units", STR, "whose genes: features, or a name of validation.baselines")

FEATURE_REGULONS = Table(
    "feature_regulons.parquet",
    "Each feature's top genes against the targets of transcription factors: tests with p_value <= 0.05.",
    (
        Column("feature", I32, "latent index"),
        _DATABASE,
        Column("factor", STR, "gene symbol of the transcription factor"),
        Column("n_overlap", I32, "targets among the top genes; the factor itself is never its own target"),
        Column("n_targets", I32, "targets within the background"),
        Column("n_top", I32, "top genes within the background"),
        Column("n_background", I32, "genes that could enter a list and that the database could have named"),
        Column("odds_ratio", F64, "sample odds ratio, 0.5 added to every cell (Haldane-Anscombe)"),
        Column("p_value", F64, "one-sided Fisher's exact test"),
        Column("q_value", F64, "Benjamini-Hochberg over every feature and factor of the database in the layer"),
        Column(
            "p_matched",
            F64,
            "p when list and targets are independent within each bin of genes of similar detection and expression",
        ),
        Column("q_matched", F64, "as q_value, of the larger of p_value and p_matched"),
        Column("n_activated", I32, "of n_overlap, targets that the factor is known to activate"),
        Column("n_repressed", I32, "of n_overlap, targets that the factor is known to repress"),
        Column(
            "expected_activated",
            F64,
            "n_activated that chance gives among n_activated + n_repressed of the factor's targets",
        ),
        Column("p_sign", F64, "one-sided Fisher's exact test of n_activated; null without a target of known sign"),
        Column("factor_rank", I32, "rank of the factor itself among the top genes; null where it is not one of them"),
        Column(
            "factor_chance",
            F64,
            "share of the genes of the factor's detection and expression that are top genes of the feature; null where no list can hold it",
        ),
        Column("genes", STR, "shared gene symbols, comma-separated"),
    ),
    Inference(
        "one gene of the background",
        "the feature's top genes (n_top) among all genes of the background (n_background)",
        "the feature's genes are drawn at random from the background (hypergeometric)",
    ),
)

REGULON_NULLS = Table(
    "regulon_nulls.parquet",
    "How many units have the targets of a transcription factor among their top genes: features, each baseline, and a matched null of each.",
    (
        Column(
            _SOURCE.name,
            STR,
            f"{_SOURCE.meaning}. matched_genes: gene names shuffled among genes of similar detection and expression",
        ),
        _UNITS,
        _DATABASE,
        Column("repeat", I32, "number of the shuffle; 0 elsewhere"),
        Column("n_units", I64, "units with at least one gene to test"),
        Column("n_found", I64, "units with a factor at q_matched < validation.fdr"),
        Column("share", F64, "n_found / n_units; null without units"),
        Column("n_tests", I64, "tests made"),
        Column("n_pairs", I64, "pairs of a unit and a factor found"),
        Column("n_factors", I64, "different factors found"),
        Column(
            "n_own_factor",
            I64,
            "of n_pairs whose factor could be listed, those with the factor itself among the unit's top genes",
        ),
        Column("expected_own_factor", F64, "what chance gives, from genes of the factor's detection and expression"),
        Column("n_activated", I64, "of the targets of n_pairs, those that are known to be activated"),
        Column("n_repressed", I64, "and repressed"),
        Column(
            "expected_activated", F64, "n_activated that chance gives, from the signs of all targets of each factor"
        ),
    ),
    Inference(
        "one unit (feature, raw neuron) with a gene to test",
        "the units of each row (n_units)",
        "the rows of matched_genes: the same procedure with the genes' names dealt out anew",
    ),
)

REGULON_EDGES = Table(
    "regulon_edges.parquet",
    "Do genes that the same units read belong together as factor and target? Features and each baseline, beside rewired regulons.",
    (
        Column(
            _SOURCE.name,
            STR,
            f"{_SOURCE.meaning}. rewired: targets swapped between factors, so that each keeps its number of partners",
        ),
        _UNITS,
        _DATABASE,
        Column("factors", STR, "tuning: those that the strength was chosen on. held_out: the others"),
        Column(
            "strength",
            STR,
            "what a gene's row is made of: score | log_score | specificity. A pair's strength is the cosine of two rows",
        ),
        Column("repeat", I32, "number of the rewiring; 0 elsewhere"),
        Column("n_factors", I64, "factors with a target"),
        Column("n_targets", I64, "genes that are the target of one of them"),
        Column("n_pairs", I64, "pairs of a factor and a gene, the factor itself left out"),
        Column("n_edges", I64, "of n_pairs those that the database has"),
        Column("auroc", F64, "area under the ROC curve of a pair's strength; ties count half"),
        Column(
            "early_precision_ratio",
            F64,
            "share of known pairs among the n_edges strongest, divided by the share among all; equal strengths count in proportion",
        ),
    ),
    Inference(
        "one pair of a transcription factor and a gene",
        "the pairs of each row (n_pairs), n_edges of them known",
        "the rows of rewired: the same pairs with the known ones swapped, each factor and each target with as many partners as before",
    ),
)
