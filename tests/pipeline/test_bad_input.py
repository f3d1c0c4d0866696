"""Every kind of bad input: one line that says what and what to type, exit code 2, no traceback, nothing written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import sparse

from sae_genomics.cli import main
from tests.pipeline.conftest import ROOT, files_under, run_command

DEMO_MODEL = ROOT / "sae_genomics" / "assets" / "demo_model"


def symbols(n: int) -> list[str]:
    vocabulary = json.loads((DEMO_MODEL / "vocab.json").read_text())
    return [name for name in vocabulary if not name.startswith("<")][:n]


def write_h5ad(path: Path, counts: np.ndarray, names: list[str] | None = None, **obs: Any) -> Path:
    frame = pd.DataFrame(obs, index=[f"cell{i}" for i in range(len(counts))])
    var = pd.DataFrame(index=names or symbols(counts.shape[1]))
    ad.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=frame, var=var).write_h5ad(path)
    return path


def good_counts(cells: int = 12, genes: int = 100) -> np.ndarray:
    return np.random.default_rng(0).poisson(1.0, (cells, genes)).astype(np.float32)


def refused(capsys: pytest.CaptureFixture[str], config: Path, *extra: str, written: int = 0) -> str:
    """Run the pipeline; the error line. Fails unless exit code 2, one error line, no traceback, nothing written."""
    before = files_under(config.parent)
    assert main(["pipeline", str(config), "--local", *extra]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, error
    assert files_under(config.parent) == before, "a refused command leaves nothing behind"
    return lines[0]


def bad_data(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "bad.h5ad"
    counts = good_counts()
    if kind == "absent":
        return path
    if kind == "text":
        path.write_text("not an h5ad\n" * 100)
    elif kind == "truncated":
        write_h5ad(path, good_counts(200, 300))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "no cells":
        write_h5ad(path, np.zeros((0, 100)))
    elif kind == "no genes":
        write_h5ad(path, counts, [f"unknown{i}" for i in range(100)])
    else:
        counts[3, 7] = {"negative": -1.0, "nan": np.nan, "fraction": 1.37}[kind]
        write_h5ad(path, counts)
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("absent", ["no such", "bad.h5ad"]),
        ("text", ["HDF5", "bad.h5ad"]),
        ("truncated", ["truncated", "bad.h5ad"]),
        ("no cells", ["no cells"]),
        ("no genes", ["unknown0", "gene"]),
        ("negative", ["negative"]),
        ("nan", ["NaN"]),
        ("fraction", ["data.allow_normalised"]),
    ],
)
def test_bad_data(
    tmp_path: Path, write_config: Callable[..., Path], capsys: pytest.CaptureFixture[str], kind: str, says: list[str]
) -> None:
    config = write_config(data={"path": str(bad_data(tmp_path, kind)), "cell_type_key": None})
    line = refused(capsys, config)
    for words in says:
        assert words.lower() in line.lower()


def test_missing_annotation_lists_those_there_are(
    tmp_path: Path, write_config: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_h5ad(tmp_path / "a.h5ad", good_counts(), tissue=["blood"] * 12)
    line = refused(capsys, write_config(data={"path": str(data), "cell_type_key": "celltype"}))
    assert "celltype" in line
    assert "tissue" in line


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("model.layers=[0, 99]", "99"),
        ("sae.kk=3", "sae.k"),
        ("model.hook=mlp", "mlp_out"),
        ("sae.k=129", "d_sae"),
        ("model.name=tahoe-x1-7b", "tahoe-x1-70m"),
        ("model.family=nothing", "tx1"),
        ("model.revision=main", "--set model.revision=null"),
        ("data.path=builtin:everything", "pbmc68k_reduced"),
        ("validation.gmt=[/nowhere/sets.gmt]", "/nowhere/sets.gmt"),
        ("validation.top_genes=300", "associations.top_genes"),
    ],
)
def test_bad_settings(
    write_config: Callable[..., Path], capsys: pytest.CaptureFixture[str], override: str, says: str
) -> None:
    assert says in refused(capsys, write_config(), "--set", override)


def test_k_beyond_a_derived_width(write_config: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert "sae.expansion" in refused(capsys, write_config(sae={"d_sae": None, "expansion": 1, "k": 4000}))


def test_disk_too_small(
    write_config: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type(usage)(usage.total, usage.total - 1000, 1000))
    line = refused(capsys, write_config())
    assert "disk" in line.lower() or "free" in line.lower()


@pytest.mark.parametrize("name", ["model_config.yml", "collator_config.yml", "vocab.json", "model.safetensors"])
def test_incomplete_model_folder(
    tmp_path: Path, write_config: Callable[..., Path], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    shutil.copytree(DEMO_MODEL, tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    assert name in refused(capsys, write_config(model={"name": None, "path": str(tmp_path / "model")}))


def test_weights_that_disagree_with_their_config(
    tmp_path: Path, write_config: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(DEMO_MODEL, tmp_path / "model")
    file = tmp_path / "model" / "model_config.yml"
    values = yaml.safe_load(file.read_text())
    values["d_model"] *= 2
    file.write_text(yaml.safe_dump(values))
    line = refused(capsys, write_config(model={"name": None, "path": str(tmp_path / "model")}))
    assert "shape" in line or "config" in line


def test_slurm_asked_for_and_not_there(
    write_config: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    config = write_config()
    assert main(["pipeline", str(config), "--slurm"]) == 2
    assert "sbatch" in capsys.readouterr().err
    assert files_under(tmp_path) == {"small.yaml"}


def test_the_command_itself_shows_no_traceback(write_config: Callable[..., Path]) -> None:
    finished = run_command("pipeline", write_config(data={"path": "/nowhere/cells.h5ad"}), "--local")
    assert finished.returncode == 2
    assert "Traceback" not in finished.stderr
    assert "/nowhere/cells.h5ad" in finished.stderr
