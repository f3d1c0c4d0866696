"""Killed at any point, the same command finishes, repeats nothing that was finished, and gives the same results."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import pandas as pd
import pytest

from tests.pipeline.conftest import ROOT, command, run_command

RANDOM_MOMENTS = 4


def manifests(folder: Path) -> dict[str, str]:
    """Manifest → when its task started, over checkpoints and results."""
    found = {}
    for file in folder.rglob("manifests/*/*.json"):
        found[file.relative_to(folder).as_posix()] = json.loads(file.read_text())["started"] + str(
            file.stat().st_mtime_ns
        )
    return found


def same_results(one: Path, other: Path) -> None:
    tables = sorted(path.relative_to(one).as_posix() for path in one.rglob("*.parquet"))
    assert tables
    assert tables == sorted(path.relative_to(other).as_posix() for path in other.rglob("*.parquet"))
    for table in tables:
        pd.testing.assert_frame_equal(pd.read_parquet(one / table), pd.read_parquet(other / table))
    for file in one.rglob("features.h5ad"):
        a, b = ad.read_h5ad(file), ad.read_h5ad(other / file.relative_to(one))
        assert (a.X != b.X).nnz == 0


@pytest.mark.slow
def test_kill_at_any_moment(tmp_path: Path, write_config: Callable[..., Path]) -> None:
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    paths = {
        "checkpoints": str(undisturbed / "checkpoints"),
        "results": str(undisturbed / "results"),
        "logs": str(undisturbed / "logs"),
    }
    sae = {"steps": 300, "checkpoint_every_seconds": 0.2}
    started = time.monotonic()
    finished = run_command("pipeline", write_config("undisturbed.yaml", paths=paths, sae=sae), "--local")
    length = time.monotonic() - started
    assert finished.returncode == 0, finished.stderr

    config = write_config(sae=sae)
    moments = random.Random(0)
    for _ in range(RANDOM_MOMENTS):
        before = manifests(tmp_path)
        process = subprocess.Popen(
            command("pipeline", config, "--local"), cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        time.sleep(moments.uniform(0.15, 0.9) * length)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        after = manifests(tmp_path)
        repeated = [name for name, value in before.items() if after.get(name) != value and "/report/" not in name]
        assert not repeated, "a finished task was repeated"
    finished = run_command("pipeline", config, "--local")
    assert finished.returncode == 0, finished.stderr
    same_results(undisturbed / "results" / "small", tmp_path / "results" / "small")
    leftovers = list(tmp_path.rglob(".partial-*"))
    assert not leftovers


@pytest.mark.slow
def test_a_stop_signal_saves_and_ends_with_75(tmp_path: Path, write_config: Callable[..., Path]) -> None:
    config = write_config(sae={"steps": 100_000})
    assert run_command("stage", "prepare", "--config", config).returncode == 0
    assert run_command("stage", "extract", "--config", config).returncode == 0
    process = subprocess.Popen(
        command("stage", "train", "--config", config, "--task", "0"), cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    metrics = tmp_path / "checkpoints" / "small" / "saes" / "layer_00" / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") > 1):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 75
    assert list((tmp_path / "checkpoints" / "small" / "saes" / "layer_00").rglob("*.safetensors")), "the state is saved"


@pytest.mark.slow
def test_layers_at_once_stopped_by_a_signal_then_finished(tmp_path: Path, write_config: Callable[..., Path]) -> None:
    sae = {"steps": 2500, "batch_tokens": 64, "stability": True}
    paths = {root: str(tmp_path / "apart" / root) for root in ("checkpoints", "results", "logs")}
    finished = run_command("pipeline", write_config("apart.yaml", paths=paths, sae=sae), "--local")
    assert finished.returncode == 0, finished.stderr

    config = write_config(sae={**sae, "layers_at_once": 2})
    process = subprocess.Popen(
        command("pipeline", config, "--local"), cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    saes = tmp_path / "checkpoints" / "small" / "saes"
    logged = [saes / layer / "metrics.jsonl" for layer in ("layer_00", "layer_02")]
    while not all(file.exists() and file.read_text().count("\n") > 1 for file in logged):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 75, error
    assert "train: 2 layers, 2 at once" in error
    assert len(list(saes.rglob("training.safetensors"))) == 2, "both are saved"

    finished = run_command("pipeline", config, "--local")
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.count("goes on from step") == 2
    same_results(tmp_path / "apart" / "results" / "small", tmp_path / "results" / "small")
