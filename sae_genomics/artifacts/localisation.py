"""Tables of the stage concepts on concept vectors in use: where in an item, by which features, with what effect on predictions."""

from __future__ import annotations

import pyarrow as pa

from sae_genomics.artifacts.table import BOOL, F32, F64, I32, STR, Column, Inference, Table

_CONCEPT = Column("concept", STR, "id of the concept, as in concept_vectors.parquet")
_NAME = Column("name", STR, "name for people")
_N_ITEMS = Column("n_items", I32, "held-out items measured")
_N_GROUPS = Column("n_groups", I32, "groups of these items; an item without a group is one of its own")

CONCEPT_LOCALISATION = Table(
    "concept_localisation.parquet",
    "Where in an item a concept's score is high, against its annotated spans: held-out items that carry the concept.",
    (
        _CONCEPT,
        _NAME,
        _N_ITEMS,
        _N_GROUPS,
        Column("n_spans", I32, "annotated spans in these items, overlapping ones merged"),
        Column("window", I32, "tokens of a window: the median length of the concept's spans in training items"),
        Column(
            "iou",
            F64,
            "mean over groups of |windows and spans| / |windows or spans|, of as many best windows that do not overlap as the item has spans",
        ),
        Column("iou_low", F64, "lower end of the 95 % interval: bootstrap of groups; null below 10 groups"),
        Column("iou_high", F64, "upper end"),
        Column("iou_ceiling", F64, "the same with windows put where the annotated spans are"),
        Column("iou_random", F64, "the same with random windows of that number and length: mean over draws"),
        Column("iou_random_high", F64, "95 % of the draws are below"),
        Column("p_value", F64, "(1 + draws of at least iou) / (1 + draws)"),
        Column("q_value", F64, "Benjamini-Hochberg over the layer's concepts"),
        Column("hits", F64, "share of items whose strongest token lies in a span, mean over groups"),
        Column("hits_low", F64, "lower end of its 95 % interval"),
        Column("hits_high", F64, "upper end"),
        Column("auprc", F64, "average precision of tokens within an item, mean over groups"),
        Column("auprc_low", F64, "lower end of its 95 % interval"),
        Column("auprc_high", F64, "upper end"),
        Column("prevalence", F64, "share of an item's tokens in spans, mean over groups: hits and auprc by chance"),
    ),
    Inference(
        "one held-out item that carries the concept; one group where there are groups",
        "n_groups",
        "random windows of the same number and length in the same items",
    ),
)

CONCEPT_WINDOWS = Table(
    "concept_windows.parquet",
    "Examples of a concept's scores: five best, five worst and three random held-out items by IoU, the part around the best window.",
    (
        _CONCEPT,
        _NAME,
        Column("choice", STR, "best | worst | random"),
        Column("rank", I32, "from 1 within the choice"),
        Column("item_id", STR, "the item"),
        Column("iou", F64, "of the whole item"),
        Column("start", I32, "position of the first token shown, counted from 1"),
        Column("length", I32, "tokens of the whole item"),
        Column("units", pa.list_(STR), "ids of the units shown"),
        Column("scores", pa.list_(F32), "each token's score minus the item's mean"),
        Column("in_span", pa.list_(BOOL), "whether the token lies in an annotated span"),
        Column("in_window", pa.list_(BOOL), "whether it lies in one of the chosen windows"),
    ),
)

CONCEPT_FEATURES = Table(
    "concept_features.parquet",
    "The pattern of a concept vector (covariance of what the SAE reads x vector) as a sum of decoder directions with weights of at least 0: the few "
    "features that carry the concept.",
    (
        _CONCEPT,
        _NAME,
        Column("rank", I32, "order in which the features were taken, from 1"),
        Column("feature", I32, "latent index; null where no further direction brings the sum closer"),
        Column(
            "weight", F64, "of the unit-norm decoder direction, when all features of the concept are fitted together"
        ),
        Column("cosine", F64, "of the pattern and the feature's decoder direction"),
        Column("share", F64, "share of the pattern's squared length explained by the features up to this rank"),
        Column("share_random", F64, "the same for random directions: mean"),
        Column(
            "share_covariance",
            F64,
            "the same for random directions with the covariance of the layer's activations: mean",
        ),
        Column(
            "share_chance",
            F64,
            "the same for vectors fitted to shuffled labels, and to random concepts: the larger mean; null where none was fitted",
        ),
        Column(
            "p_value",
            F64,
            "of the concept: is its share at any rank larger than random ones are? The largest of the four nulls'",
        ),
        Column("carried", BOOL, "p_value <= 0.05: these features carry the concept"),
    ),
    Inference(
        "one concept vector",
        "one vector for each concept, and the draws of each null (99)",
        "random directions, random directions with the covariance of the layer's activations, and vectors fitted to shuffled labels and to random "
        "concepts, written as sums alike",
    ),
)

CONCEPT_TCAV = Table(
    "concept_tcav.parquet",
    "Does a step along a concept vector raise what the model predicts for items with the concept? First-order, held-out items.",
    (
        _CONCEPT,
        _NAME,
        Column("target", STR, "what is predicted: the label's marker units, or the hidden tokens of the concept"),
        Column(
            "targets",
            STR,
            "names of the marker units of both halves of the held-out items, comma-separated; empty elsewhere",
        ),
        _N_ITEMS,
        _N_GROUPS,
        Column("share_positive", F64, "share of items with a derivative above 0, mean over groups"),
        Column("share_random", F64, "the same for random directions of both kinds: mean"),
        Column("share_random_low", F64, "5 % of these directions are below"),
        Column("share_random_high", F64, "95 % of these directions are below"),
        Column(
            "derivative",
            F64,
            "mean over groups of the change of the prediction per unit step along the vector at the concept's tokens",
        ),
        Column("derivative_low", F64, "lower end of its 95 % interval: bootstrap of groups; null below 10 groups"),
        Column("derivative_high", F64, "upper end"),
        Column("derivative_random_low", F64, "2.5 % of the random directions are below"),
        Column("derivative_random_high", F64, "97.5 % of the random directions are below"),
        Column(
            "p_directions",
            F64,
            "(1 + directions with at least |derivative|) / (1 + directions), the larger of both kinds'",
        ),
        Column("derivative_shuffled_low", F64, "2.5 % of the vectors fitted to shuffled labels are below"),
        Column("derivative_shuffled_high", F64, "97.5 % of them are below"),
        Column(
            "n_shuffled",
            I32,
            "vectors of shuffled labels; fewer than concepts.draws where the AUROC's null was clear early",
        ),
        Column("n_random", I32, "vectors of random concepts, likewise"),
        Column("p_shuffled", F64, "(1 + vectors of shuffled labels with at least |derivative|) / (1 + vectors)"),
        Column("p_random", F64, "likewise, of random concepts"),
        Column("p_value", F64, "the largest of p_directions, p_shuffled and p_random"),
        Column("q_value", F64, "Benjamini-Hochberg over the layer's concepts"),
    ),
    Inference(
        "one held-out item with the concept; one group where there are groups",
        "n_groups",
        "vectors fitted to shuffled labels and to random concepts, random directions, and directions with the covariance of the layer's activations, "
        "all on the same items",
    ),
)
