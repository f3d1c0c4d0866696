"""Extraction against tahoe-x1's own loader with hooks, and against what the machine's matrix products allow.

    python benchmarks/extraction.py [--reference-python PATH] [--json]

A random model of the 70M release's shape and made-up cells with log-normal lengths. Ours is the stage as it runs:
counts read from an h5ad, tokenised, all layers captured in one pass, written to HDF5. The peer is the tahoe-x1 package
in an environment of its own (see benchmarks/reference_extraction.py), which captures the same layers and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import sae_genomics  # noqa: F401  before torch: it says how torch's threads wait

# isort: split
import anndata
import numpy as np
import pandas as pd
import torch
import yaml
from safetensors.torch import save_file
from scipy.sparse import csr_matrix

from sae_genomics.activations.extraction.extract import loaded_model, run_task
from sae_genomics.config import ModelConfig, parse_config
from sae_genomics.execute import execute, peak_memory
from sae_genomics.kernels import onednn
from sae_genomics.models import pick_device, used_dtype
from sae_genomics.run import Run
from sae_genomics.stages import stage_named

SHAPES = {  # d_model, layers, heads
    "tiny": (64, 2, 4),
    "70m": (512, 12, 8),
    "1.3b": (2048, 24, 16),
}
N_GENES = 20_000
DTYPES = ("float32", "bfloat16")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="70m", help="default: %(default)s")
    parser.add_argument("--cells", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads of both sides; default: all cores")
    parser.add_argument("--device", default="auto", help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="the best of so many; default: %(default)s")
    parser.add_argument("--batch-tokens", type=int, default=16_384, help="default: %(default)s")
    parser.add_argument("--compile", action="store_true", help="model.compile on; compiling is not timed")
    parser.add_argument("--reference-python", type=Path, help="python of an environment where tahoe-x1 imports")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads or os.cpu_count() or 1)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with tempfile.TemporaryDirectory(prefix="extraction-") as folder:
        result = compare(Path(folder), arguments)
    if arguments.json:
        print(json.dumps(result))
    return 0


def compare(folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    d_model, n_layers, n_heads = SHAPES[arguments.shape]
    write_release(folder / "model", d_model, n_layers, n_heads)
    write_cells(folder / "cells.h5ad", arguments.cells)
    reference = [run_reference(folder, arguments, d_model, n_layers, n_heads)]  # before ours, and after
    rows: dict[str, dict[str, Any]] = {}
    for dtype, measured in measure(folder, n_layers, arguments).items():
        model = ModelConfig(compute_dtype=dtype)
        used = used_dtype(model, pick_device(arguments.device))
        limit = matrix_products_a_second(d_model, used, arguments.device) / (24 * d_model**2 * n_layers)
        rows[dtype] = {**measured, "computed_in": used, "limit": limit, "share_of_limit": measured["ours"] / limit}
    reference.append(run_reference(folder, arguments, d_model, n_layers, n_heads))
    runs = [rate for rate in reference if rate]
    peer = max(runs, default=None)
    for dtype, row in rows.items():
        row["peer"] = peer
        row["ratio"] = row["ours"] / peer if peer else None
        computed = "" if row["computed_in"] == dtype else f"(computed in {row['computed_in']}) "
        versus = (
            f"{row['ratio']:.1f} x the reference's {' and '.join(f'{rate:,.0f}' for rate in runs)}"
            if peer
            else "reference not run"
        )
        print(
            f"{dtype:9s} {computed}{row['ours']:,.0f} tokens/s, {versus}; {row['share_of_limit']:.0%} of the {row['limit']:,.0f} that the "
            f"encoder's matrix products alone allow; all {n_layers} layers cost {row['all_over_one_layer']:.2f} x one deep layer"
        )
    return {
        "name": f"extraction_{arguments.shape}",
        "unit": "real tokens/s",
        "peer_name": "tahoe-x1 1.0.0, float32",
        **rows["float32"],
        "bfloat16": rows["bfloat16"],
        "cells": arguments.cells,
        "threads": torch.get_num_threads(),
        "compile": arguments.compile,
        "device": str(pick_device(arguments.device)),
        "peak_memory_bytes": peak_memory(),
    }


def measure(folder: Path, n_layers: int, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """dtype -> real tokens a second of the stage, and what all layers cost beside the deepest alone.

    The runs of one kind lie apart in time: a slow minute of the machine then falls on none alone.
    """
    best: dict[tuple[str, str], float] = {}
    for repeat in range(arguments.repeats):
        for dtype in DTYPES:
            for name, layers in (("all", "all"), ("one", [n_layers - 1])):
                run = make_run(folder, f"{dtype}_{name}_{repeat}", dtype, layers, arguments)
                loaded_model(run)
                start = time.perf_counter()
                run_task(run, 0)
                best[dtype, name] = min(best.get((dtype, name), np.inf), time.perf_counter() - start)
                shutil.rmtree(run.checkpoints)
    tokens = json.loads(run.plan_file.read_text())["n_tokens"]
    return {
        dtype: {
            "ours": tokens / best[dtype, "all"],
            "seconds": best[dtype, "all"],
            "tokens": tokens,
            "all_over_one_layer": best[dtype, "all"] / best[dtype, "one"],
        }
        for dtype in DTYPES
    }


def make_run(folder: Path, name: str, dtype: str, layers: object, arguments: argparse.Namespace) -> Run:
    values = {
        "run": {"name": name},
        "paths": {root: str(folder / root) for root in ("checkpoints", "results", "logs")},
        "data": {"path": str(folder / "cells.h5ad")},
        "model": {
            "path": str(folder / "model"), "layers": layers, "device": arguments.device, "compute_dtype": dtype,
            "compile": arguments.compile,
        },
        "activations": {"dtype": dtype, "cells_per_shard": arguments.cells, "batch_tokens": arguments.batch_tokens},
    }  # fmt: skip
    run = Run(parse_config(values, "benchmark"))
    execute(run, stage_named("prepare"), 0)
    return run


def matrix_products_a_second(d_model: int, dtype: str, device: str, rows: int = 4096, seconds: float = 1.0) -> float:
    """FLOP/s of the encoder's four matrix products on `rows` tokens, nothing else, by the faster library there is."""
    where = pick_device(device)
    kind = getattr(torch, dtype)
    x = torch.randn(rows, d_model, device=where).to(kind)
    wide = torch.randn(rows, 4 * d_model, device=where).to(kind)
    shapes = [(x, 3 * d_model), (x, d_model), (x, 4 * d_model), (wide, d_model)]
    weights = [torch.randn(n_out, source.shape[1], device=where).to(kind) for source, n_out in shapes]

    def torch_linear(source: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(source, weight)

    def onednn_linear(source: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return onednn.product(source, weight, None)

    def rate(product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> float:
        def once() -> None:
            for (source, _), weight in zip(shapes, weights, strict=True):
                product(source, weight)
            if where.type == "cuda":
                torch.cuda.synchronize()

        once()
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            once()
            count += 1
        return 24 * d_model**2 * rows * count / (time.perf_counter() - start)

    products = [torch_linear]
    if where.type == "cpu" and onednn.available(kind):
        products.append(onednn_linear)
    with torch.inference_mode():
        return max(rate(product) for product in products)


def run_reference(
    folder: Path, arguments: argparse.Namespace, d_model: int, n_layers: int, n_heads: int
) -> float | None:
    """The reference's real tokens a second, or None without its python."""
    if arguments.reference_python is None:
        return None
    script = Path(__file__).with_name("reference_extraction.py")
    settings = {
        "cells": str(folder / "cells.h5ad"), "d_model": d_model, "n_layers": n_layers, "n_heads": n_heads,
        "n_genes": N_GENES, "threads": torch.get_num_threads(),
    }  # fmt: skip
    ours = ("PYTHONPATH", "OMP_WAIT_POLICY")  # the reference has its own
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    done = subprocess.run(
        [str(arguments.reference_python), str(script), json.dumps(settings)],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"the reference failed:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return float(found["real_tokens_per_s"])


def write_cells(path: Path, n_cells: int, seed: int = 0) -> None:
    """Cells with log-normal numbers of expressed genes (median 735, 200 to 3 000) and Poisson counts."""
    rng = np.random.default_rng(seed)
    n_expressed = np.clip(rng.lognormal(6.6, 0.5, n_cells).astype(int), 200, 3000)
    columns = [np.sort(rng.choice(N_GENES, n, replace=False)) for n in n_expressed]
    data = 1 + rng.poisson(1.5, n_expressed.sum())
    counts = csr_matrix(
        (data.astype(np.float32), np.concatenate(columns), np.concatenate([[0], np.cumsum(n_expressed)])),
        shape=(n_cells, N_GENES),
    )
    names = pd.Index([f"g{i}" for i in range(N_GENES)])
    obs = pd.DataFrame(index=[f"c{i}" for i in range(n_cells)])
    anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=names)).write_h5ad(path)


def write_release(folder: Path, d_model: int, n_layers: int, n_heads: int, seed: int = 0) -> None:
    """A random checkpoint of the release's shape: ReLU, pre-norm, gene and value norms, four times wider MLP."""
    folder.mkdir(parents=True)
    model = {
        "name": "tahoe_x1", "d_model": d_model, "n_layers": n_layers, "n_heads": n_heads, "expansion_ratio": 4,
        "vocab_size": N_GENES + 3, "norm_scheme": "pre", "use_glu": False, "cell_emb_style": "cls",
        "transformer_activation": "relu", "attn_config": {"attn_impl": "flash", "attn_type": "grouped_query_attention"},
        "norm_config": {"norm_type": "layernorm", "eps": 1e-5}, "gene_encoder": {"use_norm": True},
        "mvc": {"arch_style": "inner product", "query_activation": "sigmoid", "scaled_dot_product": True},
        "expression_encoder": {"input_emb_style": "continuous", "max_value": 512, "activation": "relu", "use_norm": True},
        "expression_decoder": {"n_outputs": 1, "n_layers": 1, "activation": "leaky_relu"},
    }  # fmt: skip
    collator = {
        "do_padding": True, "pad_value": -2, "do_binning": True, "mask_value": -1, "max_length": 1024, "sampling": True,
        "num_bins": 51, "right_binning": False, "use_junk_tokens": False, "pad_token_id": N_GENES,
    }  # fmt: skip
    vocabulary = {f"g{i}": i for i in range(N_GENES)} | {"<pad>": N_GENES, "<cls>": N_GENES + 1, "<eoc>": N_GENES + 2}
    (folder / "model_config.yml").write_text(yaml.safe_dump(model))
    (folder / "collator_config.yml").write_text(yaml.safe_dump(collator))
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    generator = torch.Generator().manual_seed(seed)

    def linear(name: str, n_out: int, n_in: int) -> dict[str, torch.Tensor]:
        weight = torch.randn(n_out, n_in, generator=generator) / n_in**0.5
        return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(n_out)}

    def norm(name: str) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": torch.ones(d_model), f"{name}.bias": torch.zeros(d_model)}

    weights = {
        "gene_encoder.embedding.weight": torch.randn(N_GENES + 3, d_model, generator=generator),
        "flag_encoder.weight": torch.randn(2, d_model, generator=generator),
        **norm("gene_encoder.enc_norm"),
        **linear("expression_encoder.linear1", d_model, 1),
        **linear("expression_encoder.linear2", d_model, d_model),
        **norm("expression_encoder.norm"),
        **norm("transformer_encoder.norm"),
        **linear("expression_decoder.linear_layers.0", d_model, d_model),
        **linear("expression_decoder.out_proj", 1, d_model),
        **linear("mvc_decoder.gene2query", d_model, d_model),
        "mvc_decoder.W.weight": torch.randn(d_model, d_model, generator=generator) / d_model**0.5,
    }
    for layer in range(n_layers):
        block = f"transformer_encoder.layers.{layer}"
        weights |= linear(f"{block}.self_attn.Wqkv", 3 * d_model, d_model)
        weights |= linear(f"{block}.self_attn.out_proj", d_model, d_model)
        weights |= linear(f"{block}.up_proj", 4 * d_model, d_model)
        weights |= linear(f"{block}.down_proj", d_model, 4 * d_model)
        weights |= norm(f"{block}.norm1") | norm(f"{block}.norm2")
    save_file({f"model.{name}": value for name, value in weights.items()}, folder / "model.safetensors")


if __name__ == "__main__":
    sys.exit(main())
