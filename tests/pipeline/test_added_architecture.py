"""An SAE architecture that another package brings, through every command a person types; and read back by SAELens."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sae_lens
import torch
from safetensors.torch import load_file

from sae_genomics import progress
from sae_genomics.activations.reading.batches import ShuffledBatches
from sae_genomics.activations.reading.heldout import spread_units
from sae_genomics.activations.reading.rows import chosen_rows
from sae_genomics.config import dump_config, known_keys, load_config, parse_config
from sae_genomics.errors import Interrupted, UserError
from sae_genomics.run import Run
from sae_genomics.sae.architectures import ARCHITECTURES, architecture_named, register
from sae_genomics.sae.export import fold
from sae_genomics.sae.load import WEIGHTS_FILE, load_encoder
from sae_genomics.sae.memory import training_needs
from sae_genomics.sae.spec import make_spec
from sae_genomics.sae.state import initial_state
from sae_genomics.sae.steps import make_step
from sae_genomics.sae.task import run_task
from sae_genomics.stages import stage_named
from tests.cluster.tiny import ROOT, TinyRun
from tests.sae.relu_architecture import RELU


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A finished run with SAEs of an installed package's architecture."""
    folder = tmp_path_factory.mktemp("added")
    information = folder / "site" / "relu_sae-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: relu-sae\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[sae_genomics.architectures]\nrelu = tests.sae.relu_architecture:RELU\n"
    )
    path = filter(None, [str(folder / "site"), str(ROOT), os.environ.get("PYTHONPATH")])
    tiny = TinyRun(folder / "run", {**os.environ, "PYTHONPATH": os.pathsep.join(path)})
    tiny.values["sae"] |= {"architecture": "relu", "steps": 200, "l1_coefficient": 1}
    tiny.values["report"] = {"dashboard": True}
    del tiny.values["sae"]["k"]
    tiny.write()
    refused = tiny.pipeline("--local", "--set", "sae.l1_coefficient=0", check=False)
    assert refused.returncode == 2
    assert (
        refused.stderr.strip() == "error: sae.l1_coefficient = 0 leaves every feature active; set it to 1, for example"
    )
    assert not (folder / "run" / "results").exists()
    tiny.pipeline("--local")
    return tiny


@pytest.fixture
def added() -> Iterator[None]:
    """The architecture is in this process' list for one test."""
    before = list(ARCHITECTURES)
    register(RELU)
    yield
    ARCHITECTURES[:] = before


def test_it_is_trained_evaluated_associated_and_reported(tiny: TinyRun, added: None) -> None:
    assert {state["state"] for state in tiny.tasks().values()} == {"done"}
    run = tiny.run
    for layer in run.layers:
        metrics = json.loads((run.sae_dir(layer) / "metrics.json").read_text())
        assert (metrics["architecture"], metrics["k"]) == ("relu", None)
        assert 0 < metrics["fvu"] < 0.9  # one is the mean activation; 32 latents reach about 0.7
        assert 0.5 < metrics["l0"] < 31
        assert "L0" not in (metrics["note"] or "")
        assert len(pd.read_parquet(run.layer_results(layer) / "features.parquet")) > 0
    report = run.report_file.read_text()
    assert "relu, 32 features, l1_coefficient = 1.0" in report
    assert "`sae.l1_coefficient` (now 1.0)" in report
    assert "sae.k" not in report
    assert "relu, l1_coefficient = 1.0" in run.dashboard_file.read_text()


def test_its_settings_are_in_the_fingerprint(tiny: TinyRun, added: None) -> None:
    settings = load_config(tiny.config, ["sae.l1_coefficient=5"])
    assert Run(settings, tiny.config).state(stage_named("train"), 0).why == "sae.l1_coefficient was 1.0, is 5.0"
    assert parse_config(json.loads(json.dumps(settings.model_dump(mode="json"))), "again") == settings
    assert "l1_coefficient: 5.0" in dump_config(settings)


