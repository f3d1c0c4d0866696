"""Columns of every table, once: the code that writes a table and the code that reads it both point here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sae_genomics.atomic import atomic_path
from sae_genomics.errors import DamagedArtifact

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Column:
    """name, Arrow type, and one line of meaning with its unit."""

    name: str
    type: pa.DataType
    meaning: str


@dataclass(frozen=True)
class Inference:
    """What a table's statistics are about, in words that follow `unit of inference:`, `n:` and `null:`."""

    unit: str
    """what counts once"""
    n: str
    """how many there are, or the columns that say so"""
    null: str
    """what the statistics are compared with"""

    def line(self) -> str:
        """One line for a reader."""
        return f"Unit of inference: {self.unit}; n: {self.n}; null: {self.null}."

    def metadata(self) -> dict[str, str]:
        """The keys that a Parquet file carries."""
        return {"unit_of_inference": self.unit, "n": self.n, "null": self.null}


@dataclass(frozen=True)
class Table:
    """A Parquet file's columns. `file` is its name within its folder. inference: named by every table that holds a statistic."""

    file: str
    meaning: str
    columns: tuple[Column, ...]
    inference: Inference | None = None

    @property
    def schema(self) -> pa.Schema:
        fields = [pa.field(column.name, column.type, metadata={"meaning": column.meaning}) for column in self.columns]
        inference = self.inference.metadata() if self.inference is not None else {}
        return pa.schema(fields, metadata={"meaning": self.meaning, "format_version": str(FORMAT_VERSION), **inference})

    def write(
        self,
        path: Path,
        frame: pd.DataFrame,
        note: str | None = None,
        weights: str | None = None,
        inference: Inference | None = None,
    ) -> None:
        """Write exactly this table's columns, atomically. Raises KeyError when one is missing.

        Kept in the file's metadata: note, what a reader must know of this file, such as why it has no rows; weights, the content
        hash of the SAE weights that the table describes; inference, what this file's statistics are about, where that is known
        better than the table declares it.
        """
        arrays = pa.Table.from_pandas(
            frame[[column.name for column in self.columns]], schema=self.schema, preserve_index=False
        )
        said: dict[bytes, str | None] = {b"note": note, b"weights": weights}
        if inference is not None:
            said |= {key.encode(): text for key, text in inference.metadata().items()}
        metadata = {**self.schema.metadata, **{key: text.encode() for key, text in said.items() if text}}
        with atomic_path(path) as temporary:
            pq.write_table(arrays.replace_schema_metadata(metadata), temporary, compression="zstd")

    def read(self, path: Path, columns: list[str] | None = None) -> pd.DataFrame:
        """Read the table back. Raises DamagedArtifact naming the file when it is not readable."""
        try:
            return pq.read_table(path, columns=columns).to_pandas()
        except (pa.ArrowInvalid, pa.ArrowIOError) as error:
            raise DamagedArtifact(f"{path} cannot be read: {error}", path) from None

    def note(self, path: Path) -> str | None:
        """The note that `write` was given; None without one."""
        return self._said(path, b"note")

    def weights(self, path: Path) -> str | None:
        """The content hash of the SAE weights that the table describes; None where it names none."""
        return self._said(path, b"weights")

    def inference_of(self, path: Path) -> Inference | None:
        """What the file says that its statistics are about; None where it says nothing."""
        unit, n, null = (self._said(path, key) for key in (b"unit_of_inference", b"n", b"null"))
        return Inference(unit, n, null) if unit and n and null else None

    def _said(self, path: Path, key: bytes) -> str | None:
        try:
            text: bytes | None = (pq.read_schema(path).metadata or {}).get(key)
        except (pa.ArrowInvalid, pa.ArrowIOError) as error:
            raise DamagedArtifact(f"{path} cannot be read: {error}", path) from None
        return text.decode() if text else None


_i32, _i64, _f32, _f64, _str, _bool = pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.string(), pa.bool_()

GENES = Table(
    "genes.parquet",
    "One row per var of the input that matched the model's vocabulary, and per unmatched var (token = -1).",
    (
        Column("column", _i64, "position in the input's var (of raw.var where counts come from raw)"),
        Column("gene_id", _str, "the name looked up: version suffix stripped; the vocabulary's key where matched"),
        Column("gene_symbol", _str, "symbol for people; the gene_id where the input has none"),
        Column("token", _i32, "vocabulary id; -1 when the model does not know the gene"),
        Column("slot", _i32, "position among the distinct matched tokens, ascending by token; -1 when unmatched"),
        Column("counts", _f64, "sum of counts over the cells used"),
    ),
)

