"""A data kind and a model family that another package brings, through the whole pipeline."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml

from sae_genomics import models
from sae_genomics.data import kinds
from sae_genomics.models import FAMILIES
from tests.pipeline.conftest import ROOT, command
from tests.pipeline.packages import install

GIVEN = ROOT / "tests" / "data"


@pytest.fixture
def brought(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A run over made-up lines, and an environment where a package with the kind and the family is installed."""
    files = {"brought/lines.py": GIVEN / "line_kind.py", "brought/__init__.py": GIVEN / "liner" / "__init__.py"}
    files |= {f"brought/{name}.py": GIVEN / "liner" / f"{name}.py" for name in ("config", "model")}
    groups = {"sae_genomics.data_kinds": "lines = brought.lines:Lines", "sae_genomics.families": "liner = brought"}
    environment = install(tmp_path / "site", {name: file.read_text() for name, file in files.items()}, groups)
    environment["PYTHONPATH"] += f":{ROOT}"

    rng = np.random.default_rng(0)
    lines = ["".join(rng.choice(list("ABCDEFGH"), rng.integers(5, 40))) for _ in range(60)]
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "labels.txt").write_text("".join(f"{'early' if line < 'D' else 'late'}\n" for line in lines))
    values = {
        "run": {"name": "brought"},
        "paths": {name: str(tmp_path / name) for name in ("checkpoints", "results", "logs")},
        "data": {"kind": "lines", "path": str(tmp_path / "lines.txt"), "labels": str(tmp_path / "labels.txt")},
        "model": {"family": "liner", "device": "cpu"},
        "activations": {"items_per_shard": 25},
        "sae": {"k": 4, "d_sae": 32, "steps": 30, "batch_tokens": 128, "lr_warmup_steps": 2, "device": "cpu"},
    }  # fmt: skip
    (tmp_path / "brought.yaml").write_text(yaml.safe_dump(values))
    return tmp_path, environment


def test_both_run_from_prepare_to_report(brought: tuple[Path, dict[str, str]]) -> None:
    folder, environment = brought
    done = subprocess.run(
        command("pipeline", folder / "brought.yaml", "--local"),
        env=environment, cwd=folder, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = (folder / "lines.txt").read_text().splitlines()
    checkpoints, results = folder / "checkpoints" / "brought", folder / "results" / "brought"
    with h5py.File(checkpoints / "activations" / "tokens" / "shard_0001.h5") as file:
        assert file.attrs["data_kind"] == "lines"
        letters = "".join(chr(ord("A") + unit) for unit in file["unit"][:].tolist())
        assert letters == "".join(lines[25:50])
    metrics = json.loads((checkpoints / "saes" / "layer_01" / "metrics.json").read_text())
    assert (metrics["loss_cells"], metrics["loss_name"]) == (12, "cross-entropy of hidden letters, in nats")
    units = pd.read_parquet(results / "layer_01" / "feature_units.parquet")
    assert set(units["unit_name"]) <= set("ABCDEFGH")
    assert not (results / "layer_01" / "feature_terms.parquet").exists()  # its units are no genes
    report = (results / "report.md").read_text()
    assert "60 lines went through the model" in report
    assert "| **Lines** | 60, of which 12 held out from training |" in report
    assert not re.search(r"\b(genes?|cells?|proteins?|residues?)\b", report.replace("sae.loss_recovered_cells", ""))


def test_names_are_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "liner", ("tests.data.liner.config", "tests.data.liner.model"))
    models.register("liner", "tests.data.liner")  # the same again
    with pytest.raises(ValueError, match="liner: that name is taken by tests"):
        models.register("liner", "another")
    with pytest.raises(ValueError, match="cells: that name is taken"):
        kinds.register("cells", "another:Cells")
