"""What the report and the dashboard say of concept vectors, on small planted tables of proteins and of cells."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from planted_concept_vectors import BEST_LAYER, PLANTED, enable, write_concepts
from planted_proteins import PlantedProteinRun, ProteinPlan, planted_proteins
from planted_run import Plan, planted_run

from sae_genomics.artifacts import CONCEPT_FEATURES, CONCEPT_LOCALISATION, CONCEPT_TCAV, CONCEPT_WINDOWS
from sae_genomics.associations.multiple_testing import benjamini_hochberg
from sae_genomics.concepts.files import THRESHOLDS_FILE
from sae_genomics.concepts.section import ConceptsConfig
from sae_genomics.report import concept_vectors as of_vectors
from sae_genomics.report import section_concept_vectors
from sae_genomics.report.collect import LayerResults
from sae_genomics.report.summary import LayerSummary
from sae_genomics.report.task import run_task
from sae_genomics.run import State

if TYPE_CHECKING:
    from chromium import Browser

DOMAINS = {"known": "Zinc finger <b>C2H2</b>", "composed": "EF-hand", "unknown": "P-loop", "small": "Rare domain"}
TYPES = {"known": "CD19+ B", "composed": "Monocyte", "unknown": "Dendritic", "small": "Mast cell"}


@pytest.fixture(scope="module")
def proteins(tmp_path_factory: pytest.TempPathFactory) -> PlantedProteinRun:
    run = planted_proteins(Path(tmp_path_factory.mktemp("concepts")), ProteinPlan(spans=False))
    enable(run)
    write_concepts(run, DOMAINS, "span")
    run_task(run, 0)
    return run


@pytest.fixture(scope="module")
def text(proteins: PlantedProteinRun) -> str:
    return proteins.report_file.read_text(encoding="utf-8")


@pytest.fixture
def dashboard(proteins: PlantedProteinRun) -> Path:
    return proteins.dashboard_file


def own_section(text: str) -> str:
    found = re.search(r"## What layers know: concept vectors\n(.*?)(?=\n## )", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_first_paragraph_says_what_is_known_and_what_is_not(text: str) -> None:
    first = own_section(text).strip().split("\n\n")[0]
    assert "tells 1 of 3 concepts from the rest, beyond chance and beyond composition: Zinc finger" in first
    assert (
        "EF-hand is told beyond chance, but not clearly better than by composition alone; its vector says nothing"
        in first
    )
    assert "P-loop is not told better than by chance." in first
    assert f"The most in one layer is 1, in layer {BEST_LAYER}." in first
    assert "length: AUROC 0.83, 0.95 left after matching" in first
    assert first in text.split("## What was run")[0]  # it is a finding too


def test_a_value_of_another_column_is_no_cell_type() -> None:
    best = pd.DataFrame(
        {"name": ["B: memory", "condition: B", "source: x", "zinc: y"], "kind": ["label"] * 3 + ["span"]}
    )
    kinds = section_concept_vectors.kinds(best, ConceptsConfig(label_columns=["condition"]))
    assert kinds.tolist() == ["label", section_concept_vectors.OTHER_COLUMN, "label", "span"]
    kinds = section_concept_vectors.kinds(best, ConceptsConfig(labels=Path("more.tsv")))
    assert kinds.tolist() == [section_concept_vectors.OTHER_COLUMN] * 3 + ["span"]
    assert section_concept_vectors.kinds(best, ConceptsConfig()).tolist() == best["kind"].tolist()


def test_proteins_have_no_gene_sets(text: str, dashboard: Path) -> None:
    """Nouns of proteins only, also under the tables and in the dashboard."""
    assert "one gene for gene sets" not in dashboard.read_text()
    section = own_section(text)
    assert "*With it*: how many proteins have the concept." in section
    assert "*Unit of inference: one held-out protein; one group where data.group_key is set; n:" in section
    assert not re.search(r"\bgenes?\b|\bcells?\b", section)


def test_every_number_has_its_null_beside_it(text: str) -> None:
    section = own_section(text)
    main = next(line for line in section.splitlines() if line.startswith("| Zinc finger"))
    assert "0.98 (0.90 to 1.00) | 0.54 | 0.70" in main
    assert "0.71 (0.60 to 0.80) | 0.93 | 0.11" in section  # IoU, ceiling, random windows
    assert "92.0 % | 10.0 % to 90.0 %" in section
    assert "[3](dashboard.html#layer=1&feature=3) (0.80), [7]" in section
    assert "No set of features carries EF-hand better" in section
    assert "0.90 (0.80 to 0.96)" in section
    assert "scripts/detect_concepts.py --config" in section
    assert "Rare domain: too few held-out groups" in section
    assert section.count("Unit of inference") == 4


def test_names_with_markup_are_text(text: str) -> None:
    assert "<b>" not in own_section(text)
    assert "Zinc finger &lt;b&gt;C2H2&lt;/b&gt;" in own_section(text)


def test_pictures_are_drawn(proteins: PlantedProteinRun, text: str) -> None:
    assert (proteins.figures_dir / "concept_vectors.png").stat().st_size > 10_000
    pictures = list(proteins.figures_dir.glob("concept_windows_*.png"))
    assert len(pictures) == 1
    assert f"figures/{pictures[0].name}" in text


def test_q_counts_all_concepts_and_layers() -> None:
    layers = []
    for layer, p in enumerate(([0.01, 0.04], [0.03, None])):
        frame = pd.DataFrame(
            {"concept": ["a", "b"], "p_value": p, "q_value": p, "auroc": [0.9, 0.8], "beyond_composition": True}
        )
        known = of_vectors.layer_concepts(
            LayerResults(layer, tables={"concept_vectors": frame.astype({"p_value": float})}), None
        )
        layers.append(LayerSummary(layer, parts={of_vectors.PART: known}))
    of_vectors.over_layers(layers)
    expected = benjamini_hochberg(pd.Series([0.01, 0.04, 0.03, None], dtype=float).to_numpy())
    found = pd.concat([known.vectors["q_value"] for _, known in of_vectors.of(layers)]).to_numpy()
    assert found == pytest.approx(expected, nan_ok=True)
    assert found[1] > 0.03  # more than any layer's own


FILES = (CONCEPT_LOCALISATION.file, CONCEPT_WINDOWS.file, CONCEPT_FEATURES.file, CONCEPT_TCAV.file, THRESHOLDS_FILE)


@pytest.mark.parametrize("without", [*((name,) for name in FILES), FILES], ids=[*FILES, "all"])
def test_works_with_any_part_missing(tmp_path: Path, without: tuple[str, ...]) -> None:
    run = planted_proteins(tmp_path, ProteinPlan(layers=1, spans=False, labels=False, examples=False))
    enable(run)
    write_concepts(run, DOMAINS, "span", without)
    run_task(run, 0)
    text = run.report_file.read_text(encoding="utf-8")
    assert "What could not be read" not in text
    assert "concepts from the rest" in own_section(text)
    assert ("Pointing hits" in text) == (CONCEPT_LOCALISATION.file not in without)
    assert ("Features that carry concepts" in text) == (CONCEPT_FEATURES.file not in without)
    assert ("Does the model use them" in text) == (CONCEPT_TCAV.file not in without)
    assert ("Finding concepts in new" in text) == (THRESHOLDS_FILE not in without)


def test_cells_read_in_their_own_nouns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = planted_run(tmp_path, Plan(layers=2, d_sae=40, n_cells=120))
    enable(run)
    write_concepts(run, TYPES, "label")
    monkeypatch.setattr(run, "state", lambda *arguments: State("done"))  # no manifest is planted of this stage
    run_task(run, 0)
    section = own_section(run.report_file.read_text(encoding="utf-8"))
    assert "A *concept* is a cell type." in section
    assert "held-out cells" in section
    assert "No concept of this run has annotated spans" in section  # why there is no localisation
    assert "Pointing hits" not in section
    assert not re.search(r"\b(protein|residue|amino acid)s?\b", section)
    assert all(name in section for name in TYPES.values())


@pytest.mark.browser
def test_panel_shows_concepts_pictures_and_features(page: Browser) -> None:
    page.js("document.getElementById('concept-vectors-box').open = true")
    rows = page.js(
        "return [...document.querySelectorAll('#concept-vectors tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))"
    )
    assert [row[0] for row in rows] == [DOMAINS[key] for key in PLANTED]
    assert rows[0][1:4] == ["span", str(BEST_LAYER), "0.98"]
    assert [row[-2] for row in rows] == ["beyond composition", "beyond chance alone", "no", "not tested"]
    assert rows[0][8:11] == ["0.71", "0.93", "0.11"]
    assert rows[0][-1].split() == ["3", "(0.80)", "7", "(0.40)"]
    page.js("document.querySelector('.concept-pictures').open = true")
    page.until(lambda: len(page.all(".concept-pictures .window")) == 13)
    assert page.all(".concept-pictures .in-span")[0].text == "C"
    page.js("document.querySelector('#concept-vectors .find').click()")
    page.until(lambda: page.all("#panel-carries table"))
    assert page.one("#panel-title").text == f"Layer {BEST_LAYER} · feature 3"
    assert DOMAINS["known"] in page.one("#panel-carries").text