UNITS = Table(
    "units.parquet",
    "One row per unit: what a token of the model's vocabulary stands for (a gene, a residue), of those that the run has.",
    (
        Column("unit", _i32, "the row's number"),
        Column("unit_id", _str, "name for programs: the vocabulary's key"),
        Column("unit_name", _str, "name for people"),
        Column("token", _i32, "vocabulary id"),
        Column("counts", _f64, "how much of it the items used hold: a gene's counts, a residue's occurrences"),
    ),
)

CELLS = Table(
    "cells.parquet",
    "One row per cell used, in the order shards take them.",
    (
        Column("cell", _i64, "row in the input h5ad"),
        Column("cell_id", _str, "obs index"),
        Column("heldout", _bool, "no SAE is trained on it"),
        Column("cell_type", _str, "annotation; null without data.cell_type_key"),
        Column("group", _str, "donor, sample or batch, kept whole by the split; null without data.group_key"),
        Column("n_counts", _f64, "sum of counts over matched genes"),
        Column("n_genes", _i32, "matched genes with a count above zero"),
    ),
)

OVER_CELLS = Inference(
    "one held-out cell, all cells taken as independent",
    "held-out cells of the type (n_cells) and others (n_rest)",
    "cells of the type and other cells do not differ (AUROC 0.5; Mann-Whitney)",
)
RECONSTRUCTION = Inference(
    "none, these numbers describe and nothing is tested (for the interval of loss recovered: one held-out cell, or one group)",
    "held-out gene tokens, which are no replicates of each other",
    "none (with nothing but the mean activation FVU is 1 and loss recovered 0)",
)  # of metrics.json

FEATURES = Table(
    "features.parquet",
    "One row per SAE feature of a layer; gene tokens of all cells unless said otherwise.",
    (
        Column("feature", _i32, "latent index in the SAE"),
        Column("firing_rate", _f64, "share of gene tokens with activation > 0"),
        Column("n_tokens", _i64, "gene tokens with activation > 0"),
        Column("n_cells", _i64, "cells with at least one such token"),
        Column("mean_activation", _f64, "mean activation over tokens where it is > 0"),
        Column("max_activation", _f64, "largest activation"),
        Column("heldout_firing_rate", _f64, "firing rate over held-out cells alone; null when there are none"),
        Column("top_gene", _str, "gene_symbol with the highest score"),
        Column(
            "specificity",
            _f64,
            "largest specificity among its genes (bits; see feature_genes); NaN when it never fires",
        ),
        Column(
            "best_cell_type",
            _str,
            "cell type with the highest training-cell AUROC, with groups of those that can be tested; null without annotation",
        ),
        Column("best_cell_type_auroc", _f64, "held-out AUROC of that cell type"),
        Column("best_cell_type_q_value", _f64, "q-value of that test"),
    ),
    OVER_CELLS,
)

