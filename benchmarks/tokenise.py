"""Tokenisation of sparse counts against tahoe-x1's own dataset and collator.

    python benchmarks/tokenise.py [--reference-python PATH] [--json]

Made-up cells with log-normal numbers of expressed genes. Both sides start from the same csr matrix and end with the
values that the model is given; the values are compared. The peer needs an environment where the tahoe-x1 package imports
(docs/parity.md); without one only our side runs. The limit is memory alone: the counts and columns read, the arrays of
the tokens written, in the same batches, by plain copies in one thread.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, save_npz

sys.path.insert(0, str(Path(__file__).parents[1]))

N_GENES = 20_000
MAX_LENGTH = 4_096  # no cell is cut: which genes go is random on both sides, and differs

# runs under the reference's python: csr matrix in, values and seconds out; no worker processes, as on our side
PEER = """
import sys, time
import numpy as np, torch
from scipy.sparse import load_npz
from tahoe_x1.data import CountDataset, DataCollator
from tahoe_x1.tokenizer import GeneVocab
torch.set_num_threads(int(sys.argv[3]))
counts, n, batch_cells = load_npz(sys.argv[1]).tocsr(), int(sys.argv[4]), int(sys.argv[5])
tokens = {f"g{i}": i for i in range(n)} | {"<pad>": n, "<cls>": n + 1, "<eoc>": n + 2}
collate = DataCollator(vocab=GeneVocab.from_dict(tokens), pad_token_id=n, pad_value=-2, do_mlm=False, max_length=int(sys.argv[6]))
dataset = CountDataset(counts, np.arange(n), cls_token_id=n + 1, pad_value=-2)
def everything():
    parts = []
    for start in range(0, len(dataset), batch_cells):
        batch = collate([dataset[i] for i in range(start, min(start + batch_cells, len(dataset)))])
        real = batch["gene"] != n
        parts.append(batch["expr"][real].numpy())
    return np.concatenate(parts)
best = float("inf")
for _ in range(int(sys.argv[7])):
    start = time.perf_counter()
    values = everything()
    best = min(best, time.perf_counter() - start)
np.savez(sys.argv[2], values=values, seconds=best)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--median-genes", type=float, default=735, help="default: %(default)s")
    parser.add_argument(
        "--batch-cells", type=int, default=512, help="cells our side takes at once; default: %(default)s"
    )
    parser.add_argument("--peer-batch-cells", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=5, help="the best of so many; default: %(default)s")
    parser.add_argument("--reference-python", type=Path, help="python of an environment where tahoe-x1 imports")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    arguments = parser.parse_args()
    result = compare(arguments)
    print(f"ours   {result['ours']:>14,.0f} tokens/s   {result['share_of_limit']:.0%} of copying alone")
    if result["peer"] is not None:
        print(f"peer   {result['peer']:>14,.0f} tokens/s   {result['peer_name']}; same values")
        print(f"ratio  {result['ratio']:>14,.1f}")
    if arguments.json:
        print(json.dumps(result))
    return 0


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    from sae_genomics.models.tx1_tokenise import TokeniserSettings, tokenise

    torch.set_num_threads(arguments.threads)
    counts = made_up_counts(arguments.cells, arguments.median_genes)
    settings = TokeniserSettings(cls_token_id=N_GENES + 1, pad_token_id=N_GENES, max_length=MAX_LENGTH)
    gene_ids = np.arange(N_GENES, dtype=np.int32)
    blocks = [slice(start, start + arguments.batch_cells) for start in range(0, arguments.cells, arguments.batch_cells)]

    def everything() -> np.ndarray:
        rows = np.arange(arguments.cells)
        parts = [
            tokenise(counts[block], gene_ids, rows[block], settings=settings, seed=0).per_token["value"]
            for block in blocks
        ]
        return np.concatenate(parts)

    seconds, values = best_of(everything, arguments.repeats)
    limit_seconds, _ = best_of(lambda: [copied(counts, block) for block in blocks], arguments.repeats)
    peer = None
    if arguments.reference_python is not None:
        peer_seconds, peer_values = run_peer(counts, arguments)
        np.testing.assert_array_equal(values, peer_values)
        peer = len(values) / peer_seconds
    ours, limit = len(values) / seconds, len(values) / limit_seconds
    return {
        "name": "tokenise", "unit": "tokens/s", "ours": ours, "peer": peer, "peer_name": "tahoe-x1 1.0.0 CountDataset and DataCollator",
        "ratio": None if peer is None else ours / peer, "limit": limit, "share_of_limit": ours / limit,
        "cells": arguments.cells, "tokens": len(values), "batch_cells": arguments.batch_cells, "threads": arguments.threads,
    }  # fmt: skip


def made_up_counts(n_cells: int, median_genes: float) -> csr_matrix:
    """float32 csr [cells, N_GENES]; the numbers of genes are log-normal, the counts negative binomial."""
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(np.log(median_genes), 0.5, n_cells).astype(int), 100, MAX_LENGTH - 1)
    columns = [np.sort(generator.choice(N_GENES, length, replace=False)) for length in lengths]
    values = 1 + generator.negative_binomial(0.4, 0.2, lengths.sum())
    pointers = np.concatenate([[0], np.cumsum(lengths)])
    return csr_matrix((values.astype(np.float32), np.concatenate(columns), pointers), shape=(n_cells, N_GENES))


def copied(counts: csr_matrix, block: slice) -> tuple[np.ndarray, ...]:
    """The bytes of some cells' entries, copied into new arrays of the types that tokens have."""
    part = slice(counts.indptr[block.start], counts.indptr[min(block.stop, counts.shape[0])])
    cell = np.full(part.stop - part.start, block.start, dtype=np.int64)
    return cell, counts.indices[part].astype(np.int32), counts.data[part].copy(), counts.data[part].copy()


def best_of(work: Any, repeats: int) -> tuple[float, Any]:
    best, result = float("inf"), None
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return best, result


def run_peer(counts: csr_matrix, arguments: argparse.Namespace) -> tuple[float, np.ndarray]:
    with tempfile.TemporaryDirectory(prefix="tokenise-") as folder:
        given, found = Path(folder) / "counts.npz", Path(folder) / "values.npz"
        save_npz(given, counts, compressed=False)
        numbers = (arguments.threads, N_GENES, arguments.peer_batch_cells, MAX_LENGTH, max(arguments.repeats // 2, 1))
        command = [arguments.reference_python, "-W", "ignore", "-c", PEER, given, found, *numbers]
        subprocess.run(
            [str(word) for word in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        result = np.load(found)
        return float(result["seconds"]), result["values"]


if __name__ == "__main__":
    sys.exit(main())
