"""The stage on a small run of two layers, from its settings to its tables, and what it says where it cannot."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from sae_genomics.activations.format.store import open_activations
from sae_genomics.artifacts import ATTRIBUTION, FATES, MATCHES, PERSISTENCE
from sae_genomics.cross_layer import attribution_table, task
from sae_genomics.cross_layer.activations import sample_layers, sample_tokens
from sae_genomics.cross_layer.files import cross_layer_files, folder, is_enabled
from sae_genomics.cross_layer.settings import attribution_pairs
from sae_genomics.cross_layer.task import run_task
from sae_genomics.errors import Interrupted, UserError
from sae_genomics.models import tx1
from sae_genomics.models.base import FoundationModel
from sae_genomics.progress import stop_asked
from sae_genomics.run import Run
from sae_genomics.sae.load import load_encoder
from tests.cross_layer.layered_run import D_SAE, layered_run, with_settings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return layered_run(tmp_path_factory.mktemp("run"))


TABLES = (MATCHES, FATES, PERSISTENCE, ATTRIBUTION)


@pytest.fixture(scope="module")
def left(run) -> dict[str, pd.DataFrame]:
    """What the stage leaves of the run: table by file name."""
    run_task(run, 0)
    assert sorted(path.name for path in folder(run).iterdir()) == sorted(
        path.name for path in cross_layer_files(run, 0)
    )
    return {table.file: table.read(folder(run) / table.file) for table in TABLES}


@pytest.fixture
def _matching_alone(monkeypatch):
    """Without modules, variance and novelty, which have tests of their own."""
    for name in ("write_modules", "write_variance", "write_novelty"):
        monkeypatch.setattr(task, name, lambda *arguments: None)


def test_every_layer_is_encoded_on_the_same_heldout_tokens(run):
    taken = sample_layers(with_settings(run, "cross_layer", tokens=100, items=10), CPU, lambda n: None)
    items = run.kind.read_items(run, ["heldout"])
    assert items["heldout"].to_numpy()[taken.item].all()
    assert len(np.unique(taken.item)) == 10
    assert len(taken) == 100
    assert (np.diff(taken.item) >= 0).all()
    assert (taken.unit >= 0).all()
    units = run.kind.read_units(run)
    samples = sample_tokens(run, units, items["heldout"].to_numpy(bool), 10, 100)
    rows = {sample.shard: sample.row for sample in samples}
    for layer in run.layers:
        dense = np.zeros((len(taken), D_SAE), np.float32)
        token = np.repeat(np.arange(len(taken)), np.diff(taken.layers[layer].indptr))
        dense[token, taken.layers[layer].feature] = taken.layers[layer].value
        x = []
        for shard, chosen in rows.items():
            with open_activations(run.activations_file(layer, shard)) as file:
                x.append(file.rows(0, int(chosen.max()) + 1)[chosen])
        expected = np.zeros_like(dense)
        at, feature, value = load_encoder(run.sae_dir(layer)).encode_sparse(np.concatenate(x))
        expected[at, feature] = value
        np.testing.assert_allclose(dense, expected, rtol=1e-4, atol=1e-5)


def test_the_stage_leaves_all_of_its_tables(run, left):
    assert is_enabled(run)
    matches = left[MATCHES.file]
    assert set(zip(matches["layer_a"], matches["layer_b"], strict=True)) == {(0, 1)}
    same = matches[matches["feature_a"] == matches["feature_b"]]
    assert same["cosine"].tolist() == pytest.approx([1.0] * len(same))  # both layers have one SAE
    assert (matches["mutual"] <= matches["linked"]).all()
    shares = left[PERSISTENCE.file].set_index("layer_a")
    assert shares.loc[0, "ceiling"] + shares.loc[0, "by_unit"] >= 0.99  # the second seed is the same SAE
    assert shares.loc[1, "ceiling"] < shares.loc[0, "ceiling"]
    assert set(left[FATES.file]["layer"]) == {0, 1}
    edges = left[ATTRIBUTION.file]
    assert edges.groupby("feature_j")["edge"].sum().max() <= run.config.cross_layer.attribution_edges
    assert edges["exact"].notna().sum() >= 3 * 4
    checks = json.loads(ATTRIBUTION.fact(folder(run) / ATTRIBUTION.file, "rank_correlation"))
    assert checks[0]["rank_correlation"] > 0.5
    assert "rank correlation" in ATTRIBUTION.note(folder(run) / ATTRIBUTION.file)


@pytest.mark.usefixtures("_matching_alone")
def test_the_same_settings_give_the_same_tables(run, left):
    run_task(run, 0)
    for table in TABLES:
        pd.testing.assert_frame_equal(table.read(folder(run) / table.file), left[table.file])


def test_attribution_goes_between_the_layers_that_are_named(run):
    def pairs(layers, asked):
        run_of_more = with_settings(run, "cross_layer", enabled=True, attribution_pairs=asked)
        run_of_more.layers = layers
        return attribution_pairs(run_of_more)

    assert pairs([1, 4, 5], "adjacent") == [(1, 4), (4, 5)]
    assert pairs([1, 4, 5], "all") == [(1, 4), (1, 5), (4, 5)]
    assert pairs([1, 4, 5], [(1, 5)]) == [(1, 5)]
    for wrong in ((5, 1), (1, 2), (4, 4)):
        with pytest.raises(UserError, match=r"attribution_pairs: .* the run has layers 1, 4, 5"):
            pairs([1, 4, 5], [wrong])


def test_a_family_that_cannot_be_edited_leaves_an_empty_table_that_says_so(run, monkeypatch):
    monkeypatch.setattr(tx1.NativeTx1, "outcome", FoundationModel.outcome)
    attribution_table.write_attribution(run, CPU, lambda n: None)
    path = folder(run) / ATTRIBUTION.file
    assert len(ATTRIBUTION.read(path)) == 0
    assert "cannot be edited" in ATTRIBUTION.note(path)


@pytest.mark.usefixtures("_matching_alone")
def test_without_a_second_seed_the_ceiling_is_missing_and_the_table_says_why(run):
    run_task(
        with_settings(with_settings(run, "sae", stability=False), "cross_layer", enabled=True, attribution_features=0),
        0,
    )
    path = folder(run) / PERSISTENCE.file
    assert PERSISTENCE.read(path)[["ceiling", "relative"]].isna().all(axis=None)
    assert "sae.stability" in PERSISTENCE.note(path)
    assert "attribution_features" in ATTRIBUTION.note(folder(run) / ATTRIBUTION.file)


def test_a_signal_stops_the_stage(run):
    with stop_asked(15), pytest.raises(Interrupted):
        run_task(run, 0)


def test_one_layer_alone_has_no_such_stage(run):
    assert not is_enabled(with_settings(run, "model", layers=[1]))
    assert not is_enabled(with_settings(run, "cross_layer", enabled=False))