FEATURE_GENES = Table(
    "feature_genes.parquet",
    "Top genes of each feature: the union of the top associations.top_genes by score and by specificity.",
    (
        Column("feature", _i32, "latent index"),
        Column("gene_id", _str, "vocabulary key"),
        Column("gene_symbol", _str, "symbol for people"),
        Column("score", _f64, "sum over gene tokens of activation x expression (counts)"),
        Column("mean_activation", _f64, "mean activation over all tokens of the gene, zeros included"),
        Column("firing_rate", _f64, "share of the gene's tokens with activation > 0"),
        Column("n_tokens", _i64, "tokens of the gene with activation > 0"),
        Column(
            "specificity",
            _f64,
            "bits: log2((observed + prior) / (expected + prior)) of summed activation, expected if it were independent of gene; "
            "null below associations.min_gene_tokens tokens of the gene",
        ),
        Column("rank_score", _i32, "1 = highest score within the feature"),
        Column("rank_specificity", _i32, "1 = highest specificity within the feature; null without one"),
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
    "One row per distinct matched gene, in the order of genes.parquet's slots: the tokens that the layer's gene sums are made of.",
    (
        Column("gene_id", _str, "vocabulary key"),
        Column("gene_symbol", _str, "symbol for people"),
        Column("n_tokens_stored", _i64, "tokens of the gene that entered the sums of features, neurons and components"),
        Column("mean_expression", _f64, "mean count over those tokens; NaN without any"),
        Column(
            "n_tokens_untrained", _i64, "tokens of the gene in the untrained model's cells; null without that baseline"
        ),
    ),
)

# Of both tables on cell types: what a row's AUROC, interval and p rest on.
_BASIS = (
    Column("n_groups", _i64, "held-out groups that count, each once; null without data.group_key"),
    Column(
        "unit_of_inference",
        _str,
        "cells | groups (each group one AUROC of its own cells) | group means (each group one mean: the type is all or none of a "
        "group's cells)",
    ),
    Column("untested", _str, "why there is no p_value; null where there is one"),
)

FEATURE_CELL_TYPES = Table(
    "feature_cell_types.parquet",
    "Each feature's maximum activation a cell against each annotated cell type, on held-out cells.",
    (
        Column("feature", _i32, "latent index"),
        Column("cell_type", _str, "annotation"),
        Column("n_cells", _i64, "held-out cells of the type"),
        Column("n_rest", _i64, "other held-out cells"),
        Column(
            "mean_in", _f64, "mean of the cells' maximum activation within the type; with groups the mean of theirs"
        ),
        Column("mean_out", _f64, "and outside it"),
        Column(
            "auroc", _f64, "area under the ROC curve, held-out cells; ties count half; with groups the mean of theirs"
        ),
        Column("auroc_low", _f64, "lower end of its 95 % interval, over what unit_of_inference says"),
        Column("auroc_high", _f64, "upper end"),
        Column("auroc_train", _f64, "the same on training cells: what to choose features by"),
        Column(
            "effect_size", _f64, "Hedges' g of the cells' maximum activation, held-out; with groups the mean of theirs"
        ),
        Column(
            "p_value",
            _f64,
            "two-sided; over cells and over group means Mann-Whitney U, over groups a one-sample t-test of their AUROCs against 1/2",
        ),
        Column("q_value", _f64, "Benjamini-Hochberg over every feature x cell type test of the layer"),
        *_BASIS,
    ),
    OVER_CELLS,
)

CELL_TYPE_BASELINES = Table(
    "cell_type_baselines.parquet",
    "Per cell type the best feature, gene and unit of each baseline, each chosen on training cells, then measured on held-out ones.",
    (
        Column("cell_type", _str, "annotation"),
        Column("kind", _str, "feature | gene | neuron | pca | ica | untrained"),
        Column("unit", _i32, "latent index, token id, or the unit's number as in the kind's table of genes"),
        Column("name", _str, "gene_symbol; the latent's number as text; a neuron's or component's number and its sign"),
        Column("auroc_train", _f64, "on training cells"),
        Column("auroc", _f64, "on held-out cells"),
        Column("auroc_low", _f64, "lower end of its 95 % interval, over what unit_of_inference says"),
        Column("auroc_high", _f64, "upper end"),
        Column("n_cells", _i64, "held-out cells of the type"),
        *_BASIS,
    ),
    OVER_CELLS,
)

FEATURE_TERMS = Table(
    "feature_terms.parquet",
    "Over-representation of each feature's top genes in gene sets: every test with at least one shared gene.",
    (
        Column("feature", _i32, "latent index"),
        Column("collection", _str, "file name of the gene-set collection, without suffix"),
        Column("term", _str, "gene set"),
        Column("n_overlap", _i32, "shared genes"),
        Column("n_term", _i32, "genes of the set within the background"),
        Column("n_top", _i32, "genes of the feature that were tested"),
        Column("n_background", _i32, "genes that could have entered the list"),
        Column("odds_ratio", _f64, "sample odds ratio, 0.5 added to every cell (Haldane-Anscombe)"),
        Column("p_value", _f64, "one-sided, by the test that validation.test names"),
        Column("q_value", _f64, "Benjamini-Hochberg over every test made, overlapping or not"),
        Column("genes", _str, "shared gene symbols, comma-separated"),
    ),
    Inference(
        "one gene of the background",
        "the feature's top genes (n_top) among all genes of the background (n_background)",
        "the feature's genes are drawn at random from the background",
    ),
)

ANNOTATION_NULLS = Table(
    "annotation_nulls.parquet",
    "How many units are annotated at validation.fdr, and with how many terms: features, each baseline, and two nulls of each.",
    (
        Column(
            "source",
            _str,
            "features or a name of validation.baselines: the lists as they are. shuffled_genes: gene names shuffled among all genes "
            "that can be listed. matched_genes: among genes of similar token number and mean expression",
        ),
        Column("units", _str, "whose gene lists: features, or a name of validation.baselines"),
        Column("repeat", _i32, "number of the shuffle; 0 elsewhere"),
        Column("n_units", _i64, "units with at least one gene to test"),
        Column("n_annotated", _i64, "units with a term at q < validation.fdr"),
        Column("share", _f64, "n_annotated / n_units"),
        Column("n_tests", _i64, "tests made"),
        Column("n_terms", _i64, "different terms found"),
        Column("terms_per_100_units", _f64, "100 x n_terms / n_units; null without units"),
    ),
    Inference(
        "one unit (feature, raw neuron) with a gene to test",
        "the units of each row (n_units)",
        "the rows of shuffled genes: the same procedure with the genes' names dealt out anew",
    ),
)

OVER_SPANS = Inference(
    "one protein of the scoring half that carries the concept and where the unit is active; one protein per group where there are groups",
    "n_groups, or n_proteins where split_by is not the group",
    "the strongest residue of a protein is as likely to be any of its residues (binomial bound of the number of proteins where it is "
    "inside the concept; Hoeffding 1956)",
)
_CONCEPT_SCORES = (
    Column("precision_residue", _f64, "active residues inside the concept / active residues; scoring half"),
    Column("recall_residue", _f64, "active residues inside the concept / residues of the concept; scoring half"),
    Column("f1_residue", _f64, "2 precision recall / (precision + recall), per residue; scoring half"),
    Column("precision_span", _f64, "runs of active residues that touch the concept / runs of active residues"),
    Column("recall_span", _f64, "spans of the concept with an active residue / spans of the concept"),
    Column("f1_span", _f64, "2 precision recall / (precision + recall), per span"),
    Column("f1_residue_chosen", _f64, "F1 per residue on the choosing half: what threshold and unit were chosen by"),
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
        Column("feature", _i32, "latent index"),
        Column("concept", _str, "the spans' concept"),
        Column("name", _str, "what people call it"),
        Column(
            "threshold",
            _f64,
            "active means activation >= threshold, above 0 where it is 0; one of 0 and the five highest half octaves below the maximum",
        ),
        Column("n_spans", _i64, "spans of the concept in the scoring half"),
        Column("n_residues", _i64, "residues of the concept in the scoring half"),
        *_CONCEPT_SCORES,
        Column("n_proteins", _i64, "proteins with the concept in the scoring half"),
        Column("n_groups", _i64, "groups of these proteins; proteins without a group count as one each"),
        Column("split_by", _str, "what the halves are made of: group | item (the concept is in too few groups)"),
        Column(
            "odds_ratio",
            _f64,
            "of active and inside, per residue; 0.5 added to every cell (Haldane-Anscombe); describes, is not tested",
        ),
        Column("p_value", _f64, "one-sided, conservative: the feature is strongest inside the concept"),
        Column("q_value", _f64, "Benjamini-Hochberg over every feature x concept, overlapping or not"),
    ),
    OVER_SPANS,
)

