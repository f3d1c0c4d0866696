"""Four thousand shards of thirty-two layers: planned, looked at and printed without a surprise."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from sae_genomics.stages import stage_named
from tests.cluster.tiny import MODEL, ROOT, TinyRun
from tests.stage_names import on_from

SHARDS, LAYERS = 4000, 32
LACKING = (3, 7, 12)


@pytest.fixture(scope="module")
def big(tmp_path_factory) -> TinyRun:
    """A run of a cell a shard and of a model with as many layers, Slurm's programs beside it."""
    folder = tmp_path_factory.mktemp("big")
    tools = folder / "bin"
    tools.mkdir()
    for name, script in {"sbatch": "", "squeue": "", "scontrol": "echo MaxArraySize = 1001"}.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:/usr/bin:/bin"}
    run = TinyRun(folder / "run", environment, cells=SHARDS, shards=SHARDS)
    run.values["model"].update(path=str(deep_model(folder / "model")), layers="all")
    run.write()
    return run


def deep_model(folder: Path) -> Path:
    """The test checkpoint with its first block `LAYERS` times."""
    shutil.copytree(MODEL, folder)
    settings = folder / "model_config.yml"
    settings.write_text(re.sub(r"^n_layers: \d+", f"n_layers: {LAYERS}", settings.read_text(), flags=re.MULTILINE))
    weights = load_file(folder / "model.safetensors")
    block = "transformer_encoder.layers."
    deep = {name: weight for name, weight in weights.items() if block not in name}
    for layer in range(LAYERS):
        deep |= {
            name.replace(f"{block}0.", f"{block}{layer}."): weight.clone()
            for name, weight in weights.items()
            if f"{block}0." in name
        }
    save_file(deep, folder / "model.safetensors")
    return folder


def dry_run(big: TinyRun) -> tuple[dict[str, str], str, float]:
    """(array name to its command, what was said, seconds) of the master script."""
    started = time.perf_counter()
    done = subprocess.run(
        ["bash", str(ROOT / "slurm/00_full_pipeline.sh"), str(big.config), "--slurm", "--dry-run"],
        env={**big.environment, "SAE_GENOMICS_PYTHON": sys.executable}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    commands = dict(line.split("=$(", 1) for line in done.stdout.splitlines())
    return commands, done.stderr, time.perf_counter() - started


def test_nothing_done_yet(big, figure):
    commands, said, seconds = dry_run(big)
    figure(seconds=round(seconds, 1))
    assert list(commands) == [
        "prepare", "extract_1", "extract_2", "extract_3", "extract_4", *on_from("train"),
    ]  # fmt: skip
    assert [re.search(r"--array=([\d,-]+)", commands[f"extract_{part}"])[1] for part in (1, 2, 3, 4)] == [
        "0-1000", "0-1000", "0-1000", "0-996",
    ]  # fmt: skip
    assert re.search(r"--offset (\d+)", commands["extract_4"])[1] == "3003"
    assert "--dependency=afterok:${extract_1}:${extract_2}:${extract_3}:${extract_4}" in commands["train"]
    assert "these 9 sbatch calls submit 4098 tasks" in said


def test_a_plan_needs_no_heavy_library(big):
    """Login nodes are slow, and a status is asked for again and again."""
    script = (
        "import sys; from sae_genomics.cli import main\n"
        f"assert main(['pipeline', {str(big.config)!r}, '--slurm', '--dry-run']) == 0\n"
        f"assert main(['status', {str(big.config)!r}]) == 0\n"
        "print([name for name in ('torch', 'numba', 'anndata', 'sklearn', 'scanpy') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], env=big.environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_almost_all_extracted(big, figure):
    """Then every one of 132 000 files is looked at."""
    run = big.run
    for name in ("prepare", "extract"):
        stage = stage_named(name)
        for task in range(run.n_tasks(stage)):
            if name == "extract" and task in LACKING:
                continue
            for path in stage.files(run, task):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            run.write_manifest(stage, task, {})
    commands, said, seconds = dry_run(big)
    figure(seconds=round(seconds, 1))
    assert list(commands) == on_from("extract")
    assert "--array=3,7,12%20" in commands["extract"]
    assert "02 extract     3997 of 4000 done, 3 to do" in said