def test_saelens_and_we_read_what_was_saved(tiny: TinyRun, added: None) -> None:
    run = tiny.run
    folder, layer = run.sae_dir(run.layers[0]), run.layers[0]
    rows = torch.from_numpy(np.concatenate([block for block, _ in _blocks(run, layer)])[:200])
    encoder, theirs = load_encoder(folder), sae_lens.SAE.load_from_disk(str(folder))
    assert (theirs.cfg.architecture(), float(theirs.threshold.abs().max())) == ("jumprelu", 0.0)
    assert theirs.cfg.metadata.training_architecture == "relu"
    assert theirs.cfg.metadata.sae_genomics["training"]["own"] == {"l1_coefficient": 1.0}
    token, feature, activation = encoder.encode_sparse(rows)
    ours = torch.zeros(len(rows), encoder.d_sae)
    ours[token, feature.astype(np.int64)] = torch.from_numpy(activation)
    assert (ours > 0).any()
    torch.testing.assert_close(ours, theirs.encode(rows).detach(), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(encoder.decode_sparse(token, feature, activation, len(rows)), theirs(rows))


def test_a_training_that_was_stopped_goes_on_bit_for_bit(
    tiny: TinyRun, added: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny.run
    weights = run.sae_dir(run.layers[0]) / WEIGHTS_FILE
    before = load_file(shutil.copy(weights, tmp_path))
    shutil.rmtree(weights.parent)
    given = iter(range(90))
    following = ShuffledBatches.__next__

    def stop_after_some(batches: ShuffledBatches) -> torch.Tensor:
        if next(given, None) is None:
            monkeypatch.setattr(progress, "_stop_signal", signal.SIGTERM)
        return following(batches)

    with monkeypatch.context() as patch:
        patch.setattr(ShuffledBatches, "__next__", stop_after_some)
        with pytest.raises(Interrupted):
            run_task(run, 0)
    assert not weights.exists()
    assert (weights.parent / "checkpoint" / "training.safetensors").exists()
    monkeypatch.setattr(progress, "_stop_signal", None)
    run_task(run, 0)
    after = load_file(weights)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_is_saved_is_what_was_trained(added: None) -> None:
    """The folded SAE reads unscaled rows, and gives what the activation gave times the decoder's norms."""
    spec = make_spec(RELU.section(architecture="relu", d_sae=64, steps=30, l1_coefficient=2), 16, 10**6, 0)
    assert (spec.k, spec.own) == (0, {"l1_coefficient": 2.0})
    x = torch.randn(256, 16, generator=torch.Generator().manual_seed(0))
    step = make_step(initial_state(spec, x.mean(dim=0), 0), spec, torch.device("cpu"))
    results = [step(x, 1e-2) for _ in range(30)]
    assert results[-1].loss < 0.8 * results[0].loss
    state, encoder = step.state, fold(step.state, spec, 3.0)
    hidden = (x - state.b_dec) @ state.W_enc.T + state.b_enc
    trained = RELU.activation(hidden, state.parameters, spec) * state.W_dec.norm(dim=1) / 3.0
    token, feature, activation = encoder.encode_sparse(x / 3.0)
    saved = torch.zeros_like(trained)
    saved[token, feature.astype(np.int64)] = torch.from_numpy(activation)
    assert 0 < len(token) < saved.numel()
    torch.testing.assert_close(saved, trained, rtol=1e-4, atol=1e-6)


def test_its_memory_is_that_of_a_dense_step(added: None) -> None:
    settings = {"d_sae": 1 << 15, "batch_tokens": 1 << 14}
    relu, topk = (
        training_needs(make_spec(section(architecture=name, **settings), 512, 10**6, 0), 1024).device
        for name, section in (("relu", RELU.section), ("topk", architecture_named("topk").section))
    )
    assert relu > 2 * topk


@pytest.mark.parametrize(
    ("sae", "message"),
    [
        ({"architecture": "rely"}, "sae.architecture = 'rely': the architectures are topk, batchtopk, matryoshka, jumprelu and relu; did you mean relu?"),
        ({"l1_coefficient": 1}, "unknown key sae.l1_coefficient for sae.architecture topk; sae.architecture relu has it"),
        ({"architecture": "relu", "l1_coefficent": 1}, "unknown key sae.l1_coefficent; did you mean sae.l1_coefficient?"),
        ({"architecture": "relu", "l1_coefficient": -1}, "sae.l1_coefficient = -1: should be greater than or equal to 0"),
    ],
)  # fmt: skip
def test_a_config_that_does_not_fit_is_refused_in_one_line(added: None, sae: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_config({"data": {"path": "x"}, "sae": sae}, "c.yaml")
    assert str(refused.value) == f"c.yaml: {message}"
    assert "sae.l1_coefficient" in known_keys(architecture="relu")
    assert "sae.l1_coefficient" not in known_keys()


def test_a_name_is_taken_once(added: None) -> None:
    with pytest.raises(ValueError, match="architecture relu: there is one of that name"):
        register(RELU)


def _blocks(run: Run, layer: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return iter(spread_units(chosen_rows(run, layer, "train", False), 400, 200))
