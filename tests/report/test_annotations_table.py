"""annotations.parquet and annotations.tsv: every annotation of every feature of a run, and nothing else."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from conftest import write_report
from planted_run import Plan, PlantedRun, planted_run

from sae_genomics.artifacts import ANNOTATIONS, FEATURE_NAMES, FEATURE_TERMS
from sae_genomics.report.annotations_table import layer_annotations
from sae_genomics.report.files import annotation_files
from sae_genomics.stages import stage_named


def test_the_table_has_each_feature_and_each_term_that_passes(finished: PlantedRun) -> None:
    parquet, _ = annotation_files(finished)
    table = ANNOTATIONS.read(parquet)
    assert pq.read_schema(parquet).metadata[b"unit_of_inference"]
    for layer in finished.layers:
        folder = finished.layer_results(layer)
        terms, names = (
            FEATURE_TERMS.read(folder / "feature_terms.parquet"),
            FEATURE_NAMES.read(folder / "feature_names.parquet"),
        )
        mine = table[table["layer"] == layer]
        assert set(mine["feature"]) == set(names["feature"])
        passing = terms[terms["q_matched"] < 0.05]
        told = mine[mine["source"] != ""]
        pairs = lambda frame: set(zip(frame["feature"], frame["term"], frame["q_matched"], frame["genes"], strict=True))  # noqa: E731
        assert pairs(told) == pairs(passing)
        assert told["in_headline"].all()
        alone = mine[mine["source"] == ""]
        assert set(alone["feature"]) == set(names["feature"]) - set(passing["feature"])
        assert set(alone["name"]) == {"unnamed"}
        assert alone["n_overlap"].isna().all()
    text = finished.report_file.read_text()
    assert "[annotations.tsv](annotations.tsv)" in text


def test_the_text_file_holds_the_same_rows(finished: PlantedRun) -> None:
    parquet, text = annotation_files(finished)
    table = ANNOTATIONS.read(parquet)
    lines = text.read_text(encoding="utf-8").split("\n")
    assert lines[0].split("\t") == [column.name for column in ANNOTATIONS.columns]
    assert len(lines) == len(table) + 2  # the header, and nothing after the last line break
    assert {line.count("\t") for line in lines[:-1]} == {len(ANNOTATIONS.columns) - 1}
    read = pd.read_csv(
        text, sep="\t", quoting=csv.QUOTE_NONE, keep_default_na=False, na_values={"q_matched": "", "n_term": ""}
    )
    assert list(read["feature"]) == list(table["feature"])
    assert np.allclose(read["q_matched"], table["q_matched"], equal_nan=True)
    assert list(read["genes"]) == list(table["genes"])


def test_terms_that_pass_within_their_source_alone_are_marked(tmp_path: Path) -> None:
    run = planted_run(tmp_path, Plan(layers=1, d_sae=20))
    folder = run.layer_results(0)
    terms, names = folder / "feature_terms.parquet", folder / "feature_names.parquet"
    rows = FEATURE_TERMS.read(terms)
    first = rows["feature"].iloc[0]
    rows.loc[(rows["feature"] == first) & (rows["p_value"] == 0.3), ["q_source_matched", "term"]] = [
        0.01,
        'a "tab\t" term',
    ]
    FEATURE_TERMS.write(terms, rows)
    found = layer_annotations(0, terms, names, 0.05)
    mine = found[found["feature"] == first]
    assert list(mine["in_headline"]) == [True, False]
    assert list(mine["q_source_matched"])[1] == 0.01
    assert found[found["feature"] != first]["q_source_matched"].max() < 0.01


def test_a_run_that_is_not_validated_yet_gets_empty_tables(tmp_path: Path) -> None:
    run = planted_run(tmp_path, Plan(layers=1, d_sae=20))
    run.manifest_file(stage_named("validate"), 0).unlink()
    write_report(run)
    parquet, text = annotation_files(run)
    assert ANNOTATIONS.read(parquet).empty
    assert text.read_text().split("\n")[1:] == [""]
    assert run.state(stage_named("report"), 0).done
