"""Small real runs: the bundled cells and model, few cells, two layers, few training steps."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.stage_names import OFF

ROOT = Path(__file__).parents[2]


def small_values(folder: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    """Config values of a run that takes seconds; `sections` are laid over them."""
    values: dict[str, Any] = {
        "run": {"name": "small"},
        "paths": {"checkpoints": str(folder / "checkpoints"), "results": str(folder / "results"), "logs": str(folder / "logs"),
                  "databases": str(folder / "databases")},
        "data": {"path": "builtin:pbmc68k_reduced", "cell_type_key": "bulk_labels", "max_cells": 90},
        "model": {"name": "demo", "layers": [0, 2], "device": "cpu"},
        "activations": {"cells_per_shard": 40},
        "sae": {"steps": 40, "batch_tokens": 256, "d_sae": 128, "k": 8, "device": "cpu"},
        "validation": {"shuffles": 2},
        **OFF,
    }  # fmt: skip
    for section, keys in sections.items():
        values[section] = {**values.get(section, {}), **keys}
    return values


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[..., Path]:
    """write_config(name="small.yaml", **sections) -> path of a config file in tmp_path."""

    def write(name: str = "small.yaml", **sections: dict[str, Any]) -> Path:
        file = tmp_path / name
        file.write_text(yaml.safe_dump(small_values(tmp_path, **sections)))
        return file

    return write


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "sae_genomics.cli", *map(str, arguments)]


def run_command(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the console command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, cwd=cwd or ROOT, env=environment, timeout=600
    )


def files_under(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
