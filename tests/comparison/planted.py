"""Runs that were validated, made of tables: each feature reads one of 60 gene sets off, or nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from sae_genomics.artifacts import FEATURE_GENES, GENE_TOKENS
from sae_genomics.config import dump_config, parse_config
from sae_genomics.run import Run
from sae_genomics.validation.task import run_task

N_SETS, SET_SIZE = 60, 10
N_GENES = N_SETS * SET_SIZE


def gmt(folder: Path) -> Path:
    """Sets of ten genes. `copy 0` has the genes of `set 0` and one more."""
    path = folder / "planted.gmt"
    sets = [(f"set {i}", range(SET_SIZE * i, SET_SIZE * (i + 1))) for i in range(N_SETS)]
    sets.append(("copy 0", range(SET_SIZE + 1)))
    path.write_text("".join(f"{name}\tplanted\t" + "\t".join(f"SYM{g}" for g in genes) + "\n" for name, genes in sets))
    return path


def gene_rows(feature: int, genes: np.ndarray) -> pd.DataFrame:
    n = len(genes)
    return pd.DataFrame(
        {
            "feature": np.int32(feature), "gene_id": [f"ENSG{g}" for g in genes], "gene_symbol": [f"SYM{g}" for g in genes],
            "score": np.linspace(9, 1, n), "mean_activation": 1.0, "firing_rate": 0.5, "n_tokens": 10,
            "specificity": np.linspace(3, 0.1, n), "rank_score": np.arange(1, n + 1), "rank_specificity": np.arange(1, n + 1),
        }
    )  # fmt: skip


def validated(folder: Path, name: str, sets: dict[int, list[int]], gmt_file: Path, seed: int = 0) -> Path:
    """The results of a run whose features read these sets off: layer -> sets. Two more features a layer read nothing."""
    values = {
        "run": {"name": name},
        "paths": {kind: str(folder / kind) for kind in ("checkpoints", "results", "logs", "databases")},
        "data": {"path": "unused.h5ad"},
        "validation": {"builtin": False, "gmt": [str(gmt_file)], "shuffles": 1, "baselines": []},
    }
    run = Run(parse_config(values, "test"))
    run.__dict__.update(layers=sorted(sets), model_info=SimpleNamespace(name="toy", identity="m", n_layers=9))
    generator = np.random.default_rng(seed)
    genes = np.arange(N_GENES)
    tokens = pd.DataFrame(
        {
            "gene_id": [f"ENSG{g}" for g in genes], "gene_symbol": [f"SYM{g}" for g in genes],
            "n_tokens_stored": generator.integers(20, 60, N_GENES), "mean_expression": generator.random(N_GENES) + 1,
            "n_tokens_untrained": 30,
        }
    )  # fmt: skip
    for task, layer in enumerate(sorted(sets)):
        layer_folder = run.layer_results(layer)
        layer_folder.mkdir(parents=True)
        GENE_TOKENS.write(layer_folder / GENE_TOKENS.file, tokens)
        readers = [
            np.concatenate([np.arange(SET_SIZE * i, SET_SIZE * (i + 1))[:8], generator.choice(genes, 4, False)])
            for i in sets[layer]
        ]
        listed = [*readers, *(generator.choice(genes, 12, False) for _ in range(2))]
        FEATURE_GENES.write(
            layer_folder / FEATURE_GENES.file,
            pd.concat([gene_rows(f, np.array(list(dict.fromkeys(each)))) for f, each in enumerate(listed)]),
        )
        run_task(run, task)
    (run.results / "config.yaml").write_text(dump_config(run.config))
    return run.results
