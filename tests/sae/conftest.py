"""A run whose extraction is done: real files of activations with a known dictionary in them, no model needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from sae_genomics.activations.format.store import ActivationWriter, Header
from sae_genomics.activations.format.token_store import TokenShard, write_tokens
from sae_genomics.artifacts import CELLS
from sae_genomics.config import RunConfig
from sae_genomics.models import ModelInfo
from sae_genomics.run import Run


@pytest.fixture(autouse=True)
def _threads() -> None:
    torch.set_num_threads(1)


class MemoryBatches:
    """Shuffled rows from memory, with the same manners as the reader of files."""

    def __init__(self, rows: torch.Tensor, batch_rows: int, seed: int = 0):
        self.rows, self.batch_rows, self.seed, self.position = rows, batch_rows, seed, 0
        self.n_rows = len(rows)

    def __next__(self) -> torch.Tensor:
        taken = []
        while len(taken) < self.batch_rows:
            epoch, start = divmod(self.position, self.n_rows)
            order = np.random.default_rng([self.seed, epoch]).permutation(self.n_rows)
            part = order[start : start + self.batch_rows - len(taken)]
            taken.extend(part.tolist())
            self.position += len(part)
        return self.rows[taken]

    def state(self) -> dict[str, Any]:
        return {"position": self.position}

    def restore(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


def planted_rows(n_rows: int, n_directions: int, d_in: int, k: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows that are sums of k random directions with weights in [1, 2]; the directions, unit rows."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(n_directions, d_in, generator=generator), dim=1)
    chosen = torch.rand(n_rows, n_directions, generator=generator).topk(k, dim=1).indices
    weights = torch.zeros(n_rows, n_directions).scatter_(1, chosen, 1 + torch.rand(n_rows, k, generator=generator))
    return weights @ directions, directions


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """make_run(n_cells=..., genes_per_cell=..., heldout=..., **sae) -> Run with prepare's and extract's files in place."""

    def make(
        n_cells: int = 40, genes: int = 30, d_in: int = 16, heldout: float = 0.25, shards: int = 2,
        rows: torch.Tensor | None = None, layers: tuple[int, ...] = (1,), name: str = "planted",
        units: np.ndarray | None = None, **sae: Any,
    ) -> Run:  # fmt: skip
        per_shard = -(-n_cells // shards)
        settings = {
            "d_sae": 32,
            "k": 4,
            "steps": 30,
            "batch_tokens": 128,
            "device": "cpu",
            "log_every": 5,
            "loss_recovered_cells": 0,
            **sae,
        }
        config = RunConfig.model_validate(
            {
                "run": {"name": name},
                "paths": {part: str(tmp_path / name / part) for part in ("checkpoints", "results", "logs")},
                "data": {"path": str(tmp_path / "cells.h5ad")},
                "activations": {"cells_per_shard": per_shard},
                "sae": settings,
            }
        )
        run = Run(config)
        info = ModelInfo("tx1", "toy", max(layers) + 1, d_in, 2, 64, 0, "abc")
        run.__dict__.update(
            layers=list(layers), model_info=info, content_hashes={"data": "d", "model": "m"}, n_items=n_cells,
            data_files=[tmp_path / "cells.h5ad"],
        )  # fmt: skip
        run.data_file.touch()
        cells = pd.DataFrame(
            {
                "cell": np.arange(n_cells), "cell_id": [f"c{i}" for i in range(n_cells)],
                "heldout": np.arange(n_cells) < round(heldout * n_cells), "cell_type": None, "group": None,
                "n_counts": 1.0, "n_genes": np.int32(genes),
            }
        )  # fmt: skip
        CELLS.write(run.cells_file, cells)
        tokens_per_cell = genes + 1
        if rows is None:
            rows = planted_rows(n_cells * tokens_per_cell, 24, d_in, 4, seed=3)[0] * 3 + 0.5
        if units is None:
            units = np.zeros(len(rows), np.int32)
        for shard in range(run.n_shards):
            first, last = run.shard_items(shard)
            here = slice(first * tokens_per_cell, last * tokens_per_cell)
            n = (last - first) * tokens_per_cell
            position = np.tile(np.arange(tokens_per_cell, dtype=np.int32), last - first)
            tokens = TokenShard(
                item=np.repeat(np.arange(first, last), tokens_per_cell), token=units[here].astype(np.int32),
                unit=units[here].astype(np.int32), position=position, weight=np.ones(n, np.float32), special=position == 0,
                item_ptr=np.arange(0, n + 1, tokens_per_cell), per_token={"value": np.ones(n, np.float32)},
                fingerprint="f", shard=shard,
            )  # fmt: skip
            run.tokens_file(shard).parent.mkdir(parents=True, exist_ok=True)
            write_tokens(run.tokens_file(shard), tokens)
            part = rows[here].numpy()
            for layer in layers:
                path = run.activations_file(layer, shard)
                path.parent.mkdir(parents=True, exist_ok=True)
                writer = ActivationWriter(
                    path, Header("f", "toy", "abc", "resid_post", layer, shard, d_in, "float32"), n
                )
                writer.write(0, np.ascontiguousarray(part))
                writer.finish(
                    np.empty(0, np.int64), part.mean(axis=0, dtype=np.float64), float((part**2).sum(1).mean())
                )
        return run

    return make