CONCEPT_BASELINES = Table(
    "concept_baselines.parquet",
    f"Per concept the best unit of each kind, chosen on one half of the groups and scored on the other. {_WITHIN}",
    (
        Column("concept", _str, "the spans' concept"),
        Column("name", _str, "what people call it"),
        Column("kind", _str, "feature | neuron | random | composition | position"),
        Column(
            "unit", _i32, "latent index; 2i and 2i + 1 for the signs of neuron or direction i; the concept's number"
        ),
        Column("unit_name", _str, "the latent's number, a neuron's or direction's number and sign, or the concept"),
        Column("threshold", _f64, "active means activation >= threshold, above 0 where it is 0"),
        *_CONCEPT_SCORES,
        Column("q_value", _f64, "Benjamini-Hochberg over every unit x concept of the kind"),
        Column("n_spans", _i64, "spans of the concept in the scoring half"),
        Column("n_proteins", _i64, "proteins with the concept in the scoring half"),
        Column("split_by", _str, "what the halves are made of: group | item (the concept is in too few groups)"),
    ),
    OVER_SPANS,
)

CONCEPT_COUNTS = Table(
    "concept_counts.parquet",
    "How many concepts each kind of units finds, by the same criterion, and how many of its units find one.",
    (
        Column("kind", _str, "feature | neuron | random | composition | position"),
        Column("n_units", _i64, "units of the kind, both signs"),
        Column(
            "n_units_with_concept",
            _i64,
            "units that meet the criterion with the concept that the choosing half prefers for them",
        ),
        Column("n_concepts_found", _i64, "concepts whose unit, chosen on the choosing half, meets the criterion"),
        Column("n_concepts_tested", _i64, "concepts with residues in both halves"),
        Column("criterion", _str, "when a concept counts as found"),
    ),
    OVER_SPANS,
)

