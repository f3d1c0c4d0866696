"""Tables that `cross_layer` leaves on features that fire together, on variance explained, and on features without a name."""

from __future__ import annotations

from sae_genomics.artifacts.table import BOOL, F64, I32, I64, STR, Column, Inference, Table

_ITEMS = "one item; with data.group_key items are compared within their group alone"
_LAYER, _FEATURE = Column("layer", I32, "layer of the model, from 0"), Column("feature", I32, "latent index")
_MODULE = Column("module", I32, "number of the module within its layer, from 0, the largest first")

COACTIVATION = Table(
    "coactivation.parquet",
    "Pairs of features that are high in the same training items more often than in any draw with the same margins; the strongest of each pair of layers.",
    (
        Column("layer_a", I32, "layer of feature_a"),
        Column("feature_a", I32, "latent index"),
        Column("layer_b", I32, "the same layer, or the next one of the run"),
        Column("feature_b", I32, "latent index"),
        Column("n_both", F64, "items high in both; those not counted in which both fire on one and the same unit alone"),
        Column("expected", F64, "the same by the configuration model: each item and each feature keeps its margin"),
        Column("pmi", F64, "log2((n_both + 1) / (expected + 1))"),
        Column("g", F64, "G statistic, positive: more often than expected"),
        Column("largest_null", F64, "largest G of all pairs in all draws that keep both margins"),
        Column("p_value", F64, "share of the pairs of all draws with at least this G"),
        Column("q_value", F64, "Benjamini-Hochberg over the pairs of the two layers with an expected count of at least 5"),
    ),
    Inference(_ITEMS, "the training items drawn (cross_layer.module_items)", "tables with the same margins: trades between items"),
)  # fmt: skip

MODULES = Table(
    "modules.parquet",
    "Modules of features that fire together, of those that are above chance on held-out items: one row per feature.",
    (
        _LAYER,
        _FEATURE,
        _MODULE,
        Column("resolution", F64, "resolution of Leiden at which samples of the items agree best"),
        Column("consensus", F64, "share of the samples in which the feature is with another of its module, on average"),
        Column("n_edges", I32, "pairs above chance with others of its module"),
    ),
    Inference(_ITEMS, "the training items drawn (cross_layer.module_items)", "see module_summary.parquet"),
)

MODULE_SUMMARY = Table(
    "module_summary.parquet",
    "Every module found on training items, and how often its features fire together on held-out items, beside draws with the same margins.",
    (
        _LAYER,
        _MODULE,
        Column("name", STR, "most frequent name of its features (feature_names.parquet); empty where none has one"),
        Column("n_named", I32, "features of that name"),
        Column("size", I32, "features"),
        Column("n_edges", I32, "pairs of its features that are above chance on training items"),
        Column("units", STR, "units (genes, amino acids) that its features fire on most above their share, comma-separated"),
        Column("resolution", F64, "resolution of Leiden"),
        Column("consensus", F64, "mean over its features, as in modules.parquet"),
        Column("n_items", I64, "held-out items"),
        Column("score", F64, "log2 of pairs of its features that are high together per held-out item, against the mean of the draws; null without held-out items"),
        Column("null_mean", F64, "mean of the same over the draws"),
        Column("null_max", F64, "largest of the draws"),
        Column("p_value", F64, "(1 + draws that reach the score) / (1 + draws)"),
        Column("q_value", F64, "Benjamini-Hochberg over the modules of all layers"),
        Column("above_null", BOOL, "q_value < validation.fdr"),
        Column("modularity", F64, "modularity of the layer's pairs; the same for all modules of a layer"),
        Column("modularity_null", F64, "mean modularity of as many strongest pairs of draws"),
        Column("largest_null", F64, "mean size of the largest module among those pairs of draws"),
    ),
    Inference(_ITEMS, "the held-out items drawn (n_items)", "held-out tables with the same margins: trades between items"),
)  # fmt: skip

VARIANCE = Table(
    "variance.parquet",
    "Variance of held-out tokens that k active components explain: features, beside PCA, ICA and random directions.",
    (
        _LAYER,
        Column(
            "method",
            STR,
            "features: the k strongest of a token. pca: the first k components, the same for every token. pca_per_token, ica, random: of all components "
            "of a complete basis the k that suit the token best; random: a random orthonormal basis",
        ),
        Column("k", I32, "components per token"),
        Column("explained_heldout", F64, "1 - squared error / squared distance from the training mean"),
        Column("low", F64, "lower end of the 95 % interval: bootstrap over items, over groups with data.group_key"),
        Column("high", F64, "upper end"),
        Column("n_components", I32, "components that a method chooses from"),
        Column("n_tokens", I64, "held-out tokens"),
        Column("n_items", I64, "items that they are of"),
        Column("n_groups", I64, "groups that they are of; null without data.group_key"),
    ),
    Inference("one item; one group with data.group_key", "n_items, n_groups", "a random orthonormal basis of which each token takes the best k"),
)  # fmt: skip

NOVELTY = Table(
    "novelty.parquet",
    "Features without a name: which a second seed finds again and which say something of held-out items. Both make a candidate.",
    (
        _LAYER,
        _FEATURE,
        Column("seed_feature", I32, "latent of the second seed whose activations go with it best on half of the items"),
        Column("seed_correlation", F64, "their correlation on the other half"),
        Column("chance_correlation", F64, "largest of 19 draws in which the partner's tokens are permuted within their unit"),
        Column("seed_cosine", F64, "cosine of their decoder directions"),
        Column("chance_cosine", F64, "largest cosine of random directions, as many as features, with the second seed's latents, whose second moments they have"),
        Column("seed_match", BOOL, "both are above chance"),
        Column("predicts", STR, "label that it tells apart best, chosen on training items; null without labels"),
        Column("auroc", F64, "of that label on held-out items"),
        Column("auroc_low", F64, "lower end of the 95 % interval; of groups with data.group_key"),
        Column("auroc_high", F64, "upper end"),
        Column("q_value", F64, "of that label, as in the layer's table of labels"),
        Column("candidate", BOOL, "seed_match, q_value < validation.fdr and an interval that leaves out 1/2"),
        Column("cluster", I32, "candidates of any layer that share units have one number; null for others"),
        Column("units", STR, "its top units, comma-separated"),
    ),
    Inference("one held-out item; one group with data.group_key", "as in the layer's table of labels", "AUROC 1/2; tokens permuted within their unit for the second seed"),
)  # fmt: skip

MODULE_TABLES = (COACTIVATION, MODULES, MODULE_SUMMARY, VARIANCE, NOVELTY)
