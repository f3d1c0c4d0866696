"""The floor of an untrained model on a small run: the SAE that associate keeps, and what cross_layer makes of it."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from sae_genomics import artifacts
from sae_genomics.artifacts import PERSISTENCE
from sae_genomics.associations.files import associate_files, untrained_sae_dir, untrained_sae_files
from sae_genomics.associations.untrained_model import load_untrained
from sae_genomics.checked_json import read_checked_json, write_checked_json
from sae_genomics.cross_layer import task
from sae_genomics.cross_layer.activations import sample_layers
from sae_genomics.cross_layer.files import folder
from sae_genomics.cross_layer.task import run_task
from sae_genomics.cross_layer.untrained import NO_BASELINE, TURNED_OFF, sample_untrained, why_none
from sae_genomics.execute import execute
from sae_genomics.run import Run
from sae_genomics.sae.load import load_encoder
from sae_genomics.stages import stage_named
from tests.cross_layer.layered_run import layered_run, with_settings

CPU = torch.device("cpu")
ASSOCIATE, PATH = stage_named("associate"), PERSISTENCE.file


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """With SAEs of an untrained model that subtract their own means, and activations in half precision."""
    return layered_run(
        tmp_path_factory.mktemp("run"),
        train=True,
        validation={"baselines": ["untrained"]},
        cross_layer={"attribution_features": 0},
        activations={"cells_per_shard": 25, "dtype": "float16", "tokens_per_cell": 12},
        sae={"centre": "unit", "steps": 300},
    )


@pytest.fixture(autouse=True)
def _matching_alone(monkeypatch):
    """Without modules, variance and novelty, which have tests of their own."""
    for name in ("write_modules", "write_variance", "write_novelty"):
        monkeypatch.setattr(task, name, lambda *arguments: None)


def without_files(run: Run, number: int) -> dict:
    """Make the manifest that of a version that kept no SAE. Returns it as it was."""
    path = run.manifest_file(ASSOCIATE, number)
    manifest = read_checked_json(path)
    old = {name: entry for name, entry in manifest["files"].items() if not name.startswith("checkpoints:")}
    write_checked_json(path, {**manifest, "files": old})
    return manifest


# --- the SAE that associate keeps ---


def test_associate_keeps_the_sae_that_its_table_is_of(run):
    for layer in run.layers:
        encoder = load_encoder(untrained_sae_dir(run, layer))
        assert encoder.means is not None
        assert encoder.weights != load_encoder(run.sae_dir(layer)).weights
        cfg = json.loads((untrained_sae_dir(run, layer) / "cfg.json").read_text())
        assert cfg["metadata"]["sae_genomics"]["model_identity"] == "untrained"
    names = {name for name in read_checked_json(run.manifest_file(ASSOCIATE, 0))["files"] if ":" in name}
    assert names == {
        f"checkpoints:saes/layer_00/untrained/{name}"
        for name in ("cfg.json", "sae_weights.safetensors", "unit_means.safetensors")
    }
    assert {path.parent for path in untrained_sae_files(run, 0)} == {untrained_sae_dir(run, 0)}
    assert run.state(ASSOCIATE, 0).done
    assert not untrained_sae_files(with_settings(run, "validation", baselines=["pca"]), 0)


def test_a_run_of_a_version_that_kept_none_is_done(run):
    path = run.manifest_file(ASSOCIATE, 1)
    before = without_files(run, 1)
    try:
        assert run.state(ASSOCIATE, 1).done
        write_checked_json(path, {**read_checked_json(path), "unfinished": True})
        state = run.state(ASSOCIATE, 1)
        assert (state.status, state.why) == ("missing", "cfg.json was not finished")
    finally:
        write_checked_json(path, before)


def test_an_sae_that_is_damaged_or_gone_is_made_again(run):
    before = {path: path.read_bytes() for path in associate_files(run, 0) if path.suffix == ".safetensors"}
    weights = untrained_sae_dir(run, 0) / "sae_weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4] + b"\x01\x01\x01\x01")
    assert run.state(ASSOCIATE, 0).damaged == weights
    weights.unlink()
    assert run.state(ASSOCIATE, 0).why == "sae_weights.safetensors is not there"
    assert execute(run, ASSOCIATE, 0)
    assert {path: path.read_bytes() for path in before} == before, "bit for bit as it was"
    assert run.state(ASSOCIATE, 0).done


# --- what cross_layer makes of it ---


def test_the_model_reads_the_sampled_tokens(run):
    """Every sampled token, one item at a time through the model, against what the stage has."""
    some = with_settings(run, "cross_layer", tokens=200, items=20, untrained_tokens=100)
    activations = sample_layers(some, CPU, lambda n: None)
    steps: list[float] = []
    found = sample_untrained(some, activations, CPU, steps.append)
    assert sum(steps) == pytest.approx(task.STEPS)
    taken = np.unique(activations.item[found.token])
    assert len(taken) == 10
    assert len(np.unique(taken // 25)) == 3, "items of every shard"
    model = load_untrained(run)
    vocabulary = np.concatenate([sample.token for sample in activations.samples])[found.token]
    dense = {layer: np.zeros((len(found.token), found.d_sae[layer]), np.float32) for layer in run.layers}
    expected = {layer: np.zeros_like(dense[layer]) for layer in run.layers}
    for layer, rows in found.layers.items():
        dense[layer][np.repeat(np.arange(len(found.token)), np.diff(rows.indptr)), rows.feature] = rows.value
    for item in taken.tolist():
        tokens = model.tokenise(run.kind.read(run, np.array([item])), run.config.run.seed)
        hidden = model.forward_layers(tokens, run.layers, run.config.model.hook)
        mine = np.flatnonzero(activations.item[found.token] == item)
        row = np.array([np.flatnonzero((tokens.token == token) & ~tokens.special)[0] for token in vocabulary[mine]])
        for layer, x in hidden.items():
            encoder = load_encoder(untrained_sae_dir(run, layer))
            stored = x.half().float().numpy()[row]
            at, feature, value = encoder.encode_sparse(encoder.input(stored, vocabulary[mine]))
            expected[layer][mine[at], feature] = value
    for layer in run.layers:
        np.testing.assert_allclose(dense[layer], expected[layer], rtol=0.02, atol=0.02)
        assert (dense[layer] > 0).any()
    assert not list((run.checkpoints / "scratch").iterdir())


def test_the_column_is_filled_and_is_the_same_again(run):
    tables = []
    for _ in range(2):
        run_task(run, 0)
        tables.append(PERSISTENCE.read(folder(run) / PATH))
    pd.testing.assert_frame_equal(*tables)
    assert tables[0]["floor_untrained"].between(0, 1).all()
    assert len(tables[0]) == 2
    assert "floor_untrained" not in (PERSISTENCE.note(folder(run) / PATH) or ""), "all tokens were compared"


def test_why_the_column_is_empty(run, monkeypatch):
    off = with_settings(run, "cross_layer", untrained_tokens=0)
    assert why_none(run) == ""
    assert why_none(off) == TURNED_OFF
    assert why_none(with_settings(run, "validation", baselines=["pca"])) == NO_BASELINE
    cfg = untrained_sae_dir(run, 1) / "cfg.json"
    hidden = cfg.rename(cfg.with_name("elsewhere.json"))
    try:
        assert "of layer 1, as earlier versions" in why_none(run)
        run_task(run, 0)
    finally:
        hidden.rename(cfg)
    assert PERSISTENCE.read(folder(run) / PATH)["floor_untrained"].isna().all()
    assert "remove untrained_genes.parquet" in PERSISTENCE.note(folder(run) / PATH)
    run_task(off, 0)
    assert PERSISTENCE.note(folder(run) / PATH) == f"floor_untrained is empty: {TURNED_OFF}"


def test_what_the_note_says_to_type_fills_the_column(run):
    """A run of a version that kept none: the table is removed, associate is done again, and cross_layer is stale."""
    cross_layer = stage_named("cross_layer")
    manifest = without_files(run, 0)
    token = run.contents.read_by(cross_layer, 0)["associate"]
    for path in untrained_sae_files(run, 0):
        path.unlink()
    assert "of layer 0" in why_none(run)
    artifacts.UNTRAINED_GENES.read(run.layer_results(0) / "untrained_genes.parquet")
    (run.layer_results(0) / "untrained_genes.parquet").unlink()
    assert not run.state(ASSOCIATE, 0).done
    execute(run, ASSOCIATE, 0)
    assert why_none(run) == ""
    after = read_checked_json(run.manifest_file(ASSOCIATE, 0))["files"]
    assert {name: entry["hash"] for name, entry in after.items() if not name.endswith("h5ad")} == {
        name: entry["hash"] for name, entry in manifest["files"].items() if not name.endswith("h5ad")
    }
    assert run.contents.read_by(cross_layer, 0)["associate"] != token
