"""A run small enough to go through the whole pipeline in seconds: real cells' layout, a real checkpoint, every stage."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import scipy.sparse as sp
import yaml

from sae_genomics.config import load_config
from sae_genomics.run import Run
from sae_genomics.stages import stage_named, stages_of
from tests.stage_names import OFF

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests" / "fixtures" / "tx1_parity" / "relu_70m_style"


class TinyRun:
    """A config, its cells and a cluster profile in a folder of their own, and the commands a person types about them."""

    def __init__(
        self,
        folder: Path,
        environment: dict[str, str],
        cells: int = 40,
        shards: int = 2,
        layers: Sequence[int] = (0, 1),
    ):
        self.folder, self.environment = folder, environment
        folder.mkdir(parents=True, exist_ok=True)
        write_cells(folder / "cells.h5ad", cells)
        self.config = folder / "tiny.yaml"
        self.values: dict[str, Any] = {
            "paths": {name: str(folder / name) for name in ("checkpoints", "results", "logs", "databases")},
            "data": {"path": str(folder / "cells.h5ad"), "symbol_key": "symbol"},
            "model": {"path": str(MODEL), "layers": list(layers), "device": "cpu"},
            "activations": {"cells_per_shard": -(-cells // shards)},
            "sae": {"k": 4, "d_sae": 32, "steps": 20, "batch_tokens": 128, "lr_warmup_steps": 2, "device": "cpu"},
            **OFF,
            "report": {"dashboard": False},
            "cluster": {"profile": str(folder / "cluster.yaml")},
        }
        self.profile: dict[str, Any] = {
            "defaults": {"cpus": 1, "memory": "1500M", "time": "00:30:00", "throttle": 20},
            "submit_wait_seconds": 0.2,
        }
        self.write()

    def write(self) -> None:
        self.config.write_text(yaml.safe_dump(self.values))
        (self.folder / "cluster.yaml").write_text(yaml.safe_dump(self.profile))

    @property
    def run(self) -> Run:
        return Run(load_config(self.config), self.config)

    # --- what a person types ---

    def pipeline(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.command("slurm/00_full_pipeline.sh", *arguments, check=check)

    def resubmit(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.command("slurm/resubmit_failed.sh", *arguments, check=check)

    def status(self, *arguments: str) -> str:
        return self.command("slurm/status.sh", *arguments).stdout

    def tasks(self) -> dict[tuple[str, str], dict[str, Any]]:
        """(stage, unit) to what `status --json` says of it."""
        return {(task["stage"], task["unit"]): task for task in json.loads(self.status("--json"))["tasks"]}

    def command(self, script: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        started = self.start(script, *arguments)
        output, error = started.communicate(timeout=300)
        assert not check or started.returncode == 0, (
            f"{script} {arguments}: exit code {started.returncode}\n{output}{error}"
        )
        return subprocess.CompletedProcess(started.args, started.returncode, output, error)

    def start(self, script: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a command without waiting for it."""
        return subprocess.Popen(
            ["bash", str(ROOT / script), str(self.config), *arguments],
            env={**self.environment, "SAE_GENOMICS_PYTHON": sys.executable},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.folder,
        )  # fmt: skip

    def stage(self, name: str) -> None:
        """Run all tasks of a stage here, without Slurm."""
        command = [
            sys.executable,
            str(ROOT / f"scripts/{stage_named(name).number:02d}_{name}.py"),
            "--config",
            str(self.config),
        ]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=600, cwd=ROOT)
        assert done.returncode == 0, done.stderr

    # --- what came of it ---

    def state(self, stage: str, task: int = 0) -> str:
        return self.run.state(stage_named(stage), task).status

    def all_done(self) -> bool:
        run = self.run
        return all(state.done for stage in stages_of(run) for state in run.states(stage))

    def logs(self) -> str:
        files = sorted(self.run.logs.glob("*.err"))
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')}" for path in files)

    def results(self, layer: int) -> dict[str, str]:
        """Hashes of everything that a layer's results consist of, times and places left out."""
        run = self.run
        hashes = {
            name: digest((run.sae_dir(layer) / name).read_bytes())
            for name in ("sae_weights.safetensors", "sparsity.safetensors")
        }
        for path in sorted(run.layer_results(layer).glob("*.parquet")):
            hashes[path.name] = digest(pq.read_table(path).to_pandas().to_csv(index=False).encode())
        features = anndata.read_h5ad(run.layer_results(layer) / "features.h5ad")
        hashes["features.h5ad"] = digest(sp.csr_matrix(features.X).toarray().tobytes())
        return hashes


def write_cells(path: Path, count: int, genes: int | None = None) -> None:
    """An h5ad of `count` cells over the checkpoint's genes, named by symbols that the built-in gene sets know."""
    names = [name for name in json.loads((MODEL / "vocab.json").read_text()) if not name.startswith("<")][:genes]
    sets = [
        line.split("\t")[2:]
        for gmt in sorted((ROOT / "sae_genomics/assets/gene_sets").glob("*.gmt"))
        for line in gmt.read_text().splitlines()
    ]
    symbols = list(dict.fromkeys(symbol for genes_of in sets for symbol in genes_of))[: len(names)]
    rng = np.random.default_rng(0)
    counts = (rng.random((count, len(names))) < 0.4) * rng.integers(1, 30, (count, len(names)))
    obs = pd.DataFrame({"cell_type": rng.choice(["a", "b"], count)}, index=[f"c{cell}" for cell in range(count)])
    var = pd.DataFrame({"symbol": symbols}, index=names)
    anndata.AnnData(sp.csr_matrix(counts.astype(np.float32)), obs=obs, var=var).write_h5ad(path)


def digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def process_of(folder: Path, stage: str, index: int) -> int | None:
    """Pid of the Python that works on an array task of a run in `folder`; None while there is none."""
    return next(iter(processes_of(folder, stage, index)), None)


def processes_of(folder: Path, stage: str, index: int) -> list[int]:
    """All of them, where an array task has several."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                environment = (entry / "environ").read_bytes().split(b"\0")
                program = os.readlink(entry / "exe").rpartition("/")[2]
            except OSError:
                continue
            if (
                b"sae_genomics.cluster.worker" in words
                and stage.encode() in words
                and any(str(folder).encode() in word for word in words)
                and f"SLURM_ARRAY_TASK_ID={index}".encode() in environment
                and program.startswith("python")
            ):
                found.append(int(entry.name))
    return sorted(found)
