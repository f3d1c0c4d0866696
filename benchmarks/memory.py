"""Does memory grow with the number of cells? Peak memory of extract, train and associate at 10 000 and at 100 000 synthetic cells.

    python benchmarks/memory.py [--cells 10000,100000] [--genes-per-cell 40] [--json]

Each stage runs in a process of its own, so that its peak is its own. `ratio` is the peak at the most cells over that at the
fewest; 1.0 is flat. The last line with --json is one object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import yaml
from scipy import sparse

from sae_genomics.atomic import read_json
from sae_genomics.config import load_config
from sae_genomics.models import vocabulary
from sae_genomics.run import Run
from sae_genomics.stages import stage_named

STAGES = ("prepare", "extract", "train", "associate")


def write_cells(path: Path, genes: list[str], n_cells: int, genes_per_cell: int) -> None:
    """An h5ad of `n_cells` made-up cells of four types, each expressing about `genes_per_cell` genes."""
    random = np.random.default_rng(0)
    lengths = np.clip(random.poisson(genes_per_cell, n_cells), 1, len(genes))
    pointers = np.concatenate([[0], np.cumsum(lengths)])
    # Distinct genes a cell: a random start and a stride that is coprime to the number of genes.
    starts = np.repeat(random.integers(0, len(genes), n_cells), lengths)
    steps = np.arange(pointers[-1]) - np.repeat(pointers[:-1], lengths)
    columns = (starts + 7 * steps) % len(genes)
    counts = sparse.csr_matrix(
        (1.0 + random.poisson(1.0, pointers[-1]).astype(np.float32), columns, pointers), (n_cells, len(genes))
    )
    obs = pd.DataFrame(
        {"cell_type": pd.Categorical(random.integers(0, 4, n_cells).astype(str))}, index=np.arange(n_cells).astype(str)
    )
    ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=genes)).write_h5ad(path)


def peaks(folder: Path, n_cells: int, genes_per_cell: int) -> dict[str, float]:
    """Stage → peak memory in MiB, the largest of its tasks."""
    config = folder / f"cells_{n_cells}.yaml"
    values = {
        "run": {"name": f"cells_{n_cells}"},
        "paths": {root: str(folder / root) for root in ("checkpoints", "results", "logs")},
        "data": {"path": str(folder / f"cells_{n_cells}.h5ad")},
        "model": {"name": "demo", "layers": [0], "device": "cpu"},
        "activations": {"cells_per_shard": 2000},
        "sae": {"steps": 60, "batch_tokens": 1024, "d_sae": 512, "k": 16, "device": "cpu"},
    }
    config.write_text(yaml.safe_dump(values))
    run = Run(load_config(config), config)
    write_cells(folder / f"cells_{n_cells}.h5ad", sorted(vocabulary(run.config.model)), n_cells, genes_per_cell)
    found = {}
    for name in STAGES:
        subprocess.run(
            [sys.executable, "-m", "sae_genomics.cli", "stage", name, "--config", str(config)],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        stage = stage_named(name)
        manifests = [read_json(run.manifest_file(stage, task)) for task in range(run.n_tasks(stage))]
        found[name] = max(manifest["peak_memory_bytes"] for manifest in manifests if manifest) / 2**20
        print(f"{n_cells:>9,} cells  {name:<10} {found[name]:8.0f} MiB", flush=True)
    shutil.rmtree(folder / "checkpoints")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", default="10000,100000", help="numbers of cells, ascending (default: %(default)s)")
    parser.add_argument("--genes-per-cell", type=int, default=40, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.cells.split(",")]
    with tempfile.TemporaryDirectory(prefix="sae_genomics_memory_") as folder:
        found = {size: peaks(Path(folder), size, arguments.genes_per_cell) for size in sizes}
    ratios = {name: found[sizes[-1]][name] / found[sizes[0]][name] for name in STAGES}
    for name, ratio in ratios.items():
        print(f"{name:<10} {ratio:.3f} x the memory for {sizes[-1] / sizes[0]:.0f} x the cells")
    if arguments.json:
        worst = max(("extract", "train", "associate"), key=lambda name: ratios[name])
        summary = {
            "name": "memory", "unit": "MiB", "ours": round(found[sizes[-1]][worst], 1), "peer": round(found[sizes[0]][worst], 1),
            "peer_name": f"{worst} at {sizes[0]} cells", "ratio": round(ratios[worst], 4), "limit": 1.1,
            "share_of_limit": round(ratios[worst] / 1.1, 4), "ratios": {name: round(ratio, 4) for name, ratio in ratios.items()},
            "cells": sizes, "peaks_mib": {str(size): {name: round(peak, 1) for name, peak in found[size].items()} for size in sizes},
        }  # fmt: skip
        print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
