"""A feature's evidence by source in a real browser, from tables with known numbers; and a page of 100,000 features."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chromium import Browser
from many_features import dense_layers, features_table, write_page

from sae_genomics.artifacts import ANNOTATION_NULLS, FEATURE_TERMS
from sae_genomics.report.collect import LayerResults
from sae_genomics.report.term_links import page_of
from sae_genomics.validation.names import feature_names

pytestmark = pytest.mark.browser

N_FEATURES = 4
MOST_BYTES, MOST_SECONDS = 30_000_000, 2.0
# feature, source, id, name, shared genes, n_term, odds ratio, its interval, q_value, q_matched, q_source_matched, explained by
ROWS = (
    (0, "omim", "OMIM:154700", "Marfan syndrome", "FBN1,TGFBR2,FBN2,LTBP2,ADAMTS10", 40, 85.0, (20.0, 361.25), 1e-9, 1e-8, 1e-9, ""),
    (0, "hpo", "HP:0001519", "Disproportionate tall stature", "FBN1,FBN2", 30, 20.0, (4.0, 90.0), 1e-4, 0.003, 0.001, ""),
    (0, "reactome", "R-HSA-1474244", "Extracellular matrix organization", "FBN1,FBN2,LTBP2", 300, 9.0, (3.0, 27.0), 1e-5, 0.002, 0.001, "GO:1"),
    *((0, "go", f"GO:{n}", f"fibril assembly {n}", "FBN1,FBN2", 20, 50.0, (10.0, 250.0), 1e-6, 1e-4 * n, 1e-4 * n, "") for n in range(1, 6)),
    (1, "go", "GO:9", "axon guidance", "SLIT2", 90, 7.0, (1.1, 44.0), 0.001, 0.2, 0.02, ""),
    (2, "builtin", "chance", "chance", "ACTB", 90, 1.2, (0.2, 8.0), 0.6, 1.0, 1.0, ""),
)  # fmt: skip


def _layer() -> LayerResults:
    rows = [
        {"feature": feature, "collection": source, "term_id": key, "term": name if key == name else f"{name} ({key})", "genes": genes,
         "n_overlap": genes.count(",") + 1, "n_term": n_term, "n_top": 80, "n_background": 12_000, "odds_ratio": odds, "odds_ratio_low": low,
         "odds_ratio_high": high, "p_value": q / 100, "p_matched": q / 50, "q_value": q, "q_source": q, "q_matched": matched,
         "q_source_matched": own, "explained_by": explained}
        for feature, source, key, name, genes, n_term, odds, (low, high), q, matched, own, explained in ROWS
    ]  # fmt: skip
    terms = pd.DataFrame(rows)
    nulls = [
        {"source": source, "units": "features", "collection": collection, "repeat": repeat, "n_units": 50, "n_annotated": n, "share": n / 50,
         "n_tests": 100, "n_terms": n, "terms_per_100_units": 2.0 * n}
        for collection in ("all", "omim", "hpo", "reactome", "go", "builtin")
        for source, numbers in (("features", [20]), ("matched_genes", [0, 1, 2]), ("shuffled_genes", [0, 0, 0]))
        for repeat, n in enumerate(numbers)
    ]  # fmt: skip
    sources = dict.fromkeys(("omim", "hpo", "reactome", "go", "builtin"), ())
    tables = {
        "features": features_table(N_FEATURES, np.array(["FBN1", "SLIT2", "ACTB", None], dtype=object), np.random.default_rng(0)),
        "terms": terms, "names": feature_names(terms, np.arange(N_FEATURES), sources, 0.05),
        "annotation_nulls": pd.DataFrame(nulls),
    }  # fmt: skip
    inference = {"terms": FEATURE_TERMS.inference, "annotation_nulls": ANNOTATION_NULLS.inference}
    return LayerResults(3, {}, tables, inference={name: said for name, said in inference.items() if said is not None})


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = Path(tmp_path_factory.mktemp("evidence")) / "dashboard.html"
    write_page(path, [_layer()])
    return path


def _open(page: Browser, feature: int) -> None:
    page.js(f"location.hash = '#layer=3&feature={feature}'")
    page.until(lambda: page.one("#panel-title").text.endswith(f"feature {feature}"))


def _texts(page: Browser, selector: str) -> list[str]:
    return page.js("return [...document.querySelectorAll(arguments[0])].map(each => each.textContent)", selector)


def _cells(page: Browser, name: str) -> list[str]:
    """The four cells of numbers below a term's name."""
    found = page.js(
        "return [...document.querySelectorAll('#panel-terms tbody')].filter(each => each.querySelector('.find').textContent === arguments[0])"
        ".map(each => [...each.rows[1].cells].map(cell => cell.innerText))",
        name,
    )
    assert len(found) == 1
    return [text.replace("\n", " ") for text in found[0]]


