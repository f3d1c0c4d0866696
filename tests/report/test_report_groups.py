"""What report and dashboard say of donors: how many stand behind a number, or that cells were counted."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import write_report
from planted_run import Plan, PlantedRun, planted_run

from sae_genomics.report import groups
from sae_genomics.report.wording import CELL_WORDING

CELLS_COUNTED = groups.items_counted(CELL_WORDING)


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> PlantedRun:
    """Twenty donors, four of them held out; one cell type is in two of those."""
    run = planted_run(Path(tmp_path_factory.mktemp("grouped")), Plan(layers=2, groups=20))
    write_report(run)
    return run


def meta_of(run: PlantedRun) -> dict:
    found = re.search(r'<script type="application/json" id="meta">(.*?)</script>', run.dashboard_file.read_text(), re.S)
    assert found
    return json.loads(found[1])


def test_the_report_says_how_many_groups_stand_behind_a_number(grouped: PlantedRun) -> None:
    text = grouped.report_file.read_text()
    opening = text.split("\n## ")[0]
    assert re.search(r"comes from \d+ held-out cells of 4 whole groups \(`donor`\)", opening)
    assert "Behind a number on a cell type stand 4 held-out groups, and each group counts once" in opening
    assert (
        "For Dendritic too few held-out groups could be used, so there is no q-value: raise `data.heldout_fraction`"
        in opening
    )
    assert "of 5 cell types that could be tested have a single feature" in opening
    assert CELLS_COUNTED not in text
    assert "| **Groups** | 20 of `donor`, 4 of them held out whole |" in text
    types = text.split("## Features that tell cell types apart\n")[1].split("\n## ")[0]
    assert "Held-out groups (`donor`) are what counts" in types
    assert "| Cell type | Held-out cells | Groups |" in types
    first_table = types.split("<details>")[0]
    rows = {
        line.split(" | ")[0].strip("| "): line.split(" | ") for line in first_table.split("\n") if ", layer " in line
    }
    assert rows["Dendritic"][2] == "2"
    assert rows["Dendritic"][5] == "–"
    assert "(" not in rows["Dendritic"][4]  # no interval either
    assert {row[2] for name, row in rows.items() if name != "Dendritic"} == {"4"}
    assert "- Dendritic: held-out groups with at least 5 cells of the type and 5 others: 2; a test needs 3." in types


def test_the_dashboard_says_it_too(grouped: PlantedRun) -> None:
    meta = meta_of(grouped)
    assert "20 groups (donor), 4 held out whole" in meta["facts"]
    shown = dict(zip(meta["labels"], meta["label_groups"], strict=True))
    assert shown["Dendritic"] == 2
    assert shown["CD19+ B"] == 4
    assert CELLS_COUNTED.replace("`", "") not in meta["notes"]


def test_without_the_key_one_sentence_says_what_counting_cells_means(finished: PlantedRun) -> None:
    text = finished.report_file.read_text()
    assert text.count(CELLS_COUNTED) == 1
    assert text.count("`data.group_key`") == 1
    assert "Held-out groups" not in text
    meta = meta_of(finished)
    assert CELLS_COUNTED.replace("`", "") in meta["notes"]
    assert meta["label_groups"] is None


def test_without_annotation_nothing_is_said_of_groups(tmp_path: Path) -> None:
    run = planted_run(tmp_path, Plan(layers=1, annotated=False))
    assert "data.group_key" not in write_report(run)
    assert CELLS_COUNTED.replace("`", "") not in meta_of(run)["notes"]
