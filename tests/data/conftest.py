"""Made-up h5ad files in every storage, and runs over them with a tiny checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sae_genomics.config import parse_config
from sae_genomics.run import Run

MODEL = Path(__file__).parents[1] / "fixtures" / "tx1_parity" / "relu_70m_style"
STORAGES = ("csr", "csc", "dense")


def model_genes() -> list[str]:
    """The 120 gene names that the tiny model knows, by id."""
    vocabulary = json.loads((MODEL / "vocab.json").read_text())
    return [name for name in sorted(vocabulary, key=vocabulary.get) if not name.startswith("<")]


def random_counts(cells: int = 60, genes: int = 120, seed: int = 0, mean: float = 1.0) -> np.ndarray:
    """float32 [cells, genes] with zeros, ones and a few larger counts."""
    rng = np.random.default_rng(seed)
    return rng.poisson(rng.gamma(0.7, mean / 0.7, (cells, genes))).astype(np.float32)


def stored(values: np.ndarray, storage: str) -> Any:
    return {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}[storage](values)


def log_normalised(counts: np.ndarray, target: float = 1e4) -> np.ndarray:
    """log1p of counts scaled to `target` a cell."""
    depth = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return np.log1p(counts.astype(np.float64) * target / depth).astype(np.float32)


def write_cells(
    path: Path,
    values: np.ndarray | None,
    names: list[str] | None = None,
    storage: str = "csr",
    layers: dict[str, np.ndarray] | None = None,
    raw: np.ndarray | None = None,
    obs: dict[str, Any] | None = None,
    var: dict[str, Any] | None = None,
    obsm: dict[str, np.ndarray] | None = None,
    **options: Any,
) -> Path:
    """An h5ad; `values` is X, all matrices in the same storage. Gene names default to the model's."""
    first = next(each for each in (values, raw, *(layers or {}).values()) if each is not None)
    n_cells, n_genes = first.shape
    frame = pd.DataFrame(obs or {}, index=[f"cell{i}" for i in range(n_cells)])
    genes = pd.DataFrame(var or {}, index=names or model_genes()[:n_genes])
    adata = ad.AnnData(obs=frame, var=genes)
    if raw is not None:
        adata.X = stored(raw, storage)
        adata.raw = adata.copy()
    adata.X = None if values is None else stored(values, storage)
    for name, layer in (layers or {}).items():
        adata.layers[name] = stored(layer, storage)
    for name, array in (obsm or {}).items():
        adata.obsm[name] = array
    adata.write_h5ad(path, **options)
    return path


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """make_run(path, **sections) -> a run over that file with the tiny model; nothing is written."""

    def make(path: Path | str, **sections: dict[str, Any]) -> Run:
        values: dict[str, Any] = {
            "run": {"name": "small"},
            "paths": {name: str(tmp_path / "out" / name) for name in ("checkpoints", "results", "logs")},
            "data": {"path": str(path)},
            "model": {"path": str(MODEL)},
            "activations": {"cells_per_shard": 25},
        }
        for section, keys in sections.items():
            values.setdefault(section, {}).update(keys)
        return Run(parse_config(values, "test"))

    return make


def files_under(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")} if folder.exists() else set()
