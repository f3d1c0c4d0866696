"""The report of a run on proteins: its own nouns, only sections that apply, and the tables' numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planted_proteins import CONCEPTS, SYNTHETIC, PlantedProteinRun, ProteinPlan, planted_proteins
from test_report_dashboard import _Page, unpack
from test_report_document import assert_valid, problem_free, section

from sae_genomics.artifacts import (
    CONCEPT_BASELINES,
    CONCEPT_COUNTS,
    FEATURE_CONCEPTS,
    FEATURE_EXAMPLES,
    LABEL_BASELINES,
    Inference,
)
from sae_genomics.atomic import read_json, write_json
from sae_genomics.report import contributions as all_contributions
from sae_genomics.report.concepts import concepts
from sae_genomics.report.contribution import Contribution, Said
from sae_genomics.report.section_concepts import verdict
from sae_genomics.report.section_examples import marks, window_lines
from sae_genomics.report.summary import LayerSummary
from sae_genomics.report.task import run_task
from sae_genomics.report.wording import CELL_WORDING, in_nouns, sequence_wording, wording_of
from sae_genomics.stages import STAGES

OF_CELLS = re.compile(r"\b(cells?|genes?|donors?|obs|h5ad|items?|labels?)\b|gene[_ ]set|cell[_ ]type", re.I)


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> PlantedProteinRun:
    run = planted_proteins(Path(tmp_path_factory.mktemp("proteins")))
    run_task(run, 0)
    return run


def in_prose(text: str) -> str:
    """Without the code in it: paths and names of settings are the same for every kind."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"```python.*?```|```bash.*?```", "", text, flags=re.S))


def texts_of(value: object) -> list[str]:
    """Every text in what the page's script reads; the names that it reads them by are no texts."""
    if isinstance(value, dict):
        return [text for each in value.values() for text in texts_of(each)]
    if isinstance(value, list):
        return [text for each in value for text in texts_of(each)]
    return [value] if isinstance(value, str) else []


def test_nothing_in_it_is_about_cells_or_genes(reported: PlantedProteinRun) -> None:
    text = reported.report_file.read_text()
    assert_valid(reported, text)
    assert problem_free(text)
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", text.lower())
    assert OF_CELLS.findall(in_prose(text)) == []
    meta, _ = unpack(_Page(reported.dashboard_file.read_text()))
    assert [text for text in texts_of(meta) if OF_CELLS.search(text)] == []
    assert not list(reported.results.rglob("*cell*"))
    assert not list(reported.results.rglob("*gene*"))


def test_its_sections_are_those_that_apply(reported: PlantedProteinRun) -> None:
    text = reported.report_file.read_text()
    assert re.findall(r"^## (.*)$", text, flags=re.M) == [
        "What was run", "What is missing", "How faithful the features are", "Features that find concepts", "Amino acids",
        "Features that tell families apart", "The best features", "Strongest examples", "What to do next", "Terms",
    ]  # fmt: skip
    names = {path.name for path in reported.figures_dir.iterdir()}
    assert names == {"reconstruction.png", "firing_rates.png", "concepts.png", "families.png"}


def test_synthetic_proteins_are_called_so_wherever_one_looks_first(reported: PlantedProteinRun) -> None:
    opening = reported.report_file.read_text().split("\n## ")[0]
    first = next(line for line in opening.split("\n") if line.startswith("- "))
    assert first == f"- **Synthetic data.** {SYNTHETIC}"
    meta, _ = unpack(_Page(reported.dashboard_file.read_text()))
    assert meta["notes"][0] == SYNTHETIC


def test_concepts_are_those_of_the_tables(reported: PlantedProteinRun) -> None:
    text = reported.report_file.read_text()
    part = section(text, "Features that find concepts")
    for layer in reported.layers:
        counts = CONCEPT_COUNTS.read(reported.layer_results(layer) / CONCEPT_COUNTS.file)
        line = next(line for line in part.split("\n") if line.startswith(f"| {layer} | 3 |"))
        for row in counts.to_dict("records"):
            assert f"| {row['n_concepts_found']} ({row['n_units_with_concept']} of {row['n_units']}) |" in line
    assert "F1 per residue of at least 0.3 and q below 0.05" in part
    assert (
        "Unit and threshold were chosen on one half of the proteins; every score below is from the other half." in part
    )
    assert "Features find more concepts than raw neurons, random directions, composition alone and position alone in layers 0, 1 and 2." in text  # fmt: skip
    best = part.split("### The best feature of each concept")[1].split("<details>")[0]
    for concept in CONCEPTS:
        tables = [
            CONCEPT_BASELINES.read(reported.layer_results(layer) / CONCEPT_BASELINES.file).assign(layer=layer)
            for layer in reported.layers
        ]
        own = [table[(table["concept"] == concept) & (table["kind"] == "feature")] for table in tables]
        rows = [row for table in own for row in table.to_dict("records")]
        row = max(rows, key=lambda each: each["f1_residue_chosen"])
        name = CONCEPTS[concept][0].split(" ")[0]
        shown = next(line for line in best.split("\n") if name in line)
        scores = [
            row[f"{score}_{measure}"] for measure in ("residue", "span") for score in ("precision", "recall", "f1")
        ]
        assert f", layer {row['layer']} | " + " | ".join(f"{score:.2f}" for score in scores) in shown


