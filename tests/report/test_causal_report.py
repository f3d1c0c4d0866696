"""The report on interventions, of small planted tables: what it says, that any part may be missing, its figures and its panel."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sae_genomics.causal.section import CausalConfig
from sae_genomics.data.proteins.kind import Proteins
from sae_genomics.report import figures_causal, section_causal
from sae_genomics.report.causal import Causal, causal, of
from sae_genomics.report.collect import LayerResults
from sae_genomics.report.contributions.causal import CAUSAL
from sae_genomics.report.dashboard_causal import CausalPanel
from sae_genomics.report.dashboard_panel import PanelLayer, PanelSettings
from sae_genomics.report.summary import LayerSummary
from sae_genomics.report.wording import CELL_WORDING, Wording, sequence_wording

PROTEINS = sequence_wording("proteins", Proteins.nouns)
NAMES = ("features", "nulls", "screen", "dose", "curves", "reads_writes", "steering", "genes")


def tables() -> dict[str, pd.DataFrame]:
    """Feature 0 is specific, reads and steers; feature 1 does nothing; two others were never taken out."""
    effects = pd.DataFrame([
        {"feature": feature, "outcome": outcome, "masked": masked, "n_items": 8, "n_groups": None, "n_own": 5, "effect_own": own,
         "effect_matched": 0.01, "specificity": own * 5, "specificity_low": own * 5 - 0.5, "specificity_high": own * 5 + 0.5, "norm": 2.0,
         "p_direction": p, "p_feature": p, "p_permuted": p, "p_targets": p, "p_value": p, "q_value": p, "sampled": False}
        for outcome, masked in (("token", True), ("embedding", False))
        for feature, own, p in ((0, 0.4, 0.001), (1, 0.0, 0.7))
    ])  # fmt: skip
    nulls = pd.DataFrame([
        {"feature": 0, "outcome": "token", "masked": True, "null": null, "draw": draw, "specificity": value}
        for null in ("direction", "feature", "permuted", "targets") for draw, value in enumerate((-0.4, 0.0, 0.4))
    ])  # fmt: skip
    screen = pd.DataFrame(
        {"feature": range(4), "n_items": 9, "first_order": [4.0, 3, 2, 1], "exact": [8.0, 6, 4, 2], "sampled": False}
    )
    dose = pd.DataFrame([
        {"feature": feature, "dose": dose, "own": slope * (dose - 1), "matched": 0.0, "off_target": 0.1, "stopped": False, "n_items": 8}
        for feature, slope in ((0, 1.0), (1, 0.0)) for dose in (0.0, 1.0, 2.0, 4.0)
    ])  # fmt: skip
    curves = pd.DataFrame({"feature": [0, 1], "n_doses": 4, "monotonicity": [1.0, 0.0], "slope": [1.0, 0.0], "gradient": [1.0, 0.0],
                           "saturation": [1.0, np.nan], "stopped_above": [np.nan, 4.0], "stopped_below": np.nan})  # fmt: skip
    scores = pd.DataFrame({
        "feature": range(4), "n_tokens": 99, "own_units": ["CD79A,MS4A1", "LYZ", None, "GNLY"], "reads": [0.95, 0.6, np.nan, 0.5], "reads_random": 0.55,
        "p_reads": [0.01, 0.4, np.nan, 0.6], "q_reads": [0.02, 0.5, np.nan, 0.6], "writes": [2.0, 0.0, np.nan, np.nan], "writes_random": [0.1, 0.0, np.nan, np.nan],
        "p_writes": [0.001, 0.7, np.nan, np.nan], "q_writes": [0.001, 0.7, np.nan, np.nan], "outcome": "token", "monotone": [True, False, None, None],
        "own_most": [3.0, 0.0, np.nan, np.nan], "role": ["both", "neither", None, None], "steers": [True, False, None, None],
    })  # fmt: skip
    steering = pd.DataFrame([
        {"from_label": "B", "to_label": "NK <b>", "method": method, "dose": dose, "norm": 3.0, "n_items": 8, "n_groups": None,
         "toward": 0.4 * dose, "toward_low": 0.3 * dose, "toward_high": 0.5 * dose, "cosine_before": -0.5, "cosine_after": 0.1,
         "nearer_before": 0.0, "nearer_after": 0.5, "markers": 1.0, "markers_low": 0.5, "markers_high": 1.5, "n_random": 20,
         "features": None, "marker_units": "GNLY",
         **{f"{name}_{kind}{end}": 0.1 for name in ("toward", "markers") for kind in ("random", "shuffled") for end in ("", "_high")},
         "p_toward": 0.048, "q_toward": 0.049, "p_markers": 0.3, "q_markers": 0.4}
        for method in ("means", "features") for dose in (1.0, 8.0)
    ])  # fmt: skip
    genes = pd.DataFrame([
        {"feature": 0, "unit": 3, "unit_id": "ENSG3", "unit_name": "CD79A", "edit": edit, "share_on_unit": 0.6, "n_items": 6, "n_groups": None,
         "correlation": 0.5, "correlation_low": 0.2, "correlation_high": 0.8, "correlation_random": 0.0, "correlation_random_high": 0.1,
         "p_correlation": 0.048, "q_correlation": 0.05, "effect": 0.1, "effect_random": 0.1, "effect_random_high": 0.2, "p_effect": 0.5, "q_effect": 0.5,
         "effect_feature": 0.05, "n_random": 20}
        for edit in ("knock_out", "over_express")
    ])  # fmt: skip
    return dict(zip(NAMES, (effects, nulls, screen, dose, curves, scores, steering, genes), strict=True))


def results(without: tuple[str, ...] = ()) -> LayerResults:
    return LayerResults(2, tables={f"causal_{name}": table for name, table in tables().items() if name not in without})


def contents(found: Causal | None, wording: Wording = CELL_WORDING, ablation: str = "zero") -> Any:
    return SimpleNamespace(
        layers=[LayerSummary(2, parts={"causal": found})],
        wording=wording,
        config=SimpleNamespace(causal=CausalConfig(ablation=ablation)),
        dashboard="dashboard.html",
        figure=lambda name, text: f"![{text}]({name})",
    )


def test_the_section_says_how_many_change_what_and_against_what() -> None:
    text = section_causal.section(contents(causal(results())))
    first = text.split("\n\n")[1]
    assert "Of 2 features" in first
    assert "1 changes what the model predicts of the genes that they fire on more than each of four nulls" in first
    for words in ("random directions", "random features", "other tokens", "random targets"):
        assert words in first
    assert "[0](dashboard.html#layer=2&feature=0)" in text
    assert "CD79A, MS4A1" in text
    assert "rank correlation with the exact effects is 1.00" in text
    assert "1 of 2" in text.split("### What features read")[1].split("###")[0]  # one steers
    assert "NK &lt;b&gt;" in text and "<b>" not in text.replace("<br>", "")  # noqa: PT018
    assert "| deleted |" in text


@pytest.mark.parametrize(
    ("ablation", "said"),
    [
        ("zero", "taken out of the model one by one"),
        ("mean", "set to their mean at the gene one by one"),
        ("resample", "set to their value at a random gene token of the same gene one by one"),
    ],
)
def test_the_edit_is_named(ablation: str, said: str) -> None:
    text = section_causal.section(contents(causal(results()), ablation=ablation))
    assert said in text
    assert ("A feature is taken out by subtracting its part" in text) == (ablation == "zero")
    assert ("its mean over" in text) == (ablation == "mean")


def test_nothing_specific_is_said_plainly() -> None:
    frames = results()
    frames.tables["causal_features"] = tables()["features"].assign(q_value=0.6)
    text = section_causal.finding(contents(causal(frames)))
    assert "none changes what the model predicts" in text
    assert "40.0 % of the way" in text or "320.0 % of the way" in text


def test_visible_tokens_have_a_sentence_of_their_own() -> None:
    effects = results().tables["causal_features"]
    hidden = effects[effects["outcome"] == "token"].assign(masked=True, q_value=0.6)
    frames = results()
    frames.tables["causal_features"] = pd.concat([hidden, hidden.assign(masked=False, q_value=0.01)], ignore_index=True)
    text = section_causal.finding(contents(causal(frames)))
    n = len(hidden)
    assert "none changes what the model predicts" in text
    assert (
        f"That is where gene tokens are hidden from the model. Where it sees them, and can copy them, {n} of {n} do"
        in text
    )
    frames.tables["causal_features"] = hidden.assign(masked=False)
    assert "hidden from the model" not in section_causal.finding(contents(causal(frames)))


def test_proteins_are_told_of_in_their_own_nouns() -> None:
    found = causal(results(without=("genes",)))
    text = section_causal.section(contents(found, PROTEINS)) + section_causal.finding(contents(found, PROTEINS))
    for word in ("cell", "gene"):
        assert word not in text.lower().replace("causal_genes", ""), word
    assert "residue" in text
    assert "held-out proteins" in text


@pytest.mark.parametrize("missing", NAMES)
@pytest.mark.parametrize("wording", [CELL_WORDING, PROTEINS], ids=["cells", "proteins"])
def test_any_part_may_be_missing(missing: str, wording: Wording) -> None:
    page = contents(causal(results(without=(missing,))), wording)
    assert section_causal.section(page).startswith("## What features do")
    section_causal.finding(page)
    for draw in CAUSAL.figures(page).values() if wording is CELL_WORDING else ():
        draw()


@pytest.mark.parametrize("only", NAMES)
def test_one_table_alone_is_enough(only: str) -> None:
    page = contents(causal(results(without=tuple(name for name in NAMES if name != only))))
    assert section_causal.section(page).startswith("## What features do")
    for draw in CAUSAL.figures(page).values():
        draw()


def test_without_the_stage_nothing_is_said() -> None:
    page = contents(causal(LayerResults(2)))
    assert section_causal.section(page) == section_causal.finding(page) == ""
    assert CAUSAL.figures(page) == {}
    assert CAUSAL.caveats(page) == []


def test_an_empty_table_says_why() -> None:
    found = results()
    found.tables |= {"causal_features": tables()["features"].head(0), "causal_steering": tables()["steering"].head(0)}
    found.notes = {"causal_features": "nothing is held out", "causal_steering": "steering needs two labels"}
    text = section_causal.section(contents(causal(found)))
    assert "No feature was edited: nothing is held out." in text
    assert "Nothing was steered: steering needs two labels." in text


def test_figures_are_drawn() -> None:
    layers = of([LayerSummary(2, parts={"causal": causal(results())})])
    drawn = [
        figures_causal.effects(layers),
        figures_causal.doses(layers),
        figures_causal.reads_writes(layers),
        figures_causal.steering(layers),
    ]
    assert all(figure is not None for figure in drawn)
    lines = drawn[1].axes[0].get_lines()  # type: ignore[union-attr]
    assert lines[0].get_ydata().tolist() == [-1.0, 0.0, 1.0, 3.0]


def test_the_panel_has_every_outcome_and_dose_of_a_feature() -> None:
    panel = CausalPanel(PanelSettings(SimpleNamespace(causal=CausalConfig()), 5, 2))  # type: ignore[arg-type]
    features = pd.DataFrame({"feature": [0, 1, 2, 3, 4]})
    rows = pd.Series(range(5), index=features["feature"])
    panel.add(PanelLayer(results(), features, rows, 0, 0))
    panel.add(PanelLayer(LayerResults(3), features, rows, 1, 0))  # a layer without the stage
    blocks = panel.blocks()
    assert blocks["causal.length"].tolist() == [2, 2, 0, 0, 0] + [0] * 5  # type: ignore[union-attr]
    assert blocks["doses.length"].tolist() == [4, 4, 0, 0, 0] + [0] * 5  # type: ignore[union-attr]
    assert blocks["columns.causal_log10q"][0] == pytest.approx(-3)  # type: ignore[index]
    assert np.isnan(blocks["columns.reads"][4:]).all()  # type: ignore[index]
    outcomes = [panel.meta()["causal_outcomes"][code] for code in blocks["causal.outcome"]]  # type: ignore[union-attr]
    assert outcomes == ["token", "embedding"] * 2
    assert panel.meta()["causal_roles"] == ["both", "neither"]
