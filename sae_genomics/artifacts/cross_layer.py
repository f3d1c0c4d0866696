"""Tables that `cross_layer` leaves about features over layers: who is whose match, what becomes of whom, who drives whom."""

from __future__ import annotations

from sae_genomics.artifacts.table import BOOL, F64, I32, I64, STR, Column, Inference, Table

OVER_FEATURES = Inference(
    "one feature of a layer, on the sampled tokens of held-out items",
    "features that vary there (n_features)",
    "largest correlation with any feature of the other layer when tokens are permuted within their unit",
)

MATCHES = Table(
    "matches.parquet",
    "Pairs of features of two layers: the best partner of each feature of either, and every further pair that is linked.",
    (
        Column("layer_a", I32, "the earlier layer"),
        Column("feature_a", I32, "its latent index"),
        Column("layer_b", I32, "the later layer"),
        Column("feature_b", I32, "its latent index"),
        Column("correlation", F64, "Pearson, of activations on the same tokens, zeros included"),
        Column(
            "null",
            F64,
            "what chance gives: 99 % bound of the larger of both features' largest correlation when tokens are permuted within their unit",
        ),
        Column("linked", BOOL, "correlation is above null and at least cross_layer.min_correlation"),
        Column("mutual", BOOL, "linked, and each is the other's best linked partner"),
        Column("assigned", BOOL, "linked, and in the one-to-one assignment with the largest sum of correlations"),
        Column("cosine", F64, "of both decoder directions; null where the hook is not the residual stream"),
        Column("top_units_jaccard", F64, "shared share of both features' cross_layer.top_units strongest units"),
    ),
    OVER_FEATURES,
)

FATES = Table(
    "fates.parquet",
    "What becomes of each feature from layer to layer; features that never vary on the sampled tokens are left out.",
    (
        Column("layer", I32, "the feature's layer"),
        Column("feature", I32, "latent index"),
        Column("fate", STR, "persistent | split | merged | born | died | unit: `before` where born, else `after` where died, else the first "
                            "of split, merged, persistent, unit that either is; null where there is no other layer"),
        Column("before", STR, "towards the layer before: born | persistent | split | merged | unit; null in the first layer"),
        Column("after", STR, "towards the layer after: died | persistent | split | merged | unit; null in the last layer"),
        Column("feature_before", I32, "best linked partner in the layer before; null without one"),
        Column("correlation_before", F64, "with it"),
        Column("n_parents", I64, "features of the layer before whose best linked partner this one is"),
        Column("feature_after", I32, "best linked partner in the layer after; null without one"),
        Column("correlation_after", F64, "with it"),
        Column("n_children", I64, "features of the layer after whose best linked partner this one is"),
        Column("chain", I64, "the same for features of consecutive layers that are each other's best partner"),
        Column("found_again", BOOL, "whether the SAE of another seed on the same layer has it; null without sae.stability"),
        Column("firing_rate", F64, "share of the sampled tokens with activation > 0"),
    ),
    OVER_FEATURES,
)  # fmt: skip

PERSISTENCE = Table(
    "persistence.parquet",
    "How many features of layer_a another layer has too, beside the most and the least that there can be.",
    (
        Column("layer_a", I32, "the layer whose features are looked for"),
        Column("layer_b", I32, "the layer in which they are looked for"),
        Column("n_features", I64, "features of layer_a that vary on the sampled tokens"),
        Column("share", F64, "of these, those whose best partner is above chance and cross_layer.min_correlation"),
        Column("ceiling", F64, "the same in an SAE of another seed on layer_a; null without sae.stability"),
        Column("floor_permuted", F64, "the same with tokens permuted within their unit"),
        Column(
            "floor_untrained",
            F64,
            "the same in an SAE on layer_b of an untrained model of the same shape, on cross_layer.untrained_tokens of the tokens; null without "
            "the baseline untrained",
        ),
        Column("relative", F64, "(share - floor_permuted) / (ceiling - floor_permuted)"),
        Column("by_unit", F64, "share that reaches the correlation, and no more than with tokens permuted within their unit"),
        Column("mean_correlation", F64, "mean of the best correlations"),
    ),
    OVER_FEATURES,
)  # fmt: skip

ATTRIBUTION = Table(
    "attribution.parquet",
    "Which features of layer_l drive feature_j of layer_m: the strongest edges.",
    (
        Column("layer_l", I32, "the earlier layer"),
        Column("feature_i", I32, "its latent index"),
        Column("layer_m", I32, "the later layer"),
        Column("feature_j", I32, "its latent index"),
        Column("edge", BOOL, "among the strongest causes of feature_j; the other rows were drawn by lot and ablated"),
        Column("weight", F64, "gradient x activation: what feature_i adds to feature_j's sum of activations, to first order; mean over items"),
        Column("share", F64, "weight as a share of feature_j's mean sum of activations"),
        Column("exact", F64, "how much that sum falls when feature_i is removed; mean over items; null where it was not removed"),
        Column("null", F64, "the |weight| that one in a hundred random directions of the same norm at every token exceeds"),
        Column("above_null", BOOL, "|weight| is larger than null"),
        Column("p_value", F64, "share of such directions with as large a |weight|, exact"),
        Column("q_value", F64, "Benjamini-Hochberg over all pairs of the two layers that were looked at"),
        Column("n_items", I64, "items in which both features are active"),
        Column("n_agree", I64, "of these, items whose own weight has the same sign"),
    ),
    Inference(
        "one pair of features, over the held-out items that were looked at", "items in which both are active (n_items)",
        "a random direction that has the norm of the feature's own part at every token",
    ),
)  # fmt: skip
