"""Tables that `prepare` leaves."""

from __future__ import annotations

from sae_genomics.artifacts.table import BOOL, F64, I32, I64, STR, Column, Table

GENES = Table(
    "genes.parquet",
    "One row per var of the input that matched the model's vocabulary, and per unmatched var (token = -1).",
    (
        Column("column", I64, "position in the input's var (of raw.var where counts come from raw)"),
        Column("gene_id", STR, "the name looked up: version suffix stripped; the vocabulary's key where matched"),
        Column("gene_symbol", STR, "symbol for people; the gene_id where the input has none"),
        Column("token", I32, "vocabulary id; -1 when the model does not know the gene"),
        Column("counts", F64, "sum of counts over the cells used"),
    ),
)

UNITS = Table(
    "units.parquet",
    "One row per unit: what a token of the model's vocabulary stands for (a gene, a residue), of those that the run has.",
    (
        Column("unit", I32, "the row's number"),
        Column("unit_id", STR, "name for programs: the vocabulary's key"),
        Column("unit_name", STR, "name for people"),
        Column("token", I32, "vocabulary id"),
        Column("counts", F64, "how much of it the items used hold: a gene's counts, a residue's occurrences"),
    ),
)

CELLS = Table(
    "cells.parquet",
    "One row per cell used, in the order shards take them.",
    (
        Column("cell", I64, "row in the input h5ad"),
        Column("cell_id", STR, "obs index"),
        Column("heldout", BOOL, "no SAE is trained on it"),
        Column("cell_type", STR, "annotation; null without data.cell_type_key"),
        Column("group", STR, "donor, sample or batch, kept whole by the split; null without data.group_key"),
        Column("n_counts", F64, "sum of counts over matched genes"),
        Column("n_genes", I32, "matched genes with a count above zero"),
    ),
)