def test_marks_stand_below_their_residues() -> None:
    window = {
        "item_id": "P1", "name": None, "max_activation": 4.0, "position": 103, "start": 101, "residues": "MKCDE",
        "activations": [0.0, 1.0, 4.0, 2.0, 0.0], "concepts": "",
    }  # fmt: skip
    wording = sequence_wording("proteins", CELL_WORDING.nouns)
    head, letters, below = window_lines(window, replace(wording, nouns=replace(wording.nouns, token="residue")))
    assert head == "P1, largest activation 4.00 at residue 103"
    assert letters == "101 MKCDE 105"
    assert [letters[place] for place, mark in enumerate(below) if mark == "^"] == ["C", "D"]
    assert [letters[place] for place, mark in enumerate(below) if mark == "."] == ["K"]
    assert marks([]) == ""
    assert marks([0.0, float("nan")]) == "  "


def test_examples_are_the_strongest_windows(reported: PlantedProteinRun) -> None:
    part = section(reported.report_file.read_text(), "Strongest examples")
    examples = FEATURE_EXAMPLES.read(reported.layer_results(0) / FEATURE_EXAMPLES.file)
    for row in examples.query("feature == 0 and rank <= 3").to_dict("records"):
        assert f"{row['start']} {row['residues']} {row['start'] + 40}" in part
    assert len(re.findall(r"^````text$", part, flags=re.M)) == len(
        re.findall(r"^````$", part, flags=re.M)
    )  # a name holds ```


def test_windows_that_cannot_be_marked_are_named_and_not_shown(tmp_path: Path) -> None:
    run = planted_proteins(tmp_path, ProteinPlan(layers=1))
    path = run.layer_results(0) / FEATURE_EXAMPLES.file
    examples = FEATURE_EXAMPLES.read(path)
    examples.loc[0, "residues"] = "Met (M)" + examples.loc[0, "residues"]
    FEATURE_EXAMPLES.write(path, examples)
    run_task(run, 0)
    text = run.report_file.read_text()
    assert "a window has other than one unit per activation" in section(text, "What is missing")
    assert "## Strongest examples" not in text
    assert "## Features that find concepts" in text
    meta, _ = unpack(_Page(run.dashboard_file.read_text()))
    assert meta["n_features"] == 64


def test_features_of_one_amino_acid_are_counted(reported: PlantedProteinRun) -> None:
    text = reported.report_file.read_text()
    assert "15.9 % of the features that fire do so on one amino acid alone" in text
    rows = [line for line in section(text, "Amino acids").split("\n") if line.startswith("| 0 |")]
    assert "| 63 | 10 (15.9 %) | 0 (0.0 %) | 53 (84.1 %) |" in rows[0]


def test_the_page_holds_concepts_and_examples(reported: PlantedProteinRun) -> None:
    meta, blocks = unpack(_Page(reported.dashboard_file.read_text()))
    assert (meta["nouns"]["unit"], meta["nouns"]["label"], meta["nouns"]["token"]) == (
        "amino acid",
        "family",
        "residue",
    )
    assert "terms" not in meta
    assert not [name for name in blocks if name.startswith(("cells.", "terms.", "sample."))]
    folder = reported.layer_results(0)
    tests = FEATURE_CONCEPTS.read(folder / FEATURE_CONCEPTS.file)
    for feature in (0, 1, 20):
        own = tests[tests["feature"] == feature].sort_values("f1_residue_chosen", ascending=False).iloc[0]
        assert meta["concepts"][blocks["columns.concept"][feature]] == own["name"]
        assert blocks["columns.concept_f1_residue"][feature] == pytest.approx(own["f1_residue"], rel=1e-6)
        assert blocks["columns.concept_f1_span"][feature] == pytest.approx(own["f1_span"], rel=1e-6)
    examples = FEATURE_EXAMPLES.read(folder / FEATURE_EXAMPLES.file)
    length = blocks["windows.length"].astype(int)
    ends = length.cumsum()
    for entry, row in enumerate(examples.head(10).to_dict("records")):
        here = slice(ends[entry] - length[entry], ends[entry])
        assert bytes(blocks["windows.letter"][here]).decode() == row["residues"]
        shown = blocks["windows.level"][here] / 255 * row["max_activation"]
        assert abs(shown - row["activations"]).max() <= row["max_activation"] / 255 + 1e-6


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (ProteinPlan(layers=1, spans=False), "Name a file of them in `data.spans`."),
        (ProteinPlan(layers=1, labels=False), "No family could be tested"),
        (ProteinPlan(layers=1, examples=False), "## Features that find concepts"),
        (ProteinPlan(layers=1, spans=False, labels=False, examples=False), "## Amino acids"),
    ],
    ids=["no spans", "no labels", "no examples", "units alone"],
)
def test_poorer_runs(tmp_path: Path, plan: ProteinPlan, said: str) -> None:
    run = planted_proteins(tmp_path, plan)
    run_task(run, 0)
    text = run.report_file.read_text()
    assert_valid(run, text)
    assert problem_free(text)
    assert said in text
    assert OF_CELLS.findall(in_prose(text)) == []
    assert ("## Strongest examples" in text) == plan.examples
    assert run.dashboard_file.exists()


