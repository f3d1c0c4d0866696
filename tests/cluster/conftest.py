"""Runs for tests of planning and order: real configs and paths, with sizes set by hand and stages that only write files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from sae_genomics.config import parse_config
from sae_genomics.run import Run
from sae_genomics.stage import Stage
from tests.cluster.slurm_cluster import SlurmCluster
from tests.cluster.slurm_cluster import cluster as slurm_cluster
from tests.cluster.tiny import TinyRun
from tests.stage_names import OFF

MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(shards: int = 3, layers: int = 2, **sections: dict) -> Run:
        roots = {name: str(tmp_path / name) for name in ("checkpoints", "results", "logs")}
        values = {
            "run": {"name": "t"},
            "paths": roots,
            "data": {"path": "cells.h5ad"},
            "activations": {"cells_per_shard": 10},
            **OFF,
        }
        for section, keys in sections.items():
            values[section] = {**values.get(section, {}), **keys}
        config_file = tmp_path / "t.yaml"
        config_file.write_text("data:\n  path: cells.h5ad\n")
        data = tmp_path / "cells.h5ad"
        data.write_bytes(b"cells")
        run = Run(parse_config(values, "a test"), config_file)
        run.data_files = [data]
        run.n_items = shards * 10
        run.layers = list(range(layers))
        run.model_info = SimpleNamespace(name="m", identity="m", n_layers=layers, d_model=8)
        run.content_hashes = {"data": "d", "model": "m"}
        return run

    return make


@pytest.fixture
def stages_write_files(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every stage writes its files with a byte each; returns the list of (stage, task) that ran, as it grows.

    A test makes a task fail by adding an exception under (stage, task) to `.fail`.
    """

    class Calls(list):
        fail: dict

    calls = Calls()
    calls.fail = {}

    def call(stage: Stage, run: Run, task: int) -> None:
        calls.append((stage.name, task))
        if (stage.name, task) in calls.fail:
            raise calls.fail[stage.name, task]
        for path in stage.files(run, task):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")

    monkeypatch.setattr(Stage, "call", call)
    return calls


# --- a real Slurm ---


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    """Two nodes of one core, shared by a module's tests."""
    with slurm_cluster(nodes=2, cpus=1) as made:
        yield made


@pytest.fixture
def quiet(cluster: SlurmCluster) -> Iterator[SlurmCluster]:
    """The module's cluster, with nothing left of this test's jobs afterwards."""
    yield cluster
    cluster.clear()


@pytest.fixture
def tiny(quiet: SlurmCluster, tmp_path: Path) -> TinyRun:
    """A run of which nothing is done, on the module's cluster."""
    return TinyRun(tmp_path / "run", quiet.environment)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose activations of three layers are there."""
    made = TinyRun(tmp_path_factory.mktemp("template") / "run", dict(os.environ), layers=(0, 1, 2))
    for stage in ("prepare", "extract"):
        made.stage(stage)
    (made.run.results / "run.json").unlink()  # copies are runs of their own configs
    return made.folder


@pytest.fixture(scope="session")
def steps_a_second(template: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """Training steps a second of a tiny run on this machine, one process at work."""
    folder = tmp_path_factory.mktemp("trial") / "run"
    shutil.copytree(template, folder)
    trial = TinyRun(folder, dict(os.environ), layers=(0,))
    trial.values["sae"].update(steps=4000, log_every=1000)
    trial.write()
    trial.stage("train")
    lines = [json.loads(line) for line in (trial.run.sae_dir(0) / "metrics.jsonl").read_text().splitlines()]
    first, last = lines[0], lines[-1]  # the first steps compile
    return (last["step"] - first["step"]) / (last["seconds"] - first["seconds"])


@pytest.fixture
def shared_run() -> Callable[[Path, Path], TinyRun]:
    """shared_run(template, folder): a copy of a run, for commands that use no Slurm."""

    def copy(template: Path, folder: Path) -> TinyRun:
        shutil.copytree(template, folder)
        return TinyRun(folder, {**os.environ, "SLURM_CONF": "/nonexistent"}, layers=(0, 1, 2))

    return copy


@pytest.fixture
def extracted(template: Path, quiet: SlurmCluster, tmp_path: Path) -> TinyRun:
    """A copy of `template` on the module's cluster."""
    shutil.copytree(template, tmp_path / "run")
    return TinyRun(tmp_path / "run", quiet.environment, layers=(0, 1, 2))
