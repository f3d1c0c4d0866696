"""Tables that `associate` leaves for cells: features, genes, cell types."""

from __future__ import annotations

from sae_genomics.artifacts.table import F64, I32, I64, STR, Column, Inference, Table

OVER_CELLS = Inference(
    "one held-out cell, all cells taken as independent",
    "held-out cells of the type (n_cells) and others (n_rest)",
    "cells of the type and other cells do not differ (AUROC 0.5; Mann-Whitney)",
)

FEATURES = Table(
    "features.parquet",
    "One row per SAE feature of a layer; gene tokens of all cells unless said otherwise.",
    (
        Column("feature", I32, "latent index in the SAE"),
        Column("firing_rate", F64, "share of gene tokens with activation > 0"),
        Column("n_tokens", I64, "gene tokens with activation > 0"),
        Column("n_cells", I64, "cells with at least one such token"),
        Column("mean_activation", F64, "mean activation over tokens where it is > 0"),
        Column("max_activation", F64, "largest activation"),
        Column("heldout_firing_rate", F64, "firing rate over held-out cells alone; null when there are none"),
        Column("top_gene", STR, "gene_symbol with the highest score"),
        Column(
            "specificity",
            F64,
            "largest specificity among its genes (bits; see feature_genes); NaN when it never fires",
        ),
        Column(
            "best_cell_type",
            STR,
            "cell type with the highest training-cell AUROC, with groups of those that can be tested; null without annotation",
        ),
        Column("best_cell_type_auroc", F64, "held-out AUROC of that cell type"),
        Column("best_cell_type_q_value", F64, "q-value of that test"),
    ),
    OVER_CELLS,
)

FEATURE_GENES = Table(
    "feature_genes.parquet",
    "Top genes of each feature: the union of the top associations.top_genes by score and by specificity.",
    (
        Column("feature", I32, "latent index"),
        Column("gene_id", STR, "vocabulary key"),
        Column("gene_symbol", STR, "symbol for people"),
        Column("score", F64, "sum over gene tokens of activation x expression (counts)"),
        Column("mean_activation", F64, "mean activation over all tokens of the gene, zeros included"),
        Column("firing_rate", F64, "share of the gene's tokens with activation > 0"),
        Column("n_tokens", I64, "tokens of the gene with activation > 0"),
        Column(
            "specificity",
            F64,
            "bits: log2((observed + prior) / (expected + prior)) of summed activation, expected if it were independent of gene; "
            "null below associations.min_gene_tokens tokens of the gene",
        ),
        Column("rank_score", I32, "1 = highest score within the feature"),
        Column("rank_specificity", I32, "1 = highest specificity within the feature; null without one"),
    ),
)

NEURON_GENES = Table(
    "neuron_genes.parquet",
    "The same for the layer's raw neurons, both signs: unit 2i is the positive part of neuron i's standardised activation, "
    "unit 2i + 1 the negative part.",
    FEATURE_GENES.columns,
)

PCA_GENES = Table(
    "pca_genes.parquet",
    "The same for the principal components of the layer's activations, both signs: units 2i and 2i + 1 are component i.",
    FEATURE_GENES.columns,
)

ICA_GENES = Table(
    "ica_genes.parquet",
    "The same for the independent components of the layer's activations, both signs: units 2i and 2i + 1 are component i.",
    FEATURE_GENES.columns,
)

UNTRAINED_GENES = Table(
    "untrained_genes.parquet",
    "The same for the features of an SAE on an untrained model of the same shape, over the tokens of validation.untrained_cells cells.",
    FEATURE_GENES.columns,
)

# name in validation.baselines -> its top genes
BASELINE_GENES: dict[str, Table] = {
    "neurons": NEURON_GENES,
    "pca": PCA_GENES,
    "ica": ICA_GENES,
    "untrained": UNTRAINED_GENES,
}

GENE_TOKENS = Table(
    "gene_tokens.parquet",
    "One row per distinct matched gene, in the order of genes.parquet's gene index: the tokens that the layer's gene sums are made of.",
    (
        Column("gene_id", STR, "vocabulary key"),
        Column("gene_symbol", STR, "symbol for people"),
        Column("n_tokens_stored", I64, "tokens of the gene that entered the sums of features, neurons and components"),
        Column("mean_expression", F64, "mean count over those tokens; NaN without any"),
        Column(
            "n_tokens_untrained", I64, "tokens of the gene in the untrained model's cells; null without that baseline"
        ),
    ),
)

# Of both tables on cell types: what a row's AUROC, interval and p rest on.
_BASIS = (
    Column("n_groups", I64, "held-out groups that count, each once; null without data.group_key"),
    Column(
        "unit_of_inference",
        STR,
        "cells | groups (each group one AUROC of its own cells) | group means (each group one mean: the type is all or none of a "
        "group's cells)",
    ),
    Column("untested", STR, "why there is no p_value; null where there is one"),
)

FEATURE_CELL_TYPES = Table(
    "feature_cell_types.parquet",
    "Each feature's maximum activation per cell against each annotated cell type, on held-out cells.",
    (
        Column("feature", I32, "latent index"),
        Column("cell_type", STR, "annotation"),
        Column("n_cells", I64, "held-out cells of the type"),
        Column("n_rest", I64, "other held-out cells"),
        Column("mean_in", F64, "mean of the cells' maximum activation within the type; with groups the mean of theirs"),
        Column("mean_out", F64, "and outside it"),
        Column(
            "auroc", F64, "area under the ROC curve, held-out cells; ties count half; with groups the mean of theirs"
        ),
        Column("auroc_low", F64, "lower end of its 95 % interval, over what unit_of_inference says"),
        Column("auroc_high", F64, "upper end"),
        Column("auroc_train", F64, "the same on training cells: what to choose features by"),
        Column(
            "effect_size", F64, "Hedges' g of the cells' maximum activation, held-out; with groups the mean of theirs"
        ),
        Column(
            "p_value",
            F64,
            "two-sided; over cells and over group means Mann-Whitney U, over groups a one-sample t-test of their AUROCs against 1/2",
        ),
        Column("q_value", F64, "Benjamini-Hochberg over every feature x cell type test of the layer"),
        *_BASIS,
    ),
    OVER_CELLS,
)

CELL_TYPE_BASELINES = Table(
    "cell_type_baselines.parquet",
    "Per cell type the best feature, gene and unit of each baseline, each chosen on training cells, then measured on held-out ones.",
    (
        Column("cell_type", STR, "annotation"),
        Column("kind", STR, "feature | gene | neuron | pca | ica | untrained"),
        Column("unit", I32, "latent index, token id, or the unit's number as in the kind's table of genes"),
        Column("name", STR, "gene_symbol; the latent's number as text; a neuron's or component's number and its sign"),
        Column("auroc_train", F64, "on training cells"),
        Column("auroc", F64, "on held-out cells"),
        Column("auroc_low", F64, "lower end of its 95 % interval, over what unit_of_inference says"),
        Column("auroc_high", F64, "upper end"),
        Column("n_cells", I64, "held-out cells of the type"),
        *_BASIS,
    ),
    OVER_CELLS,
)
