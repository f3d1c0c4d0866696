"""Tables that `concepts` leaves: each concept's vector beside its nulls and baselines, and the audit of its confounds."""

from __future__ import annotations

from sae_genomics.artifacts.table import BOOL, F64, I32, I64, STR, Column, Inference, Table

OF_GENE_SETS = "; one gene for gene sets"  # what the report leaves out for data without genes
OVER_CONCEPTS = Inference(
    f"one held-out item; one group where data.group_key is set{OF_GENE_SETS}",
    "n_groups",
    "the same fit and score for shuffled labels, and for random concepts of the same size; intervals draw whole groups with replacement",
)

CONCEPT_VECTORS = Table(
    "concept_vectors.parquet",
    "One row per concept: how well its vector tells held-out positives from negatives, and what shuffled labels, random concepts and "
    "composition reach. A concept that does not beat composition says nothing about the model.",
    (
        Column(
            "concept",
            STR,
            "its id: the kind, a colon, and the label, the spans' concept, the gene set or the name in the file",
        ),
        Column("kind", STR, "label | span | gene_set | examples"),
        Column("name", STR, "what people call it"),
        Column("level", STR, "what a row of the fit is: item (its mean activation) | token"),
        Column("n_positive", I64, "rows with the concept, training and held-out"),
        Column("n_negative", I64, "rows without it"),
        Column("n_heldout_positive", I64, "held-out rows with the concept: what auroc rests on"),
        Column("n_heldout_negative", I64, "held-out rows without it"),
        Column("n_items", I64, "distinct items behind the rows with the concept; genes for a gene set"),
        Column(
            "n_groups",
            I64,
            "distinct groups behind the held-out rows with the concept; items without groups; genes for a gene set",
        ),
        Column("split_by", STR, "what training and held-out rows share nothing of: group | item | gene"),
        Column("strength", F64, "L2 penalty on the mean loss, chosen by cross-validation within the training rows"),
        Column("auroc", F64, "of the score, held-out rows; null where there is nothing to score"),
        Column("auroc_low", F64, "lower end of its 95 % interval, over groups"),
        Column("auroc_high", F64, "upper end"),
        Column("auprc", F64, "average precision of the score, held-out rows"),
        Column("auprc_low", F64, "lower end of its 95 % interval, over groups"),
        Column("auprc_high", F64, "upper end"),
        Column("prevalence", F64, "share of positives among the held-out rows: what auprc is without any knowledge"),
        Column("stability", F64, "mean cosine between the directions of any two folds, in scaled coordinates"),
        Column("cosine_means", F64, "cosine between the direction and the difference of means, in scaled coordinates"),
        Column("n_shuffled", I32, "draws of shuffled labels that were made"),
        Column("n_random", I32, "draws of random concepts that were made"),
        Column("null_shuffled", F64, "mean AUROC of shuffled labels"),
        Column("null_random", F64, "mean AUROC of random concepts"),
        Column("p_shuffled", F64, "(1 + draws of at least this AUROC) / (1 + draws)"),
        Column("p_random", F64, "likewise, of random concepts"),
        Column("p_value", F64, "the larger of both"),
        Column("q_value", F64, "Benjamini-Hochberg over the layer's concepts"),
        Column(
            "auroc_composition",
            F64,
            "held-out AUROC of composition alone: unit frequencies or expression, and item length",
        ),
        Column("auroc_position", F64, "held-out AUROC of the position in the item alone; null for items"),
        Column("difference", F64, "auroc - auroc_composition"),
        Column("difference_low", F64, "lower end of its 95 % interval, the same groups drawn for both"),
        Column("difference_high", F64, "upper end"),
        Column("beyond_composition", BOOL, "difference_low is above 0"),
        Column(
            "strongest_confound", STR, "the property that alone tells positives from negatives best; null without any"
        ),
        Column("auroc_confound", F64, "its AUROC, on either side of 0.5 folded up"),
        Column("auroc_matched", F64, "AUROC of the score among pairs alike in that property; null where no pair is"),
        Column("untested", STR, "why there is no AUROC; null where there is one"),
    ),
    OVER_CONCEPTS,
)

CONCEPT_NULLS = Table(
    "concept_nulls.parquet",
    "One row per draw: the held-out AUROC of shuffled labels and of random concepts, fitted and scored as the concept is.",
    (
        Column("concept", STR, "as in concept_vectors.parquet"),
        Column("null", STR, "shuffled | random"),
        Column("draw", I32, "number of the draw, from 0; fewer than concepts.draws where the answer was clear"),
        Column("auroc", F64, "of the draw"),
    ),
    OVER_CONCEPTS,
)

CONCEPT_CONFOUNDS = Table(
    "concept_confounds.parquet",
    "One row per concept and property of its rows: how well the property alone tells positives from negatives, and what the vector's AUROC "
    "is among rows that are alike in it.",
    (
        Column("concept", STR, "as in concept_vectors.parquet"),
        Column("confound", STR, "length | depth | group | label | composition | position | a column of concepts.confounds"),
        Column("type", STR, "number | category"),
        Column("auroc", F64, "of the property alone, held-out rows; 0.5 says nothing. Categories: by the share of positives in other rows"),
        Column("n_strata", I32, "strata of alike rows that hold positives and negatives"),
        Column("share_matched", F64, "share of the held-out positives that are in such a stratum"),
        Column("auroc_matched", F64, "of the vector's score, over pairs within a stratum; null where there is none"),
        Column("auroc_matched_low", F64, "lower end of its 95 % interval, over groups"),
        Column("auroc_matched_high", F64, "upper end"),
        Column("strongest", BOOL, "the measured property that tells best; composition and position are models and do not count here"),
    ),
    OVER_CONCEPTS,
)  # fmt: skip