FEATURE_EXAMPLES = Table(
    "feature_examples.parquet",
    "The items in which each feature is strongest, with the residues around its maximum.",
    (
        Column("feature", _i32, "latent index"),
        Column("rank", _i32, "1 = strongest"),
        Column("item_index", _i64, "row among the items that are used"),
        Column("item_id", _str, "the item's name in the input"),
        Column("name", _str, "what people call it; null where the input names none"),
        Column("max_activation", _f64, "the feature's largest activation in the item"),
        Column("position", _i32, "residue of the maximum, counted from 1"),
        Column("start", _i32, "first residue of the window, counted from 1"),
        Column("residues", _str, "the window's residues; X where a residue counts for nothing"),
        Column("activations", pa.list_(pa.float32()), "activation at each residue of the window"),
        Column("concepts", _str, "concepts whose spans cover the maximum, comma-separated; null without any"),
    ),
)

# What the columns of tables about cells are called for every other kind of items.
ITEM_NAMES = {
    "gene_id": "unit_id", "gene_symbol": "unit_name", "top_gene": "top_unit", "cell_type": "label", "n_cells": "n_items",
    "best_cell_type": "best_label", "best_cell_type_auroc": "best_label_auroc",
    "best_cell_type_q_value": "best_label_q_value",
}  # fmt: skip
_ITEM_WORDS = {
    "gene tokens": "tokens that count", "gene token": "token that counts", "genes": "units", "gene_symbol": "unit_name", "gene": "unit",
    "cell types": "labels", "cell type": "label", "training-cell": "training-item", "cells": "items", "cell": "item", "types": "labels",
    "the type": "the label",
}  # fmt: skip


def _of_items(text: str) -> str:
    """The same sentence about items of any kind."""
    pattern = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in _ITEM_WORDS))
    return pattern.sub(lambda match: _ITEM_WORDS[match.group()], text)


def _item_table(table: Table, file: str) -> Table:
    """A table about cells and genes as it is for every other kind of items."""
    columns = tuple(
        Column(ITEM_NAMES.get(column.name, column.name), column.type, _of_items(column.meaning))
        for column in table.columns
    )
    inference = table.inference
    if inference is not None:
        inference = Inference(
            _of_items(inference.unit), _of_items(inference.n).replace("n_cells", "n_items"), _of_items(inference.null)
        )
    return Table(file, _of_items(table.meaning), columns, inference)


ITEM_FEATURES = _item_table(FEATURES, FEATURES.file)
FEATURE_UNITS = _item_table(FEATURE_GENES, "feature_units.parquet")
FEATURE_LABELS = _item_table(FEATURE_CELL_TYPES, "feature_labels.parquet")
LABEL_BASELINES = _item_table(CELL_TYPE_BASELINES, "label_baselines.parquet")


@dataclass(frozen=True)
class LayerTables:
    """The tables that every data kind has, under the kind's names.

    features; feature_units: top units of each feature; unit_tokens: how often each unit was met, None where no stage asks for it;
    feature_labels; label_baselines.
    names: what the columns are called that the code calls by the names of cells.
    """

    features: Table
    feature_units: Table
    unit_tokens: Table | None
    feature_labels: Table
    label_baselines: Table
    names: dict[str, str]


CELL_LAYER_TABLES = LayerTables(FEATURES, FEATURE_GENES, GENE_TOKENS, FEATURE_CELL_TYPES, CELL_TYPE_BASELINES, {})
ITEM_LAYER_TABLES = LayerTables(ITEM_FEATURES, FEATURE_UNITS, None, FEATURE_LABELS, LABEL_BASELINES, ITEM_NAMES)

LAYER_TABLES = (
    FEATURES, FEATURE_GENES, FEATURE_CELL_TYPES, *BASELINE_GENES.values(), GENE_TOKENS, CELL_TYPE_BASELINES, FEATURE_TERMS,
    ANNOTATION_NULLS,
)  # fmt: skip
