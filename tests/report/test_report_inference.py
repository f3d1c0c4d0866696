"""The line under every table with a statistic, in report and dashboard."""

from __future__ import annotations

import json
import re
from pathlib import Path

from conftest import write_report
from planted_run import Plan, PlantedRun, planted_run
from test_report_groups import meta_of

from sae_genomics.artifacts import ANNOTATION_NULLS, FEATURE_CELL_TYPES, FEATURE_TERMS, FEATURES, Inference
from sae_genomics.report import associations_json
from sae_genomics.report.wording import CELL_WORDING, in_nouns
from sae_genomics.stages import stage_named

STATISTICS = re.compile(r"AUROC|FVU|\bq\b|annotated|gene set", re.I)


def tables_and_what_follows(text: str) -> list[tuple[str, str]]:
    """Header line of each Markdown table, and the first text after the table."""
    lines, found = text.split("\n"), []
    for place, line in enumerate(lines[1:], 1):
        if re.fullmatch(r"\|( -+:? \|)+", line):
            after = next(each for each in lines[place:] if each and not each.startswith("|"))
            found.append((lines[place - 1], after))
    return found


def assert_named(text: str) -> None:
    results = text.split("## How faithful the features are\n")[1].split("## What to do next\n")[0]
    tables = [(header, after) for header, after in tables_and_what_follows(results) if STATISTICS.search(header)]
    assert len(tables) > 4
    for header, after in tables:
        assert "Unit of inference: " in after, header
        assert "; n: " in after, header
        assert "; null: " in after, header


def test_every_table_of_the_results_names_unit_n_and_null(finished: PlantedRun) -> None:
    text = finished.report_file.read_text()
    assert_named(text)
    assert f"*{ANNOTATION_NULLS.inference.line()}*" in text.replace("\\_", "_")


def test_also_where_nothing_is_held_out(tmp_path: Path) -> None:
    run = planted_run(tmp_path, Plan(layers=2))
    plan = json.loads(run.plan_file.read_text())
    run.plan_file.write_text(json.dumps({**plan, "n_heldout": 0}))
    run.write_manifest(stage_named("prepare"), 0, {})
    assert_named(write_report(run))


def test_what_the_file_says_is_what_is_shown(tmp_path: Path) -> None:
    run = planted_run(tmp_path, Plan(layers=1))
    said = Inference("one donor with <odd> *signs*", "3 donors", "donors do not differ")
    for table in (FEATURES, FEATURE_CELL_TYPES, FEATURE_TERMS, ANNOTATION_NULLS):
        path = run.layer_results(0) / table.file
        table.write(path, table.read(path), inference=said)
    for name in ("associate", "validate"):
        run.write_manifest(stage_named(name), 0, {})
    text = write_report(run)
    assert "Unit of inference: one donor with &lt;odd&gt; \\*signs\\*; n: 3 donors; null: donors do not differ." in text
    shown = meta_of(run)["inference"]
    assert {shown[name] for name in ("features", "labels", "terms", "annotation_nulls")} == {said.line()}
    cells = json.loads((run.layer_results(0) / associations_json.CELLS_FILE).read_text())
    assert said.line().rstrip(".") in cells["about"]


def test_the_dashboard_holds_every_line(finished: PlantedRun) -> None:
    shown = meta_of(finished)["inference"]
    tables = {
        "features": FEATURES,
        "labels": FEATURE_CELL_TYPES,
        "terms": FEATURE_TERMS,
        "annotation_nulls": ANNOTATION_NULLS,
    }
    for name, table in tables.items():
        assert shown[name] == table.inference.line()


def test_a_reader_of_cells_meets_no_item() -> None:
    said = Inference(
        "one held-out item", "items that n_items counts", "tokens permuted within their unit, one unit of inference"
    )
    assert in_nouns(said, CELL_WORDING) == Inference(
        "one held-out cell", "cells that n_items counts", "tokens permuted within their gene, one unit of inference"
    )
