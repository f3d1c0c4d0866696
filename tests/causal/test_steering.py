"""Steering: items go where a planted direction leads, random directions do not, and a file for scanpy holds them."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save_file

from sae_genomics.artifacts.steering import CAUSAL_STEERING
from sae_genomics.causal.markers import MARKER, OTHER, Readout, marker_units, roles
from sae_genomics.causal.samples import Sample
from sae_genomics.causal.steering import write_steering
from sae_genomics.checked_json import write_checked_json
from sae_genomics.errors import UserError
from sae_genomics.models.editing import Predictions
from sae_genomics.tokens import Tokens
from tests.causal.toy_run import ToyModel, encoder_of, tokens_of, toy_run

N_UNITS, D, PER_SIDE = 30, 24, 60
MARKERS = np.arange(4)


class Labelled(ToyModel):
    """Items of B have a step along one direction at every token; markers are predicted from it."""

    def __init__(self, is_b: np.ndarray, step: float):
        super().__init__(D)
        generator = np.random.default_rng(0)
        basis = np.linalg.qr(generator.standard_normal((D, D)))[0].astype(np.float32)
        self.direction, self.is_b, self.step = basis[0], is_b, step
        self.noise = (0.1 * generator.standard_normal((len(is_b), D))).astype(np.float32)

    def weigh(self, batch: Tokens) -> torch.Tensor:
        along = self.step * self.is_b[batch.item]
        return torch.from_numpy(along[:, None] * self.direction + self.noise[batch.item]).float()

    def predict(self, batch: Tokens, x: torch.Tensor) -> torch.Tensor:
        marks = torch.from_numpy(np.isin(batch.unit, MARKERS).astype(np.float32))
        return 1 + marks * (x @ torch.from_numpy(self.direction))


def planted(labels: list[str]) -> tuple[Tokens, pd.DataFrame]:
    """Items of each label, every third held out; items of B have more of the markers."""
    generator = np.random.default_rng(1)
    label = np.repeat(labels, PER_SIDE)
    units = [np.flatnonzero(generator.random(N_UNITS) < 0.9) for _ in label]
    values = [
        1 + generator.random(len(each)) + 5.0 * ((name == "B") & np.isin(each, MARKERS))
        for each, name in zip(units, label, strict=True)
    ]
    items = pd.DataFrame({"label": label, "heldout": np.arange(len(label)) % 2 == 0, "group": None})
    return tokens_of(units, values), items


def steered(
    monkeypatch: pytest.MonkeyPatch, folder: Path, step: float, labels: list[str], **settings: object
) -> pd.DataFrame:
    tokens, items = planted(labels)
    run = toy_run(monkeypatch, folder, tokens, items, N_UNITS, **settings)
    model = Labelled((items["label"] == "B").to_numpy(), step)
    directions = np.stack([model.direction, np.roll(model.direction, 1)])
    write_steering(run, 0, model, encoder_of(directions))  # type: ignore[arg-type]
    return CAUSAL_STEERING.read(folder / CAUSAL_STEERING.file)


def test_items_go_all_the_way_along_the_planted_direction_and_not_along_random_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table = steered(monkeypatch, tmp_path, 3.0, ["A", "B"], steer=[["A", "B"]], steer_doses=[1.0, 2.0])
    assert set(table["method"]) == {"means", "features"}
    first = table[table["dose"] == 1].set_index("method")
    assert first["toward"].to_numpy() == pytest.approx(
        1.0, abs=0.06
    )  # linear: the whole way, and the markers by the step
    assert first["markers"].to_numpy() == pytest.approx(3.0, abs=0.2)
    assert (first["toward_random_high"] < 0.6).all()
    assert (first["toward_shuffled_high"] < 0.6).all()
    assert first["p_toward"].to_numpy() == pytest.approx(1 / 21)
    assert first["p_markers"].to_numpy() == pytest.approx(1 / 21)
    assert (first["nearer_before"] == 0).all()
    double = table[table["dose"] == 2]
    assert (double["nearer_after"] == 1).all()
    assert double["toward"].to_numpy() == pytest.approx(2.0, abs=0.12)
    assert first.loc["features", "features"].split(",")[0] == "0"  # the feature that differs
    assert set(first.loc["means", "marker_units"].split(",")) == {"G0", "G1", "G2", "G3"}


def test_a_concept_vector_steers_where_the_stage_concepts_left_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    direction = Labelled(np.zeros(1), 3.0).direction
    save_file({"vectors": np.stack([np.roll(direction, 3), direction])}, tmp_path / "concepts.safetensors")
    named = [{"concept": "span:B", "kind": "span", "name": "B"}, {"concept": "label:B", "kind": "label", "name": "B"}]
    write_checked_json(tmp_path / "concepts.json", {"concepts": named})
    table = steered(monkeypatch, tmp_path, 3.0, ["A", "B"], steer=[["A", "B"]], steer_doses=[1.0], steer_draws=5)
    found = table.set_index("method").loc["concept"]
    assert found["toward"] == pytest.approx(1.0, abs=0.06)
    assert found["norm"] == pytest.approx(3.0, abs=0.2)  # a unit vector, made as long as the difference of means


def test_labels_that_do_not_differ_are_not_steered_beyond_chance(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table = steered(monkeypatch, tmp_path, 0.0, ["A", "C"], steer=[["A", "C"]], steer_doses=[1.0])
    assert (table["p_toward"] > 0.05).all()
    assert table["markers"].isna().all()  # no unit marks one of them


def test_the_file_for_scanpy_has_items_before_after_and_targets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    steered(monkeypatch, tmp_path, 3.0, ["A", "B"], steer=[["A", "B"]], steer_items=5)
    found = anndata.read_h5ad(tmp_path / "steered.h5ad")
    assert found.obs["state"].value_counts().to_dict() == {"after": 10, "before": 5, "target": 5}
    assert found.obs_names.is_unique
    assert found.shape == (20, N_UNITS)
    by_state = {
        state: found.obsm["X_model"][found.obs["state"] == state].mean(axis=0)
        for state in ("before", "after", "target")
    }
    assert np.linalg.norm(by_state["after"] - by_state["target"]) < 0.2 * np.linalg.norm(
        by_state["before"] - by_state["target"]
    )
    after = found[(found.obs["state"] == "after") & (found.obs["method"] == "means")].X.toarray()
    before = found[found.obs["state"] == "before"].X.toarray()
    assert (after[:, MARKERS].sum(axis=1) > before[:, MARKERS].sum(axis=1) + 1).all()
    assert np.allclose(after[:, 4:], before[:, 4:])


def test_a_label_that_is_not_there_is_refused_and_nothing_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"causal\.steer: there is no label 'Z'.*A, B"):
        steered(monkeypatch, tmp_path, 3.0, ["A", "B"], steer=[["A", "Z"]])
    assert not list(tmp_path.iterdir())


def test_one_label_leaves_an_empty_table_that_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = steered(monkeypatch, tmp_path, 3.0, ["A"])
    assert table.empty
    assert "two labels" in (CAUSAL_STEERING.note(tmp_path / CAUSAL_STEERING.file) or "")
    assert anndata.read_h5ad(tmp_path / "steered.h5ad").shape == (0, N_UNITS)


def test_each_marker_token_is_hidden_with_another_of_the_same_item() -> None:
    tokens, items = planted(["A", "B"])
    sample = Sample(np.arange(len(items)), tokens, np.arange(len(items)))
    role = roles(sample, MARKERS, np.random.default_rng(0))
    item = sample.of_tokens()
    assert (np.isin(tokens.unit, MARKERS) == (role == MARKER)).all()
    wanted, others = (np.bincount(item[role == each], minlength=len(items)) for each in (MARKER, OTHER))
    assert (others <= wanted).all()
    assert others.sum() >= 0.9 * wanted.sum()


def test_markers_are_units_that_the_moved_items_have_too() -> None:
    amount = np.ones((20, 12)) + 0.01 * np.random.default_rng(0).random((20, 12))
    amount[10:, 3] += 5
    amount[10:, 7] += 5
    amount[:10, 7] = 0  # no item of A has it: there is no token to predict
    found = marker_units(amount, np.arange(20) >= 10, 5)
    assert found.tolist() == [3]


def test_of_distributions_the_score_is_how_much_likelier_markers_became() -> None:
    logits = torch.zeros(4, 6)
    logits[1, 2] = 3.0  # the marker, at a token that is hidden
    logits[2, 2] = 9.0  # at a token that is seen: a copy, not counted
    readout = Readout("distribution", np.array([2]), np.arange(1, 6))
    role = np.array([MARKER, MARKER, 0, MARKER], dtype=np.int8)
    found = readout.score(Predictions(logits, None, None), role, np.array([0, 0, 1, 1]), 3)
    assert found[:2] == pytest.approx([1.5, 0.0], abs=1e-6)
    assert np.isnan(found[2])  # nothing of it is hidden
