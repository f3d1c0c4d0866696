"""dashboard.html in a real browser, from the disk, with the network cut."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from chromium import Browser, Keys
from planted_run import MARKERS, MARKUP, Plan, PlantedRun, planted_run

from sae_genomics.artifacts import ANNOTATION_NULLS, FEATURE_CELL_TYPES, FEATURE_TERMS, FEATURES
from sae_genomics.execute import execute
from sae_genomics.stages import stage_named

pytestmark = pytest.mark.browser

MOST_ROWS = 80  # row elements at once, whatever the number of features


@pytest.fixture(scope="module")
def dashboard(finished: PlantedRun) -> Path:
    """The page of the finished run."""
    return finished.dashboard_file


def test_opens_with_every_feature(page: Browser, finished: PlantedRun) -> None:
    assert page.count() == "600 features"
    assert 10 < len(page.rows()) < MOST_ROWS
    assert page.one("#status").text == ""
    assert page.js("return document.getElementById('layers').rows.length") == 4
    sources = page.js("return document.getElementById('sources').innerText")
    assert sources.count("SAE features") == sources.count("raw neurons") == 3
    assert sources.count("0.9, max 2") >= 6  # the planted null, of features and neurons
    assert page.one("#headline").text.startswith("Above chance in layers 0, 1 and 2: more features match")
    assert page.js("return document.getElementById('headlines').children.length") == 3
    links = page.js("return [...document.querySelectorAll('#facts a')].map(each => [each.textContent, each.href])")
    assert [name for name, _ in links] == ["annotations.parquet", "annotations.tsv"]
    assert all(href == (finished.results / name).absolute().as_uri() for name, href in links)


@pytest.mark.parametrize(
    ("title", "index", "descending"),
    [("Specificity", 9, True), ("Fires in", 8, True), ("AUROC", 5, True), ("Layer", 0, False), ("Feature", 1, False)],
)
def test_sorting(page: Browser, title: str, index: int, descending: bool) -> None:
    def shown() -> np.ndarray:
        return np.array([float(text.rstrip(" %")) for text in page.column(index) if text != "–"])

    page.sort(title)
    first = shown()
    assert (np.diff(first) <= 0).all() if descending else (np.diff(first) >= 0).all()
    assert page.all(f"#head [aria-sort={'descending' if descending else 'ascending'}]")
    page.sort(title)
    second = shown()
    assert (np.diff(second) >= 0).all() if descending else (np.diff(second) <= 0).all()
    assert second[0] != first[0]
    page.one("#grid").send_keys(Keys.END)
    if title in ("Specificity", "AUROC"):  # features that never fire have neither, and stand last whichever way
        assert page.column(index)[-1] == "–"


def test_finds_by_gene(page: Browser) -> None:
    page.type('"ms4a1"')
    assert "best match first" in page.count()
    assert all("MS4A1" in row[3] for row in page.rows())
    assert "CD19+ B genes" in page.column(2)
    ranks = [row[3].split(", ").index("MS4A1") for row in page.rows() if "MS4A1" in row[3].split(", ")]
    assert ranks == sorted(ranks)  # where the gene stands higher, the feature stands higher
    assert page.one(".row mark").text == "MS4A1"
    page.type("")
    assert page.count() == "600 features"


def test_finds_by_cell_type_and_by_term(page: Browser) -> None:
    page.js("document.getElementById('scope').value = 'labels'")
    page.type("monocyte")
    assert page.column(4)[:3] == ["CD14+ Monocyte"] * 3
    page.js("document.getElementById('scope').value = 'terms'")
    page.type("g2/m cycle")  # words in any order
    assert set(page.column(2)) == {"cell cycle: G2/M genes"}
    assert page.count().startswith("12 of 600") or int(page.count().split()[0]) > 5
    page.type("something by chance")  # q = 0.8: no match
    assert page.count().startswith("0 of 600")
    assert page.one("#empty").is_displayed()
    page.one("#reset").click()
    assert page.count() == "600 features"


def test_unit_n_and_null_stand_beside_every_statistic(page: Browser) -> None:
    def texts(selector: str) -> list[str]:
        return page.js("return [...document.querySelectorAll(arguments[0])].map(each => each.textContent)", selector)

    lines = {
        table.file: table.inference.line() for table in (ANNOTATION_NULLS, FEATURES, FEATURE_CELL_TYPES, FEATURE_TERMS)
    }
    overview = texts("#layers-inference .inference")
    assert overview == [
        "Annotated: " + lines[ANNOTATION_NULLS.file],
        "AUROC and q (type): " + lines[FEATURES.file],
        "q (set): " + lines[FEATURE_TERMS.file],
    ]
    for key, file in (("auroc", FEATURES.file), ("label_log10q", FEATURES.file), ("term_log10q", FEATURE_TERMS.file)):
        assert page.js("return document.querySelector(`[data-key=${arguments[0]}]`).title", key).endswith(lines[file])
    page.type('"nkg7"')
    page.click_row()
    page.until(lambda: page.all("#panel-terms table"))
    assert texts("#panel-labels .inference") == [lines[FEATURE_CELL_TYPES.file]]
    assert texts("#panel-terms .inference") == [lines[FEATURE_TERMS.file]]
    assert "Groups" not in page.one("#panel-labels thead").text


def test_groups_stand_beside_cell_types(browser: Browser, tmp_path: Path) -> None:
    run = planted_run(tmp_path, Plan(layers=1, groups=20))
    execute(run, stage_named("report"), 0)
    browser.open(run.dashboard_file)
    browser.type('"nkg7"')
    browser.click_row()
    browser.until(lambda: browser.all("#panel-labels table"))
    rows = browser.js(
        "return [...document.querySelectorAll('#panel-labels tr')].map(row => [...row.cells].map(cell => cell.textContent))"
    )
    assert rows[0][-2:] == ["Cells", "Groups"]
    assert {row[0]: row[-1] for row in rows[1:]}["Dendritic"] == "2"
    assert {row[-1] for row in rows[1:] if row[0] != "Dendritic"} == {"4"}


def test_filters(page: Browser) -> None:
    page.one("#layer").send_keys("1")
    page.until(lambda: page.count() == "200 of 600 features")
    assert set(page.column(0)) == {"1"}
    page.one("#annotated").click()
    n_annotated = int(page.count().split()[0])
    assert 0 < n_annotated < 100
    assert "–" not in page.column(7)
    assert (
        "with names shuffled among genes of the same expression: about 0.9" in page.count()
    )  # the planted null: 0.9 of the units on average


def test_panel_shows_a_feature(page: Browser, finished: PlantedRun) -> None:
    page.type('"nkg7"')
    page.click_row()
    page.until(lambda: page.all("#embedding"))
    layer, feature = page.rows()[0][:2]
    assert page.one("#panel-title").text == f"Layer {layer} · feature {feature}"
    assert page.js("return location.hash") == f"#layer={layer}&feature={feature}"
    genes = [each.text for each in page.all("#panel-units .name")]
    assert genes[:5] == MARKERS["CD56+ NK"]
    widths = page.js(
        "return [...document.querySelectorAll('#panel-units .fill')].map(bar => bar.getBoundingClientRect().width)"
    )
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 50
    assert "CD56+ NK" in page.one("#panel-labels tbody tr").text
    assert "CD56+ NK genes" in page.one("#panel-terms").text
    assert "5 of 8" in page.one("#panel-terms").text
    assert "NKG7, GNLY, KLRD1, PRF1, GZMB" in page.one(".term-genes").text
    page.one("input[value=score]").click()
    assert [each.text for each in page.all("#panel-units .name")] != genes
    page.until(lambda: distinct_colours(page) > 3)
    page.one("input[value=type]").click()
    page.until(lambda: "Monocyte" in page.one(".legend").text)


def distinct_colours(page: Browser) -> int:
    return page.js(
        "const c = document.getElementById('embedding'); const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "const found = new Set(); for (let i = 0; i < d.length; i += 4) if (d[i + 3] === 255) found.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]);"
        "return found.size"
    )


def test_pointing_at_a_cell_names_it(page: Browser) -> None:
    page.click_row()
    page.until(lambda: page.all("#embedding") and distinct_colours(page) > 3)
    box = page.js(
        "const b = document.getElementById('embedding'); b.scrollIntoView(); const r = b.getBoundingClientRect(); return [r.left, r.top, r.width, r.height]"
    )
    for index in np.linspace(0.1, 0.9, 30):
        page.js(
            "document.getElementById('embedding').dispatchEvent(new PointerEvent('pointermove', {clientX: arguments[0], clientY: arguments[1]}))",
            box[0] + index * box[2], box[1] + 0.5 * box[3],
        )  # fmt: skip
    assert "cell_" in page.one("#hovered").text


def test_names_with_markup_are_text(page: Browser) -> None:
    for name in MARKUP[:2]:
        page.js("document.getElementById('scope').value = 'units'")
        page.type(f'"{name}"')
        assert int(page.count().split()[0]) > 0
        assert name in " ".join(page.column(3))
        page.click_row()
        page.until(lambda: page.all("#panel-units .name"))
        assert name in [each.text for each in page.all("#panel-units .name")]
    page.js("document.getElementById('scope').value = 'terms'")
    page.type(MARKUP[0])
    assert MARKUP[0] in page.column(2)[0]
    assert page.js("return document.querySelectorAll('img, main script, header script').length") == 0


def test_injected_code_is_refused(browser: Browser, finished: PlantedRun) -> None:
    """The policy holds even where the escaping is gone: an inline handler does not run, and is reported."""
    browser.open(finished.dashboard_file)
    browser.js(
        "window.harmed = false; document.getElementById('notes').innerHTML = '<img src=x onerror=\"window.harmed = true\">'"
    )
    time.sleep(0.3)
    assert browser.js("return window.harmed") is False
    assert any("Content Security Policy" in message for message in browser.errors())


def test_deep_link_and_keyboard(page: Browser, finished: PlantedRun) -> None:
    page.open(finished.dashboard_file, "#layer=2&feature=17")
    page.until(lambda: page.all("#panel-title"))
    assert page.one("#panel-title").text == "Layer 2 · feature 17"
    assert (
        page.js("const r = document.querySelector('.row[aria-selected=true]'); return r && r.children[1].textContent")
        == "17"
    )
    page.one("body").send_keys(Keys.ESCAPE)
    assert not page.one("#panel").is_displayed()
    assert page.js("return location.hash") == ""
    page.js("document.getElementById('grid').focus()")
    page.one("#grid").send_keys(Keys.HOME, Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ENTER)
    page.until(lambda: page.one("#panel").is_displayed())
    third = page.js("return document.getElementById('grid-row-2').children[1].textContent")
    assert page.one("#panel-title").text.endswith(f"feature {third}")
    page.one("[aria-label='next feature in the list']").click()
    fourth = page.js("return document.getElementById('grid-row-3').children[1].textContent")
    assert page.one("#panel-title").text.endswith(f"feature {fourth}")
    page.js("location.hash = '#layer=0&feature=99999'")
    page.until(lambda: "no feature 99999" in page.one("#status").text)


def test_pressing_a_gene_searches_for_it(page: Browser) -> None:
    page.click_row()
    page.until(lambda: page.all("#panel-units .find"))
    gene = page.one("#panel-units .find").text
    page.one("#panel-units .find").click()
    assert page.js("return document.getElementById('search').value") == f'"{gene}"'
    assert all(gene in row[3] for row in page.rows())


def test_dark_and_light(page: Browser) -> None:
    colour = "return getComputedStyle(document.body).backgroundColor"
    before = page.js(colour)
    page.one("#theme").click()
    assert page.js(colour) != before


@pytest.mark.parametrize(
    "plan",
    [Plan(embedding=False, layers=1), Plan(annotated=False, layers=1), Plan(terms=False, layers=1, d_sae=1)],
    ids=["no embedding", "no annotation", "one feature"],
)
def test_poorer_data(browser: Browser, tmp_path: Path, plan: Plan) -> None:
    run = planted_run(tmp_path, plan)
    execute(run, stage_named("report"), 0)
    browser.open(run.dashboard_file)
    assert browser.count() == f"{plan.d_sae} features"
    browser.click_row()
    browser.until(lambda: browser.all("#panel-cells p, #panel-cells table"))
    assert bool(browser.all("#embedding")) == plan.embedding
    assert browser.errors() == []


def test_nothing_done_yet(browser: Browser, tmp_path: Path) -> None:
    import shutil

    run = planted_run(tmp_path, Plan(layers=1, d_sae=10))
    shutil.rmtree(run.results)
    execute(run, stage_named("report"), 0)
    browser.open(run.dashboard_file)
    assert browser.one("#status").text == "No layer's features are done yet."
    assert "not done" in browser.js("return document.getElementById('notes').textContent")
    assert browser.errors() == []


@pytest.mark.slow
def test_stays_quick_with_many_features(browser: Browser, tmp_path: Path) -> None:
    """4 layers of 20 000 features: elements stay few. Times are printed, not asserted."""
    run = planted_run(tmp_path, Plan(layers=4, d_sae=20_000, n_cells=300))
    started = time.monotonic()
    execute(run, stage_named("report"), 0)
    print(
        f"\nreport of 80,000 features: {time.monotonic() - started:.1f} s, page {run.dashboard_file.stat().st_size / 1e6:.1f} MB"
    )
    browser.open(run.dashboard_file)
    assert browser.count() == "80,000 features"
    print(f"opened: first rows after {browser.js('return document.documentElement.dataset.ready')} ms")
    timed = {
        "sort": "document.querySelector('#head [data-key=firing_rate] button').click()",
        "scroll to the end": "const g = document.getElementById('grid'); g.scrollTop = g.scrollHeight; g.dispatchEvent(new Event('scroll'))",
        "back to the middle": "const g = document.getElementById('grid'); g.scrollTop = g.scrollHeight / 2; g.dispatchEvent(new Event('scroll'))",
    }
    for name, code in timed.items():
        took = browser.driver.execute_async_script(
            f"const t = performance.now(); {code}; requestAnimationFrame(() => requestAnimationFrame(() => arguments[0](performance.now() - t)))".replace(
                "arguments[0]", "done"
            ).replace("const t", "const done = arguments[0]; const t", 1)
        )
        print(f"{name}: {took:.0f} ms")
        assert 5 < len(browser.rows()) < MOST_ROWS
    started = time.monotonic()
    browser.type("cd79a")
    print(f"typing and search, with 250 ms of waiting: {1000 * (time.monotonic() - started):.0f} ms; {browser.count()}")
    assert 5 < len(browser.rows()) < MOST_ROWS
    assert browser.js("return document.querySelectorAll('*').length") < 3000
    browser.click_row()
    browser.until(lambda: browser.all("#embedding"))
    assert browser.errors() == []
