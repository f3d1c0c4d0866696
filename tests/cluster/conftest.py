"""Runs for tests of planning and order: real configs and paths, with sizes set by hand and stages that only write files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from sae_genomics.config import parse_config
from sae_genomics.run import Run
from sae_genomics.stages import Stage

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
        }
        for section, keys in sections.items():
            values[section] = {**values.get(section, {}), **keys}
        config_file = tmp_path / "t.yaml"
        config_file.write_text("data:\n  path: cells.h5ad\n")
        data = tmp_path / "cells.h5ad"
        data.write_bytes(b"cells")
        run = Run(parse_config(values, "a test"), config_file)
        run.data_file = data
        run.n_cells = shards * 10
        run.layers = list(range(layers))
        run.model_info = SimpleNamespace(name="m", identity="m", n_layers=layers, d_model=8)
        run.identities = {"data": "d", "model": "m"}
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
