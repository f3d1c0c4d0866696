"""Every table that holds a statistic names its unit of inference, n and null, in the code and in the file."""

from __future__ import annotations

import pandas as pd
import pyarrow.parquet as pq
import pytest

from sae_genomics import artifacts
from sae_genomics.artifacts import Inference, Table

STATISTICS = ("p_value", "q_value", "auroc", "share")


def all_tables() -> dict[str, Table]:
    """Every Table of `artifacts`, those in dictionaries and tuples among them, by file name."""
    found = {}
    for value in vars(artifacts).values():
        members = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else [value]
        found |= {each.file: each for each in members if isinstance(each, Table)}
    return found


def holds_a_statistic(table: Table) -> bool:
    return any(column.name.endswith(STATISTICS) for column in table.columns)


WITH_STATISTICS = {file: table for file, table in all_tables().items() if holds_a_statistic(table)}


def test_the_walk_finds_the_tables() -> None:
    assert {
        "features.parquet",
        "feature_cell_types.parquet",
        "feature_terms.parquet",
        "annotation_nulls.parquet",
    } <= set(WITH_STATISTICS)
    assert {table.file for table in artifacts.LAYER_TABLES} <= set(all_tables())


@pytest.mark.parametrize("file", sorted(WITH_STATISTICS))
def test_a_table_with_a_statistic_names_unit_n_and_null(file: str) -> None:
    inference = WITH_STATISTICS[file].inference
    assert inference is not None, f"{file}: give its Table an Inference"
    for text in (inference.unit, inference.n, inference.null):
        assert text.strip()
        assert not text.endswith(".")


@pytest.mark.parametrize("file", sorted(WITH_STATISTICS))
def test_the_file_carries_it(tmp_path, file: str) -> None:
    table = WITH_STATISTICS[file]
    empty = table.schema.empty_table().to_pandas()
    table.write(tmp_path / file, empty, note="a note")
    assert table.inference_of(tmp_path / file) == table.inference
    known_better = Inference("donor", "7 donors", "no difference")
    table.write(tmp_path / file, empty, weights="abc", inference=known_better)
    metadata = pq.read_schema(tmp_path / file).metadata
    assert (metadata[b"unit_of_inference"], metadata[b"n"], metadata[b"null"]) == (
        b"donor",
        b"7 donors",
        b"no difference",
    )
    assert metadata[b"weights"] == b"abc"
    assert table.inference_of(tmp_path / file) == known_better


def test_a_table_without_a_statistic_claims_nothing(tmp_path) -> None:
    table = artifacts.FEATURE_GENES
    table.write(tmp_path / table.file, pd.DataFrame({column.name: [] for column in table.columns}))
    assert table.inference_of(tmp_path / table.file) is None
