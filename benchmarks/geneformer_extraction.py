"""Geneformer's activations of all layers, against a plain transformers loop, and against what the machine's matrix products allow.

    python benchmarks/geneformer_extraction.py [--shape v1-10m] [--device cpu] [--json]

A random model of a published shape and made-up cells, whose numbers of genes are log-normal. The peer is
transformers' BertModel with forward hooks on all layers; `extraction_peer.py` says how both are run.
"""

from __future__ import annotations

import argparse
import pickle
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import sae_genomics  # noqa: F401  before torch: it says how torch's threads wait

# isort: split
import numpy as np
import torch
from extraction_peer import in_turn, main, parser, products_limit, run_ours, run_peer, summary
from scipy.sparse import csr_matrix
from transformers import BertConfig, BertForMaskedLM, BertModel

from sae_genomics.items import CountItems
from sae_genomics.models import pick_device
from sae_genomics.models.geneformer.model import load_folder

SHAPES = {  # layers, d_model, heads, MLP, tokens of the longest cell, vocabulary
    "tiny": (2, 64, 4, 128, 128, 500),
    "v1-10m": (6, 256, 4, 512, 2048, 25_426),
    "v2-104m": (12, 768, 12, 3072, 4096, 20_275),
}
PAD = 0


def compare(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    device = pick_device(arguments.device)
    *_, most, vocabulary = SHAPES[arguments.shape]
    write_checkpoint(folder, arguments.shape)
    ours = load_folder(folder, device=str(device), dtype=arguments.dtype)
    peer = BertModel.from_pretrained(folder, add_pooling_layer=False, dtype=getattr(torch, arguments.dtype))
    peer = peer.eval().to(device)
    tokens = ours.tokenise(made_up_cells(arguments.cells, most, vocabulary), 0)
    ways = {
        "ours": lambda some: run_ours(ours, some, arguments.batch_tokens),
        "peer": lambda some: run_peer(peer, peer.encoder.layer, some, device, PAD),
    }
    measured = in_turn(ours, tokens, ways, arguments.repeats)
    block: Any = ours.network.blocks[0]
    limit = products_limit(ours, [block.attention.qkv, block.attention.out, block.up, block.down])
    return summary("geneformer_extraction", arguments, tokens, measured, limit=limit)


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
    sys.exit(main(parser(__doc__, SHAPES, "v1-10m", "cells", 64), compare))
