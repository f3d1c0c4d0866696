"""Tables that `associate` leaves for runs with spans: concepts, and the strongest windows."""

from __future__ import annotations

import pyarrow as pa

from sae_genomics.artifacts.table import F64, I32, I64, STR, Column, Inference, Table

OVER_SPANS = Inference(
    "one protein of the scoring half that carries the concept and where the unit is active; one protein per group where there are groups",
    "n_groups, or n_proteins where split_by is not the group",
    "the strongest residue of a protein is as likely to be any of its residues (binomial bound of the number of proteins where it is "
    "inside the concept; Hoeffding 1956)",
)
_CONCEPT_SCORES = (
    Column("precision_residue", F64, "active residues inside the concept / active residues; scoring half"),
    Column("recall_residue", F64, "active residues inside the concept / residues of the concept; scoring half"),
    Column("f1_residue", F64, "2 precision recall / (precision + recall), per residue; scoring half"),
    Column("precision_span", F64, "runs of active residues that touch the concept / runs of active residues"),
    Column("recall_span", F64, "spans of the concept with an active residue / spans of the concept"),
    Column("f1_span", F64, "2 precision recall / (precision + recall), per span"),
    Column("f1_residue_chosen", F64, "F1 per residue on the choosing half: what threshold and unit were chosen by"),
)
_WITHIN = (
    "False positives are counted in all proteins that can tell: those with at least one span of any concept. Proteins without any span "
    "count for nothing."
)

FEATURE_CONCEPTS = Table(
    "feature_concepts.parquet",
    "Features against annotated spans: every pair with a shared residue in the scoring half at the threshold that the choosing half "
    f"prefers. {_WITHIN}",
    (
        Column("feature", I32, "latent index"),
        Column("concept", STR, "the spans' concept"),
        Column("name", STR, "what people call it"),
        Column(
            "threshold",
            F64,
            "active means activation >= threshold, above 0 where it is 0; one of 0 and the five highest half octaves below the maximum",
        ),
        Column("n_spans", I64, "spans of the concept in the scoring half"),
        Column("n_residues", I64, "residues of the concept in the scoring half"),
        *_CONCEPT_SCORES,
        Column("n_proteins", I64, "proteins with the concept in the scoring half"),
        Column("n_groups", I64, "groups of these proteins; proteins without a group count as one each"),
        Column("split_by", STR, "what the halves are made of: group | item (the concept is in too few groups)"),
        Column(
            "odds_ratio",
            F64,
            "of active and inside, per residue; 0.5 added to every cell (Haldane-Anscombe); describes, is not tested",
        ),
        Column("p_value", F64, "one-sided, conservative: the feature is strongest inside the concept"),
        Column("q_value", F64, "Benjamini-Hochberg over every feature x concept, overlapping or not"),
    ),
    OVER_SPANS,
)

CONCEPT_BASELINES = Table(
    "concept_baselines.parquet",
    f"Per concept the best unit of each kind, chosen on one half of the groups and scored on the other. {_WITHIN}",
    (
        Column("concept", STR, "the spans' concept"),
        Column("name", STR, "what people call it"),
        Column("kind", STR, "feature | neuron | random | composition | position"),
        Column("unit", I32, "latent index; 2i and 2i + 1 for the signs of neuron or direction i; the concept's number"),
        Column("unit_name", STR, "the latent's number, a neuron's or direction's number and sign, or the concept"),
        Column("threshold", F64, "active means activation >= threshold, above 0 where it is 0"),
        *_CONCEPT_SCORES,
        Column("q_value", F64, "Benjamini-Hochberg over every unit x concept of the kind"),
        Column("n_spans", I64, "spans of the concept in the scoring half"),
        Column("n_proteins", I64, "proteins with the concept in the scoring half"),
        Column("split_by", STR, "what the halves are made of: group | item (the concept is in too few groups)"),
    ),
    OVER_SPANS,
)

CONCEPT_COUNTS = Table(
    "concept_counts.parquet",
    "How many concepts each kind of units finds, by the same criterion, and how many of its units find one.",
    (
        Column("kind", STR, "feature | neuron | random | composition | position"),
        Column("n_units", I64, "units of the kind, both signs"),
        Column(
            "n_units_with_concept",
            I64,
            "units that meet the criterion with the concept that the choosing half prefers for them",
        ),
        Column("n_concepts_found", I64, "concepts whose unit, chosen on the choosing half, meets the criterion"),
        Column("n_concepts_tested", I64, "concepts with residues in both halves"),
        Column("criterion", STR, "when a concept counts as found"),
    ),
    OVER_SPANS,
)

FEATURE_EXAMPLES = Table(
    "feature_examples.parquet",
    "The items in which each feature is strongest, with the residues around its maximum.",
    (
        Column("feature", I32, "latent index"),
        Column("rank", I32, "1 = strongest"),
        Column("item_index", I64, "row among the items that are used"),
        Column("item_id", STR, "the item's name in the input"),
        Column("name", STR, "what people call it; null where the input names none"),
        Column("max_activation", F64, "the feature's largest activation in the item"),
        Column("position", I32, "residue of the maximum, counted from 1"),
        Column("start", I32, "first residue of the window, counted from 1"),
        Column(
            "residues",
            STR,
            "the window's residues; X where one counts for nothing; word pieces have U+001F between them, and · is no piece",
        ),
        Column("activations", pa.list_(pa.float32()), "activation at each residue of the window"),
        Column("concepts", STR, "concepts whose spans cover the maximum, comma-separated; null without any"),
    ),
)
