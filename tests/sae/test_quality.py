"""A training that failed is not a result, and a doubtful one says so."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sae_genomics.errors import UserError
from sae_genomics.progress import Progress
from sae_genomics.run import Run
from sae_genomics.sae import fit_layer
from sae_genomics.sae.checkpoint import load_checkpoint, save_checkpoint
from sae_genomics.sae.quality import doubts, failed
from sae_genomics.sae.state import initial_state
from sae_genomics.sae.task import run_task
from sae_genomics.sae.train import fit
from sae_genomics.stages import stage_named
from tests.pipeline.conftest import run_command
from tests.sae.conftest import MemoryBatches, planted_rows
from tests.sae.test_step import spec_of

MakeRun = Callable[..., Run]
FAILED = (
    r"layer 1: training failed: .* \(FVU \S+; .*--set sae\.lr=0\.003 \(now 1e\+03\), or raise sae\.steps \(now 30\)"
)


@pytest.mark.parametrize("heldout", [0.25, 0.0])
def test_a_diverged_sae_is_a_failed_training(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, heldout: float
) -> None:
    run = make_run(lr=1000.0, heldout=heldout)
    with pytest.raises(UserError, match=FAILED):
        run_task(run, 0)
    assert {path.name for path in run.sae_dir(1).iterdir()} == {"checkpoint", "metrics.jsonl"}

    # the same settings fail again, without a step of training
    with monkeypatch.context() as patch:
        patch.setattr("sae_genomics.sae.train.make_step", lambda state, *rest: _NoStep(state))
        with pytest.raises(UserError, match=FAILED):
            run_task(run, 0)

    # a lower rate does not go on from the diverged state
    lower = make_run(lr=0.003, heldout=heldout)
    run_task(lower, 0)
    metrics = json.loads((lower.sae_dir(1) / "metrics.json").read_text())
    assert (metrics["fvu"] or metrics["train_fvu"]) < 0.6
    assert not (lower.sae_dir(1) / "checkpoint").exists()


class _NoStep:
    def __init__(self, state: Any):
        self.state = state

    def __call__(self, *arguments: Any) -> Any:
        raise AssertionError("a step was taken")


def test_what_an_earlier_training_left_stays_for_its_own_settings(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = stage_named("train")
    good = make_run()
    run_task(good, 0)
    good.write_manifest(train, 0, {})
    bad = make_run(lr=1000.0)
    with pytest.raises(UserError):
        run_task(bad, 0)
    assert not bad.state(train, 0).done
    monkeypatch.setattr(fit_layer, "fit", lambda *arguments, **keywords: pytest.fail("trained again"))
    run_task(make_run(), 0)


def test_an_evaluation_on_more_rows_may_still_find_it_failed(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_layer, "_look_at", lambda *arguments: None)
    run = make_run(lr=1000.0)
    with pytest.raises(UserError, match=FAILED):
        run_task(run, 0)
    assert not (run.sae_dir(1) / "metrics.json").exists()


@pytest.mark.parametrize("lr", [None, 0.01])
def test_rows_that_do_not_vary(make_run: MakeRun, lr: float | None) -> None:
    """There is nothing to learn and no FVU, which is no fault of the learning rate."""
    run = make_run(rows=torch.ones(40 * 31, 16), lr=lr)
    run_task(run, 0)
    metrics = json.loads((run.sae_dir(1) / "metrics.json").read_text())
    assert metrics["fvu"] is None
    assert metrics["note"] == "The held-out activations do not vary, so there is no FVU; use more cells"


@pytest.mark.parametrize(
    ("fvu", "expected"), [(0.0, False), (0.999, False), (1.0, True), (np.inf, True), (np.nan, True)]
)
def test_failed(fvu: float, expected: bool) -> None:
    assert failed(fvu) == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"fvu": 0.5}, []),
        ({"fvu": 0.51}, ["The FVU is 0.51"]),
        ({"heldout_tokens": 0, "fvu": None, "l0": None, "train_fvu": 0.6}, ["The FVU is 0.60"]),
        ({"fvu": None}, ["The held-out activations do not vary"]),
        ({"l0": 9.6}, []),
        ({"l0": 9.7}, ["L0 is 9.7, sae.k is 8: the threshold"]),
        ({"l0": 6.3}, ["L0 is 6.3"]),
        ({"l0": 6.3, "architecture": "topk"}, ["L0 is 6.3, sae.k is 8: most tokens"]),
        ({"l0": 37.0, "fvu": 0.9}, ["The FVU is 0.90", "L0 is 37.0"]),
    ],
)
def test_doubts(changes: dict[str, Any], words: list[str]) -> None:
    metrics = {"fvu": 0.1, "l0": 8.0, "k": 8, "architecture": "batchtopk", "steps": 50, "heldout_tokens": 100}
    found = doubts({**metrics, "train_fvu": 0.1, "train_l0": 8.0, **changes})
    assert len(found) == len(words)
    assert all(text.startswith(start) for text, start in zip(found, words, strict=True))


def test_a_doubt_stands_in_the_log_and_in_the_metrics(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(steps=1)
    run_task(run, 0)
    metrics = json.loads((run.sae_dir(1) / "metrics.json").read_text())
    assert 0.5 < metrics["fvu"] < 1
    assert metrics["note"] == doubts(metrics)[0]
    assert f"train layer 1: {metrics['note']}" in capsys.readouterr().err


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka"])
@pytest.mark.parametrize("steps", [1, 5, 20])
def test_the_threshold_of_a_short_training_lets_k_pass(make_run: MakeRun, architecture: str, steps: int) -> None:
    """A running mean that begins at 0 has made 1, 5 and 18 % of its way after so many steps."""
    run = make_run(architecture=architecture, steps=steps)
    run_task(run, 0)
    metrics = json.loads((run.sae_dir(1) / "metrics.json").read_text())
    assert metrics["train_l0"] == pytest.approx(4, rel=0.2)


def test_the_running_mean_of_a_constant_is_the_constant() -> None:
    state = initial_state(spec_of(8, d_sae=16, k=2), torch.zeros(8), 0)
    assert state.mean_smallest == 0
    for _ in range(3):
        state.add_smallest(0.7)
        assert state.mean_smallest == pytest.approx(0.7)
    assert state.to(torch.device("cpu")).mean_smallest == state.mean_smallest


def test_a_checkpoint_of_an_earlier_version_is_gone_on_from(tmp_path: Path) -> None:
    """It does not count the running mean's values: there is one per step."""
    rows, _ = planted_rows(300, 40, 24, 4, seed=2)
    spec = spec_of(24, architecture="batchtopk", d_sae=100, k=4, steps=6, batch_tokens=64)

    def train(steps: int, file: Path) -> Any:
        return fit(
            spec_of(24, architecture="batchtopk", d_sae=100, k=4, steps=steps, batch_tokens=64), MemoryBatches(rows, 64),
            layer=0, normalise=True, checkpoint=file, fingerprint="f", open_loggers=lambda step: [],
            progress=Progress("train", None, "tokens"),
        )  # fmt: skip

    whole = train(spec.steps, tmp_path / "whole.safetensors")
    file = tmp_path / "cut.safetensors"
    state, facts = train(3, file).state, load_checkpoint(file, "f")
    assert facts is not None
    save_checkpoint(file, state, facts[1])
    content = file.read_bytes()
    old = content.replace(b', \\"threshold_updates\\": 3', b" " * len(b', \\"threshold_updates\\": 3'))
    assert old != content
    file.write_bytes(old)
    again = load_checkpoint(file, "f")
    assert again is not None
    assert again[0].threshold_updates == 3
    assert train(spec.steps, file).state.mean_smallest == pytest.approx(whole.state.mean_smallest, rel=0.05)


