"""Tables that `causal` leaves on features: what editing one changes in the model's predictions, beside four nulls."""

from __future__ import annotations

from sae_genomics.artifacts.table import BOOL, F64, I32, I64, STR, Column, Inference, Table

_OUTCOME = Column(
    "outcome",
    STR,
    "token: what the model predicts of a token (its value, or the distribution of residues, whose change is KL in nats) | "
    "from_item: the token's value as predicted from the item's embedding | embedding: the item's embedding, whose change is its length",
)
_MASKED = Column(
    "masked",
    BOOL,
    "whether the tokens that are looked at were hidden from the model; a token that is not hidden is copied, not predicted",
)
_UNIT = "one held-out item in which the feature fires, or one group of such items where data.group_key is set"
_NULL = (
    "the same edit in a random direction, another feature of equal firing rate and mean, the same edit at other tokens of the "
    "item, and on random targets; p_value is the largest of the four"
)

CAUSAL_FEATURES = Table(
    "causal_features.parquet",
    "What ablating a feature changes: on its own targets against matched targets of the same items. One row per feature tested exactly, "
    "outcome and masked.",
    (
        Column("feature", I32, "latent index"),
        _OUTCOME,
        _MASKED,
        Column("n_items", I64, "held-out items with the feature and with own and matched targets"),
        Column("n_groups", I64, "their groups; null without data.group_key"),
        Column("n_own", I64, "own targets: units for a value, tokens for a distribution; 0 for embedding"),
        Column(
            "effect_own",
            F64,
            "mean change on own targets, per unit of edit norm; for embedding the length of the embedding's change",
        ),
        Column(
            "effect_matched",
            F64,
            "the same on matched targets; for embedding what random directions of equal norm change",
        ),
        Column(
            "specificity",
            F64,
            "standardised difference: mean over items or groups of (own - matched), in units of what a random direction of equal norm changes",
        ),
        Column("specificity_low", F64, "lower end of its 95 % t-interval over items or groups; null below three"),
        Column("specificity_high", F64, "upper end"),
        Column("norm", F64, "edit norm: L2 norm of all that is added to an item's activations, mean over the items"),
        Column("p_direction", F64, "against random directions with the same edit norm at each token"),
        Column(
            "p_feature",
            F64,
            "against other features of equal firing rate and mean activation, ablated in the same items",
        ),
        Column("p_permuted", F64, "against the same edit at other tokens of the item"),
        Column("p_targets", F64, "against random targets, matched; null for embedding"),
        Column("p_value", F64, "largest of the four: whatever null explains the effect decides"),
        Column("q_value", F64, "Benjamini-Hochberg over all features tested of the layer, outcome and masked"),
        Column("sampled", BOOL, "drawn at random, not chosen by the screen"),
    ),
    Inference(_UNIT, "n_items, or n_groups", _NULL),
)

CAUSAL_NULLS = Table(
    "causal_nulls.parquet",
    "The specificity that each of the four nulls gives for each feature. Of random targets only the first draws stand here.",
    (
        Column("feature", I32, "latent index"),
        _OUTCOME,
        _MASKED,
        Column("null", STR, "direction | feature | permuted | targets"),
        Column("draw", I32, "number of the draw, from 0"),
        Column("specificity", F64, "as in causal_features.parquet"),
    ),
    Inference(_UNIT, "n_items, or n_groups, of causal_features.parquet", _NULL),
)

CAUSAL_SCREEN = Table(
    "causal_screen.parquet",
    "How much ablating each feature changes the predictions, to first order, on training items; and exactly for some features.",
    (
        Column("feature", I32, "latent index"),
        Column("n_items", I64, "training items of the screen in which it fires"),
        Column(
            "first_order",
            F64,
            "root mean square over items of the change of all predictions of an item, from one gradient; 0 where it does not fire",
        ),
        Column("exact", F64, "the same from a forward pass, on held-out items; null where it was not measured"),
        Column("sampled", BOOL, "measured because it was drawn at random, not because the screen ranks it high"),
    ),
)

CAUSAL_DOSE = Table(
    "causal_dose.parquet",
    "What changes when a feature's activation is multiplied: one row per feature and dose, mean over items.",
    (
        Column("feature", I32, "latent index"),
        Column("dose", F64, "multiple of the feature's own activation; 1 changes nothing, 0 ablates it"),
        Column("own", F64, "mean change on own targets"),
        Column("matched", F64, "mean change on matched targets"),
        Column("off_target", F64, "root mean square change of all targets that are not the feature's own"),
        Column("stopped", BOOL, "off_target is beyond causal.off_target: doses farther from 1 were not tried"),
        Column("n_items", I64, "held-out items"),
    ),
    Inference(
        _UNIT,
        "n_items",
        "dose 1, at which nothing changes; whether a change is specific is tested in causal_features.parquet",
    ),
)

CAUSAL_CURVES = Table(
    "causal_curves.parquet",
    "The shape of each feature's dose-response curve.",
    (
        Column("feature", I32, "latent index"),
        Column("n_doses", I32, "doses that were tried, 1 among them"),
        Column("monotonicity", F64, "Spearman's correlation of dose and (own - matched)"),
        Column("slope", F64, "of (own - matched) at dose 1: through the doses beside it"),
        Column(
            "gradient",
            F64,
            "the same from one gradient at dose 1; null for a distribution, whose KL has a gradient of 0 there",
        ),
        Column(
            "saturation",
            F64,
            "what the largest dose gives, as a share of what the slope at 1 promises; null where the slope is within rounding of 0",
        ),
        Column("stopped_above", F64, "first dose above 1 beyond causal.off_target; null where there is none"),
        Column("stopped_below", F64, "first dose below 1 beyond it; null where there is none"),
    ),
    Inference(_UNIT, "n_items of causal_dose.parquet", "a correlation, slope and saturation are no tests"),
)

CAUSAL_TABLES = (CAUSAL_FEATURES, CAUSAL_NULLS, CAUSAL_SCREEN, CAUSAL_DOSE, CAUSAL_CURVES)
CAUSAL_SUMMARY = "causal_summary.json"
