"""The dashboard of a run on proteins in a real browser: its nouns, its panels, its coloured residues."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from chromium import Browser
from planted_proteins import CONCEPTS, PlantedProteinRun, ProteinPlan, planted_proteins
from test_protein_report import OF_CELLS

from sae_genomics.artifacts import FEATURE_EXAMPLES
from sae_genomics.report.task import run_task

pytestmark = pytest.mark.browser

ZINC_FINGER = CONCEPTS["PF00096"][0]


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> PlantedProteinRun:
    run = planted_proteins(Path(tmp_path_factory.mktemp("proteins")))
    run_task(run, 0)
    return run


@pytest.fixture(scope="module")
def dashboard(reported: PlantedProteinRun) -> Path:
    """The page of the run on proteins."""
    return reported.dashboard_file


def test_nothing_that_is_read_is_about_cells_or_genes(page: Browser) -> None:
    page.click_row()
    page.until(lambda: page.all("#panel-examples .window"))
    shown = page.js(
        "return document.body.innerText + [...document.querySelectorAll('[title], [placeholder], [aria-label]')]"
        ".map(each => each.title + ' ' + (each.placeholder || '') + ' ' + (each.ariaLabel || '')).join(' ')"
    )
    assert OF_CELLS.findall(shown) == []
    for word in ("residues", "proteins", "amino acid", "family"):
        assert word in shown


def test_the_list_has_concepts_first_and_no_gene_sets(page: Browser) -> None:
    titles = page.js("return [...document.getElementById('head').children].map(each => each.textContent)")
    assert titles == [
        "Layer", "Feature", "Best concept", "F1, residues", "F1, spans", "q (concept)", "Most specific amino acids", "Best family",
        "AUROC", "q (family)", "Fires in", "Specificity",
    ]  # fmt: skip
    scores = [float(text) for text in page.column(3) if text != "–"]
    assert scores == sorted(scores, reverse=True)
    assert page.one("#head [aria-sort=descending]").text.startswith("F1, residues")
    assert page.js("return [...document.getElementById('scope').options].map(each => each.textContent)") == [
        "everything", "concepts", "amino acids", "families",
    ]  # fmt: skip


def test_finds_by_concept_and_filters_by_it(page: Browser) -> None:
    page.js("document.getElementById('scope').value = 'concepts'")
    page.type("zinc finger")
    assert set(page.column(2)) == {ZINC_FINGER}
    assert page.one(".row mark").text == ZINC_FINGER
    page.type("")
    page.one("#annotated").click()
    page.until(lambda: page.count() == "27 of 192 features")  # 9 features of 3 layers carry a planted concept
    assert min(float(text) for text in page.column(3)) >= 0.3


def test_residues_are_coloured_by_activation(page: Browser, reported: PlantedProteinRun) -> None:
    page.open(reported.dashboard_file, "#layer=1&feature=0")
    page.until(lambda: page.all("#panel-examples .window"))
    examples = FEATURE_EXAMPLES.read(reported.layer_results(1) / FEATURE_EXAMPLES.file)
    own = examples[examples["feature"] == 0].sort_values("rank")
    windows = page.all("#panel-examples .window")
    assert [window.text for window in windows] == own["residues"].tolist()
    row = own.iloc[0]
    coloured = page.js("return [...arguments[0].children].map(each => each.style.backgroundColor)", windows[0])
    opacity = [float(re.search(r"([\d.]+)\)$", colour)[1]) if colour else 0.0 for colour in coloured]
    assert [value > 0 for value in opacity] == [value > 0 for value in row["activations"]]
    assert opacity.index(max(opacity)) == row["position"] - row["start"]
    strongest = windows[0].find_element("css selector", ".strongest")
    assert strongest.get_attribute("title").startswith(f"residue {row['position']}: activation")


def test_scores_of_residues_and_of_spans_stand_in_tables_of_their_own(page: Browser) -> None:
    page.click_row()
    page.until(lambda: page.all("#panel-concepts table"))
    tables = page.js(
        "return [...document.querySelectorAll('#panel-concepts table')].map(each => [...each.rows].map(row => [...row.cells].map(cell => cell.textContent)))"
    )
    assert [table[0] for table in tables] == [
        ["Concept", "Precision", "Recall", "F1", "q"], ["Concept", "Precision", "Recall", "F1", "Spans"],
    ]  # fmt: skip
    assert tables[0][1][0] == tables[1][1][0] == ZINC_FINGER
    assert float(tables[0][1][3]) != float(tables[1][1][3])


def test_names_with_markup_are_text(page: Browser) -> None:
    page.type("ntpase")
    assert CONCEPTS["PF00071"][0] in page.column(2)
    page.click_row()
    page.until(lambda: page.all("#panel-examples .window"))
    assert page.js("return document.querySelectorAll('img, main b, main script').length") == 0


@pytest.mark.parametrize(
    "plan",
    [ProteinPlan(layers=1, spans=False), ProteinPlan(layers=1, labels=False, examples=False)],
    ids=["no spans", "no labels"],
)
def test_poorer_runs(browser: Browser, tmp_path: Path, plan: ProteinPlan) -> None:
    run = planted_proteins(tmp_path, plan)
    run_task(run, 0)
    browser.open(run.dashboard_file)
    assert browser.count() == "64 features"
    titles = browser.js("return [...document.getElementById('head').children].map(each => each.textContent)")
    assert ("Best concept" in titles) == plan.spans
    assert ("AUROC" in titles) == plan.labels
    assert browser.one("#annotated").is_displayed() == plan.spans
    browser.click_row()
    browser.until(lambda: browser.all("#panel-units .bars"))
    assert bool(browser.all("#panel-examples")) == plan.examples
    assert browser.errors() == []