@pytest.mark.slow
def test_a_diverged_run_ends_with_2_and_makes_no_table(tmp_path: Path, write_small: Callable[..., Path]) -> None:
    config = write_small(sae={"lr": 1000.0})
    finished: subprocess.CompletedProcess[str] = run_command("pipeline", config, "--local")
    assert finished.returncode == 2
    assert "Traceback" not in finished.stderr
    for layer in ("layer_00", "layer_02"):
        lines = [line for line in finished.stderr.splitlines() if line.startswith(f"error: train {layer}")]
        assert len(lines) == 1
        assert "training failed" in lines[0]
        assert "--set sae.lr=" in lines[0]
    assert not list(tmp_path.rglob("sae_weights.safetensors"))
    assert not list(tmp_path.rglob("features.parquet"))
    report = (tmp_path / "results" / "small" / "report.md").read_text()
    assert "training failed" in report
    assert "Faithfulness" not in report


@pytest.fixture
def write_small(tmp_path: Path) -> Callable[..., Path]:
    """As the pipeline's tests have it."""
    import yaml

    from tests.pipeline.conftest import small_values

    def write(**sections: dict[str, Any]) -> Path:
        file = tmp_path / "small.yaml"
        file.write_text(yaml.safe_dump(small_values(tmp_path, **sections)))
        return file

    return write
