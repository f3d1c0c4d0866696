"""Geneformer's activations of all layers, against a plain transformers loop, and against what the machine's matrix products allow.

    python benchmarks/geneformer_extraction.py [--shape v1-10m] [--device cpu] [--json]

A random model of a published shape and made-up cells, whose numbers of genes are log-normal. The peer is transformers' BertModel with
forward hooks on all layers and batches of 8 cells as they come, padded. Ours is the model as the stage extract calls it. Both keep the
real rows of all layers of a batch in memory and write nothing. Rates count real tokens. `esm2_extraction.py` has what the two share.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import sae_genomics  # noqa: F401  before torch: it says how torch's threads wait

# isort: split
import numpy as np
import torch
from esm2_extraction import peer_padding, products_rate, run_ours, run_peer, timed
from scipy.sparse import csr_matrix
from transformers import BertConfig, BertForMaskedLM, BertModel
from transformers.utils import logging

from sae_genomics.items import CountItems
from sae_genomics.models import pick_device
from sae_genomics.models.geneformer.model import load_folder

SHAPES = {  # layers, d_model, heads, MLP, tokens of the longest cell, vocabulary
    "tiny": (2, 64, 4, 128, 128, 500),
    "v1-10m": (6, 256, 4, 512, 2048, 25_426),
    "v2-104m": (12, 768, 12, 3072, 4096, 20_275),
}
PAD = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="v1-10m", help="default: %(default)s")
    parser.add_argument("--cells", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads of both sides; default: all cores")
    parser.add_argument("--device", default="auto", help="default: %(default)s")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--repeats", type=int, default=3, help="the best of so many; default: %(default)s")
    parser.add_argument("--batch-tokens", type=int, default=16_384, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads or os.cpu_count() or 1)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with tempfile.TemporaryDirectory(prefix="geneformer-") as folder:
        result = compare(Path(folder), arguments)
    if arguments.json:
        print(json.dumps(result))
    return 0


def compare(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    device = pick_device(arguments.device)
    n_layers, d_model, _, d_mlp, most, vocabulary = SHAPES[arguments.shape]
    write_checkpoint(folder, arguments.shape)
    ours = load_folder(folder, device=str(device), dtype=arguments.dtype)
    peer = BertModel.from_pretrained(folder, add_pooling_layer=False, dtype=getattr(torch, arguments.dtype))
    peer = peer.eval().to(device)
    tokens = ours.tokenise(made_up_cells(arguments.cells, most, vocabulary), 0)
    run_ours(ours, tokens.take(np.arange(4)), arguments.batch_tokens)  # compiles kernels
    run_peer(peer, tokens.take(np.arange(4)), device, PAD)
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    padding = 0.0
    for _ in range(arguments.repeats):  # in turn: a slow minute of the machine then falls on neither alone
        ours._read = ours._computed = 0
        seconds["ours"].append(timed(device, lambda: run_ours(ours, tokens, arguments.batch_tokens)))
        padding = ours.padding_share
        seconds["peer"].append(timed(device, lambda: run_peer(peer, tokens, device, PAD)))
    rates = {name: len(tokens) / min(times) for name, times in seconds.items()}
    limit = products_rate(ours, device) / (2 * n_layers * (4 * d_model**2 + 2 * d_model * d_mlp))
    result = {
        "name": f"geneformer_extraction_{arguments.shape}", "unit": "real tokens/s",
        "peer_name": "transformers, batches of 8 as they come", **rates, "ratio": rates["ours"] / rates["peer"],
        "padding": padding, "peer_padding": peer_padding(tokens.lengths), "limit": limit, "share_of_limit": rates["ours"] / limit,
        "cells": arguments.cells, "tokens": len(tokens), "device": str(device), "dtype": arguments.dtype,
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    print(
        f"{rates['ours']:,.0f} tokens/s, {result['ratio']:.2f} x the plain loop's {rates['peer']:,.0f}; padding {padding:.1%} "
        f"of computed tokens (plain loop {result['peer_padding']:.0%}); {result['share_of_limit']:.0%} of the {limit:,.0f} that the "
        f"encoder's matrix products alone allow"
    )
    return result


def write_checkpoint(folder: Path, shape: str) -> None:
    """A random model, and dictionaries of its size."""
    n_layers, d_model, n_heads, d_mlp, most, vocabulary = SHAPES[shape]
    config = BertConfig(
        vocab_size=vocabulary, hidden_size=d_model, num_hidden_layers=n_layers, num_attention_heads=n_heads,
        intermediate_size=d_mlp, max_position_embeddings=most, hidden_act="relu", pad_token_id=PAD,
    )  # fmt: skip
    torch.manual_seed(0)
    BertForMaskedLM(config).save_pretrained(folder)
    genes = {f"ENSG{number:011d}": number for number in range(2, vocabulary)}
    medians = dict(zip(genes, np.random.default_rng(0).lognormal(size=len(genes)).tolist(), strict=True))
    (folder / "token_dictionary.pkl").write_bytes(pickle.dumps({"<pad>": PAD, "<mask>": 1, **genes}))
    (folder / "gene_median_dictionary.pkl").write_bytes(pickle.dumps(medians))


def made_up_cells(count: int, most: int, vocabulary: int) -> CountItems:
    """As many genes as droplets have them: median half of what the model reads, a long tail that is cut."""
    generator = np.random.default_rng(0)
    n_genes = np.exp(generator.normal(np.log(most / 2), 0.6, count)).astype(int).clip(20, vocabulary - 2)
    columns = np.concatenate([np.sort(generator.choice(vocabulary - 2, n, replace=False)) for n in n_genes])
    counts = generator.geometric(0.4, len(columns)).astype(np.float32)
    matrix = csr_matrix((counts, columns, np.append(0, np.cumsum(n_genes))), shape=(count, vocabulary - 2))
    return CountItems(np.arange(count), matrix, np.arange(2, vocabulary, dtype=np.int32))


if __name__ == "__main__":
    sys.exit(main())
