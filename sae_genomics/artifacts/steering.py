"""Tables that `causal` leaves of what features can be used for: steering, genes deleted and raised, what features read and write."""

from __future__ import annotations

from sae_genomics.artifacts.table import BOOL, F64, I32, I64, STR, Column, Inference, Table

_N_ITEMS = Column("n_items", I64, "held-out items behind the numbers")
_N_GROUPS = Column("n_groups", I64, "groups of them, each of which counts once; null without data.group_key")

CAUSAL_STEERING = Table(
    "causal_steering.parquet",
    "Held-out items of one label, moved toward another: one row per pair of labels, way to move and dose.",
    (
        Column("from_label", STR, "label of the items that are moved"),
        Column("to_label", STR, "label that they are moved toward"),
        Column("method", STR, "means: difference of the labels' means | features: those that differ most | concept: the label's concept vector"),
        Column("dose", F64, "length of the step, in lengths of the difference of means"),
        Column("norm", F64, "length of the vector that is added to every token"),
        _N_ITEMS,
        _N_GROUPS,
        Column("toward", F64, "share of the way from the mean embedding of from_label to that of to_label that the items' embeddings moved; 1 is all of it"),
        Column("toward_low", F64, "lower end of its 95 % interval"),
        Column("toward_high", F64, "upper end"),
        Column("toward_random", F64, "mean over random directions of the same length; null where the dose was not compared, like all that is random"),
        Column("toward_random_high", F64, "largest of them"),
        Column("toward_shuffled", F64, "mean over differences between random halves of the same items, each with as many of either label"),
        Column("toward_shuffled_high", F64, "largest of them"),
        Column("p_toward", F64, "larger of the p-values against both kinds of directions, (1 + as high) / (1 + draws)"),
        Column("q_toward", F64, "Benjamini-Hochberg over all rows of the layer"),
        Column("cosine_before", F64, "cosine of the embedding and the mean embedding of to_label, before; both minus the mean of the two labels"),
        Column("cosine_after", F64, "and after"),
        Column("nearer_before", F64, "share of the items whose embedding is nearer to the mean of to_label than to that of from_label, before"),
        Column("nearer_after", F64, "and after"),
        Column("markers", F64, "rise of what is predicted of the marker units of to_label, minus the rise of other units; both hidden from the model"),
        Column("markers_low", F64, "lower end of its 95 % interval"),
        Column("markers_high", F64, "upper end"),
        Column("markers_random", F64, "mean over random directions"),
        Column("markers_random_high", F64, "largest of them"),
        Column("markers_shuffled", F64, "mean over random halves"),
        Column("markers_shuffled_high", F64, "largest of them"),
        Column("p_markers", F64, "as p_toward"),
        Column("q_markers", F64, "as q_toward"),
        Column("n_random", I64, "directions of each kind"),
        Column("features", STR, "features that the direction is made of, comma-separated; null for others"),
        Column("marker_units", STR, "names of the marker units, comma-separated"),
    ),
    Inference(
        "one held-out item, or one group of them (n_groups)",
        "held-out items of from_label (n_items); directions and markers come from training items, the labels' mean embeddings from other training items",
        "random directions, and differences between random halves of the same items, of equal length per token",
    ),
)  # fmt: skip

CAUSAL_GENES = Table(
    "causal_genes.parquet",
    "Genes deleted from cells, or raised to the 99th percentile of their values, beside the ablation of a feature that reads them.",
    (
        Column("feature", I32, "latent index"),
        Column("unit", I32, "row in units.parquet of the gene"),
        Column("unit_id", STR, "vocabulary key of the gene"),
        Column("unit_name", STR, "its symbol for people"),
        Column("edit", STR, "knock_out: its token is deleted | over_express: its value is raised"),
        Column("share_on_unit", F64, "share of the feature's activation on training items that is on this gene"),
        _N_ITEMS,
        _N_GROUPS,
        Column("correlation", F64, "of the changes of predicted values by the edit of the gene and by the feature's ablation, over the other tokens of a cell; mean over cells"),
        Column("correlation_low", F64, "lower end of its 95 % interval"),
        Column("correlation_high", F64, "upper end"),
        Column("correlation_random", F64, "the same with a random gene of the same value rank in each cell; mean over draws"),
        Column("correlation_random_high", F64, "largest of the draws"),
        Column("p_correlation", F64, "(1 + draws as high) / (1 + draws)"),
        Column("q_correlation", F64, "Benjamini-Hochberg over all rows of the layer"),
        Column("effect", F64, "root mean square change of the predicted values of the cell's other genes by the edit of the gene"),
        Column("effect_random", F64, "the same with the random genes; mean over draws"),
        Column("effect_random_high", F64, "largest of the draws"),
        Column("p_effect", F64, "as p_correlation"),
        Column("q_effect", F64, "as q_correlation"),
        Column("effect_feature", F64, "the same by the ablation of the feature"),
        Column("n_random", I64, "draws"),
    ),
    Inference(
        "one held-out item, or one group of them (n_groups)",
        "held-out items that have the gene (n_items)",
        "random genes of the same value rank in the same items, edited in the same way",
    ),
)  # fmt: skip

CAUSAL_READS_WRITES = Table(
    "causal_reads_writes.parquet",
    "What each feature fires on and what it acts on: its input score and its output score.",
    (
        Column("feature", I32, "latent index"),
        Column("n_tokens", I64, "tokens of the held-out sample on which it fires"),
        Column("own_units", STR, "names of the units that it fires on most often in training items, comma-separated"),
        Column("reads", F64, "AUROC with which the unit alone tells whether the feature fires: rates of training items, firings of held-out ones"),
        Column("reads_random", F64, "the same of random directions that fire as often; mean over draws"),
        Column("p_reads", F64, "(1 + random directions as high) / (1 + draws)"),
        Column("q_reads", F64, "Benjamini-Hochberg over features"),
        Column("writes", F64, "specificity of its effect on its own units' predictions, of causal_features.parquet; null where it was not measured"),
        Column("writes_random", F64, "the same of random directions with the same edit norm; mean over draws"),
        Column("p_writes", F64, "largest of the p-values of causal_features.parquet"),
        Column("q_writes", F64, "q-value of causal_features.parquet"),
        Column("outcome", STR, "what the output score is about: an outcome of causal_features.parquet"),
        Column("monotone", BOOL, "whether the effect on its own units, less that on matched ones, goes one way with every dose from 1 on; null below three such doses"),
        Column("own_most", F64, "largest of that effect over the doses from 1 on, before the off-target bound"),
        Column("role", STR, "reads | writes | both | neither, at q < 0.05; null where one score is missing"),
        Column("steers", BOOL, "writes, and its effect is monotone in the dose; null where either is not known"),
    ),
    Inference(
        "one feature; its scores are over held-out tokens (reads) and held-out items (writes)",
        "tokens (n_tokens) and items of causal_features.parquet",
        "random directions that fire as often (reads) or change as much (writes)",
    ),
)  # fmt: skip

USES_TABLES = (CAUSAL_STEERING, CAUSAL_GENES, CAUSAL_READS_WRITES)
STEERED_FILE = "steered.h5ad"