def test_evidence_stands_by_source_beside_its_null(page: Browser) -> None:
    _open(page, 0)
    assert _texts(page, "#panel-terms h4") == ["omim", "go", "reactome", "hpo"]  # the strongest source first
    nulls = _texts(page, "#panel-terms .source-null")
    assert nulls == ["40.0 % of the layer's features match this source; by chance 2.0 %."] * 4
    assert _cells(page, "Marfan syndrome") == ["5 of 40 by chance 0.27", "85 20 to 360", "1e-9", "1e-8"]
    assert _cells(page, "Extracellular matrix organization") == ["3 of 300 by chance 2", "9 3 to 27", "1e-5", "0.002"]
    genes = _texts(page, "#panel-terms .term-genes")
    assert genes[0] == "FBN1, TGFBR2, FBN2, LTBP2, ADAMTS10"
    assert "FBN1, FBN2, LTBP2" in genes
    assert _texts(page, "#panel-terms .explained") == ["Explained by the more specific fibril assembly 1."]
    assert _texts(page, "#panel-terms details.more summary") == ["2 more of go"]
    assert FEATURE_TERMS.inference is not None
    assert FEATURE_TERMS.inference.line() in page.one("#panel-terms").text


def test_name_stands_beside_the_number(page: Browser) -> None:
    rows = {row[1]: row for row in page.rows()}
    assert rows["0"][2] == "Marfan syndrome"
    assert rows["1"][2] == rows["2"][2] == rows["3"][2] == "unnamed"
    _open(page, 0)
    assert page.one("#panel-name").text == "Marfan syndrome OMIM:154700"
    said = page.js("return document.getElementById('panel-name').nextElementSibling.textContent")
    assert said.startswith("Named after omim, q 1e-8 among genes of the same expression.")
    _open(page, 3)
    assert page.one("#panel-name").text == "unnamed: no gene set passes"


def test_what_does_not_pass_is_folded_away(page: Browser) -> None:
    _open(page, 2)
    assert "No term passes in any source." in page.one("#panel-terms").text
    assert _texts(page, "#panel-terms .without summary") == ["No term passes, but these come closest: builtin"]
    assert not page.one("#panel-terms .without table").is_displayed()
    _open(page, 1)  # passes among the terms of its source alone
    assert _texts(page, "#panel-terms h4") == ["go"]
    assert _cells(page, "axon guidance")[3] == "0.2 in go 0.02"
    _open(page, 3)
    assert "shares no gene" in page.one("#panel-terms").text or "share no gene" in page.one("#panel-terms").text


def test_links_out_are_those_of_the_ids(page: Browser) -> None:
    _open(page, 0)
    links = page.js(
        "return [...document.querySelectorAll('#panel-terms a.out')].map(each => [each.textContent, each.href, each.rel, each.target])"
    )
    assert {text: href for text, href, _, _ in links} == {
        row[2]: page_of(row[1], row[2]) for row in ROWS if row[0] == 0
    }
    assert all(rel == "noopener noreferrer" and target == "_blank" for _, _, rel, target in links)


def test_finds_by_disease_by_phenotype_and_by_id(page: Browser) -> None:
    assert _texts(page, "#scope option") == [
        "everything",
        "genes",
        "gene sets",
        "diseases and traits",
        "phenotypes",
        "cell types",
    ]
    for scope, query, found in (
        ("diseases", "marfan", ["0"]), ("phenotypes", "marfan", []), ("phenotypes", "tall stature", ["0"]), ("diseases", "tall stature", []),
        ("terms", "omim:154700", ["0"]), ("all", "HP:0001519", ["0"]), ("terms", "axon", ["1"]), ("terms", "chance", []),
    ):  # fmt: skip
        page.js("document.getElementById('scope').value = arguments[0] === 'diseases' ? 'disease' : arguments[0] === 'phenotypes' ? 'phenotype' : arguments[0]", scope)  # fmt: skip
        page.type(query)
        assert page.column(1) == found, (scope, query)
    page.type("")


@pytest.mark.slow
def test_100000_features_open_at_once(browser: Browser, tmp_path: Path) -> None:
    """Five layers of 20,000 features with evidence of twelve sources: size, and seconds until the first rows can be read."""
    path = tmp_path / "dashboard.html"
    layers, sample = dense_layers(5, 20_000)
    write_page(path, layers, sample)
    size, openings = path.stat().st_size, []
    for _ in range(12):  # other tests may keep every core busy for a while
        browser.open(path)
        openings.append(browser.opening())
        if openings[-1]["ready"] <= MOST_SECONDS:
            break
    print(f"\n{size / 1e6:.1f} MB; {openings}")
    assert browser.count() == "100,000 features"
    assert size <= MOST_BYTES
    assert min(each["ready"] for each in openings) <= MOST_SECONDS
    started = time.monotonic()
    browser.js("document.getElementById('scope').value = 'disease'")
    browser.type("juvenile renal")
    print(f"typing and search, with 250 ms of waiting: {1000 * (time.monotonic() - started):.0f} ms; {browser.count()}")
    assert 0 < int(browser.count().split()[0].replace(",", "")) < 100_000
    browser.click_row()
    browser.until(lambda: browser.all("#panel-terms .source-null"))
    assert browser.errors() == []