def test_a_column_of_labels_gives_them_their_noun(tmp_path: Path) -> None:
    run = planted_proteins(tmp_path, ProteinPlan(layers=1))
    for key, noun, nouns in (
        ("family", "family", "families"), ("species", "species", "species"), ("protein_class", "protein class", "protein classes"),
        ("organism", "organism", "organisms"), ("X1 %", "label", "labels"), (None, "label", "labels"),
    ):  # fmt: skip
        run.config = run.config.model_copy(update={"data": run.config.data.model_copy(update={"label_key": key})})
        found = wording_of(run).nouns
        assert (found.label, found.labels) == (noun, nouns)


def test_lines_on_inference_take_the_nouns(reported: PlantedProteinRun) -> None:
    said = Inference("one held-out item", "held-out items of the label (n_items)", "labels do not differ")
    shown = in_nouns(said, wording_of(reported))
    assert (
        shown.line()
        == "Unit of inference: one held-out protein; n: held-out proteins of the family (n_items); null: families do not differ."
    )


def test_a_layer_that_finds_nothing_is_told_in_words() -> None:
    counts = [("feature", 64, 0, 0), ("neuron", 128, 4, 1), ("composition", 3, 2, 2)]
    found = concepts(
        pd.DataFrame(
            [
                {
                    "kind": kind,
                    "n_units": n,
                    "n_units_with_concept": with_concept,
                    "n_concepts_found": n_found,
                    "n_concepts_tested": 3,
                    "criterion": "c",
                }
                for kind, n, with_concept, n_found in counts
            ]
        ),
        None,
    )
    assert found is not None
    assert (
        found.headline(2)
        == "Layer 2: none of 64 features finds any of 3 concepts; raw neurons 1 and composition alone 2."
    )
    layers = [LayerSummary(layer, parts={"concepts": found}) for layer in (2, 3)]
    assert (
        verdict(layers)
        == "In none of the 2 layers do features find more concepts than each of raw neurons and composition alone."
    )
    assert verdict(layers[:1]).startswith("In the one layer here features do not find more concepts than")
    assert verdict([LayerSummary(0)]) == ""


def test_labels_that_are_the_groups_are_not_tested_and_it_says_why(tmp_path: Path) -> None:
    run = planted_proteins(tmp_path, ProteinPlan(layers=1))
    write_json(run.plan_file, {**read_json(run.plan_file), "group_key": "family"})
    path = run.layer_results(0) / LABEL_BASELINES.file
    untested = dict.fromkeys(("auroc", "auroc_low", "auroc_high"), np.nan)
    LABEL_BASELINES.write(
        path, LABEL_BASELINES.read(path).assign(**untested, untested="on one side of the split", n_items=0)
    )
    run_task(run, 0)
    text = run.report_file.read_text()
    part = section(text, "Features that tell families apart")
    assert "Families are also the groups that the split keeps whole (`data.group_key: family`)" in part
    assert "|" not in part
    assert "raise `data.heldout_fraction`" not in text
    assert OF_CELLS.findall(in_prose(text)) == []


ADDED = Contribution(
    name="added", order=55, section=lambda contents: "## Something new\n\nIt is there.",
    findings=lambda contents: [Said(99, "**New.** A finding.")],
)  # fmt: skip


def test_a_contribution_of_another_package_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = [*STAGES, replace(STAGES[0], contributions=(f"{__name__}:ADDED",))]
    monkeypatch.setattr(all_contributions, "stages_of", lambda run: stages)
    run = planted_proteins(tmp_path, ProteinPlan(layers=1))
    run_task(run, 0)
    text = run.report_file.read_text()
    titles = re.findall(r"^## (.*)$", text, flags=re.M)
    assert titles.index("Something new") == titles.index("The best features") - 1
    assert "- **New.** A finding." in text.split("\n## ")[0]
