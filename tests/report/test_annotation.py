"""What is above chance, in words, tables and figures, from annotation_nulls.parquet whose content is known."""

from __future__ import annotations

import pandas as pd
import pytest

from sae_genomics.report import figures_annotation
from sae_genomics.report.annotation import annotation
from sae_genomics.report.annotation_wording import beside, headline, opening, verdict
from sae_genomics.report.section_annotation import HEADER, layer_table
from sae_genomics.report.summary import LayerSummary
from sae_genomics.validation.null_rows import untested_rows


def rows(
    units: str, n_units: int, n_annotated: int, n_terms: int, matched: list[int], shuffled: list[int]
) -> list[dict]:
    def row(source: str, repeat: int, n: int, terms: int) -> dict:
        share, per_100 = n / n_units, 100 * terms / n_units
        return {
            "source": source, "units": units, "collection": "all", "repeat": repeat, "n_units": n_units, "n_annotated": n, "share": share,
            "n_tests": n_units, "n_terms": terms, "terms_per_100_units": per_100,
        }  # fmt: skip

    nulls = [row("matched_genes", repeat, n, n) for repeat, n in enumerate(matched)]
    nulls += [row("shuffled_genes", repeat, n, n) for repeat, n in enumerate(shuffled)]
    return [row(units, 0, n_annotated, n_terms), *nulls]


def layer(number: int, *parts: list[dict]) -> LayerSummary:
    return LayerSummary(number, annotation=annotation(pd.DataFrame([row for part in parts for row in part])))


FEATURES = rows("features", 120, 22, 9, [0, 1, 0, 0, 0, 0, 2, 0, 0, 0], [0] * 10)
NEURONS = rows("neurons", 128, 44, 17, [4] * 10, [0] * 10)
PCA = rows("pca", 128, 12, 7, [1] * 10, [0] * 10)
PASSES_BY_CHANCE = rows("features", 120, 22, 9, [21, 22, 25], [0, 0, 0])


def test_the_headline_of_a_layer() -> None:
    found = layer(2, FEATURES, NEURONS, PCA).annotation
    assert found is not None
    assert headline(2, found) == (
        "Layer 2: 22 of 120 features (18.3 %) match a gene set; with names shuffled among genes of the same expression 0.3 (0.2 %) on "
        "average, at most 2."
    )
    assert beside(found) == "The features find 9 different gene sets; raw neurons 17 and principal components 7."
    one = layer(0, rows("features", 50, 1, 1, [0, 0], [0, 0])).annotation
    assert one is not None
    assert headline(0, one) == (
        "Layer 0: 1 of 50 features (2.0 %) matches a gene set; with names shuffled among genes of the same expression none in 2 shuffles."
    )
    assert beside(one) == "The features find 1 gene set."


def test_beating_the_plain_shuffle_alone_is_not_above_chance() -> None:
    tracking = layer(0, PASSES_BY_CHANCE)
    assert tracking.annotation is not None
    assert max(tracking.annotation.features.shuffled.n_annotated) == 0
    assert "nothing is above chance" in verdict([tracking])
    assert verdict([tracking, layer(1, FEATURES)]).startswith("Above chance in layer 1: more features match")
    assert verdict([tracking, layer(1, FEATURES)]).endswith("Not above chance in layer 0.")
    assert verdict([tracking, layer(1, PASSES_BY_CHANCE)]).startswith("In none of the 2 layers")
    assert verdict([]) == ""


def test_many_layers_are_told_in_ranges() -> None:
    layers = [layer(number, FEATURES, NEURONS) for number in range(20)] + [layer(20, PASSES_BY_CHANCE, NEURONS)]
    text = opening(layers, 0.05)
    assert "\n" not in text
    assert "Not above chance in layer 20." in text
    assert "Per layer 18.3 % of the features match a gene set; with names shuffled" in text
    assert "0.2 % to 18.9 %" in text
    assert "They find 9 different gene sets per layer; raw neurons 17." in text


def test_the_table_has_every_source_and_no_ratio() -> None:
    nothing = untested_rows("untrained", [])
    found = layer(2, FEATURES, NEURONS, PCA, nothing).annotation
    assert found is not None
    lines = layer_table(found).split("\n")[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [row[0] for row in cells] == [
        "SAE features", "raw neurons", "principal components", "features on an untrained model",
    ]  # fmt: skip
    assert cells[0][1:] == [
        "120", "22 (18.3 %)", "0.3 (0.2 %), max 2", "0.0 (0.0 %), max 0", "9", "0.3, max 2", "0.0, max 0", "7.5", "0.2, max 1.7",
        "0.0, max 0.0",
    ]  # fmt: skip
    assert cells[3][1:] == ["0", *["–"] * (len(HEADER) - 2)]
    assert all(len(row) == len(HEADER) for row in cells)


def test_a_figure_shows_every_source_with_both_nulls() -> None:
    each = layer(2, FEATURES, NEURONS, PCA, untested_rows("untrained", []))
    assert each.annotation is not None
    figure = figures_annotation.layer_annotation(2, each.annotation, 0.05)
    assert figure is not None
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles == ["Annotated units", "Different gene sets", "Gene sets per 100 units"]
    for axis, wanted in zip(
        figure.axes, ([22 / 120, 44 / 128, 12 / 128], [9, 17, 7], [7.5, 1700 / 128, 700 / 128]), strict=True
    ):
        assert [bar.get_width() for bar in axis.patches] == pytest.approx(wanted)
        assert len(axis.containers) == 3 + 3 * 2  # bars, and per source two nulls with their range
        assert axis.get_xlim()[0] == 0
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["SAE features (120)", "raw neurons (128)", "principal components (128)"]
    assert figures_annotation.annotation([each], 0.05) is None  # one layer has nothing to run along
    assert figures_annotation.annotation([each, layer(3, FEATURES)], 0.05) is not None


def test_the_dashboard_gets_the_same_numbers() -> None:
    found = layer(2, FEATURES, untested_rows("neurons", [])).annotation
    assert found is not None
    features, neurons = found.facts
    assert (features["n_annotated"], features["n_terms"], features["terms_per_100"]) == (22, 9, 7.5)
    assert features["matched"] == {
        "n_annotated": pytest.approx(0.3), "n_annotated_max": 2, "share": pytest.approx(0.0025), "n_terms": pytest.approx(0.3),
        "n_terms_max": 2, "terms_per_100": pytest.approx(0.25),
    }  # fmt: skip
    assert features["shuffled"]["n_annotated"] == 0
    assert neurons["share"] is None
    assert set(neurons["matched"].values()) == {None}


def test_without_the_features_own_row_there_is_nothing_to_say() -> None:
    assert annotation(pd.DataFrame(NEURONS)) is None
    nothing = layer(0, untested_rows("features", [])).annotation
    assert nothing is not None
    assert headline(0, nothing) == "Layer 0: no feature has a gene that could be tested."
    assert figures_annotation.layer_annotation(0, nothing, 0.05) is None
