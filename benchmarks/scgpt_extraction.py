"""scGPT's activations of all layers, against a plain torch loop in the same run.

    python benchmarks/scgpt_extraction.py [--shape small] [--full] [--device cpu] [--json]

A random model of scGPT's shape and made-up cells whose numbers of expressed genes are log-normal. The peer is torch's nn.TransformerEncoder,
which scGPT's own package runs without flash-attn, in batches of 8 cells as they come, padded. It runs in three ways, and the fastest counts:

    hooks   forward hooks on all layers, which torch computes step by step
    fused   a loop over the layers, each by torch's fused path
    nested  the same on nested tensors, as nn.TransformerEncoder itself does when no layer between is asked for

`extraction_peer.py` says how all are run.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import sae_genomics  # noqa: F401  before torch: it says how torch's threads wait

# isort: split
import numpy as np
import torch
from extraction_peer import PEER_BATCH, hooked, in_turn, main, parser, products_limit, run_ours, summary, timed
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from sae_genomics.items import CountItems
from sae_genomics.models import pick_device
from sae_genomics.models.scgpt.model import Scgpt, load_folder
from sae_genomics.models.scgpt.network import ScgptNetwork, Shape
from sae_genomics.tokens import Tokens

SHAPES = {  # layers, d_model, heads, d_hid, genes
    "tiny": (2, 64, 4, 64, 2_000),
    "small": (4, 256, 8, 256, 20_000),
    "human": (12, 512, 8, 512, 60_694),  # the published whole-human model
}


def compare(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    warnings.filterwarnings("ignore", message=".*nested tensors.*")
    device = pick_device(arguments.device)
    n_genes = SHAPES[arguments.shape][-1]
    write_checkpoint(folder, arguments.shape)
    ours = load_folder(folder, device=str(device), dtype=arguments.dtype)
    items = made_up_cells(arguments.cells, n_genes, full=arguments.full)
    tokenising = timed(device, lambda: ours.tokenise(items, 0))
    tokenising = min(tokenising, timed(device, lambda: ours.tokenise(items, 0)))
    tokens = ours.tokenise(items, 0)
    peer = torch_encoder(ours).to(device)
    ways: dict[str, Callable[[Tokens], object]] = {
        "ours": lambda some: run_ours(ours, some, arguments.batch_tokens),
        "hooks": lambda some: run_hooks(ours, peer, some),
        "fused": lambda some: run_fused(ours, peer, some, nested=False),
        "nested": lambda some: run_fused(ours, peer, some, nested=True),
    }
    if device.type == "mps":
        del ways["nested"]
    same = largest_difference(ours, peer, tokens.take(np.arange(PEER_BATCH)))
    measured = in_turn(ours, tokens, ways, arguments.repeats)
    block: Any = ours.network.blocks[0]
    limit = products_limit(ours, [block.self_attn.Wqkv, block.self_attn.out_proj, block.linear1, block.linear2])
    peers = {name: rate for name, rate in measured.rates.items() if name != "ours"}
    fastest = max(peers, key=peers.__getitem__)
    result = summary("scgpt_extraction", arguments, tokens, measured, peer=fastest, limit=limit)
    rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in peers.items())
    print(
        f"plain torch: {rates}; tokenising {len(tokens) / tokenising:,.0f} tokens/s; the layers differ by {same:.1e} at most"
    )
    return {
        **result, "peer_name": f"torch, batches of 8 as they come, {fastest}", "rates": measured.rates, "largest_difference": same,
        "tokenising": len(tokens) / tokenising,
    }  # fmt: skip


def write_checkpoint(folder: Path, name: str) -> None:
    n_layers, d_model, n_heads, d_mlp, n_genes = SHAPES[name]
    args = {
        "embsize": d_model, "nheads": n_heads, "d_hid": d_mlp, "nlayers": n_layers, "n_bins": 51, "max_seq_len": 1200,
        "pad_token": "<pad>", "pad_value": -2, "mask_value": -1,
    }  # fmt: skip
    (folder / "args.json").write_text(json.dumps(args))
    names = [*(f"G{number}" for number in range(n_genes)), "<pad>", "<cls>", "<eoc>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(names)}))
    torch.manual_seed(0)
    network = ScgptNetwork(Shape(len(names), d_model, n_layers, n_heads, d_mlp, pre_norm=False, has_mvc=False))
    torch.save(network.state_dict(), folder / "best_model.pt")


def made_up_cells(count: int, n_genes: int, *, full: bool) -> CountItems:
    """Expressed genes of a cell: median 700, a long tail, at most what the model reads at once. full: that many in each."""
    generator = np.random.default_rng(0)
    lengths = np.exp(generator.normal(np.log(700), 0.6, count)).astype(int).clip(50, 1199)
    lengths = np.full(count, 1199) if full else lengths
    ptr = np.append(0, np.cumsum(lengths))
    columns = np.concatenate([np.sort(generator.choice(n_genes, n, replace=False)) for n in lengths])
    counts = (generator.negative_binomial(1, 0.4, len(columns)) + 1).astype(np.float32)
    return CountItems(
        np.arange(count), csr_matrix((counts, columns, ptr), shape=(count, n_genes)), np.arange(n_genes, dtype=np.int32)
    )


def torch_encoder(model: Scgpt) -> nn.TransformerEncoder:
    """What scGPT's package builds without flash-attn, with the same weights."""
    folder, weight = model.folder, model.network.encoder.embedding.weight
    layer = nn.TransformerEncoderLayer(folder.d_model, folder.n_heads, folder.d_mlp, 0.2, batch_first=True)
    encoder = nn.TransformerEncoder(layer, folder.n_layers).to(weight.dtype).eval().requires_grad_(False)
    state = model.network.transformer_encoder.state_dict()
    encoder.load_state_dict({name.replace("Wqkv.", "in_proj_"): tensor for name, tensor in state.items()})
    return encoder


@torch.inference_mode()
def batches(model: Scgpt, tokens: Tokens) -> Iterator[tuple[Tensor, Tensor]]:
    """What enters the first layer, [8, longest, d_model], and which of its positions are tokens."""
    for start in range(0, tokens.n_items, PEER_BATCH):
        some = tokens.take(np.arange(start, min(start + PEER_BATCH, tokens.n_items)))
        gene, value = model.seen(some, None)
        lengths = some.lengths.tolist()
        gene, value = (nn.utils.rnn.pad_sequence(x.split(lengths), batch_first=True) for x in (gene, value))
        x = model.network.embed(gene.flatten(), value.flatten())[1].view(*gene.shape, -1)
        yield x, torch.arange(gene.shape[1], device=x.device) < torch.tensor(lengths, device=x.device)[:, None]


@torch.inference_mode()
def run_hooks(model: Scgpt, peer: nn.TransformerEncoder, tokens: Tokens) -> dict[int, Tensor]:
    """What a script of twenty lines does. Returns the last batch's layers."""
    with hooked(peer.layers) as rows:
        for x, real in batches(model, tokens):
            rows.real = real
            for block in peer.layers:
                x = block(x, src_key_padding_mask=~real)
    return rows.kept


@torch.inference_mode()
def run_fused(model: Scgpt, peer: nn.TransformerEncoder, tokens: Tokens, *, nested: bool) -> dict[int, Tensor]:
    """Torch's fused layers, without hooks. nested: no padding in products, as nn.TransformerEncoder with a padding mask."""
    kept: dict[int, Tensor] = {}
    for x, real in batches(model, tokens):
        if nested:
            x = torch._nested_tensor_from_mask(x, real, mask_check=False)
        for layer, block in enumerate(peer.layers):
            x = block(x, src_key_padding_mask=None if nested else ~real)
            kept[layer] = torch.cat(x.unbind()) if nested else x[real]
    return kept


def largest_difference(model: Scgpt, peer: nn.TransformerEncoder, tokens: Tokens) -> float:
    """Between ours and the fused path, of all layers, relative to the layer's largest activation."""
    expected = run_fused(model, peer, tokens, nested=False)
    found = model.forward_layers(tokens, list(expected), "resid_post")
    return max(float((found[n] - expected[n]).abs().max() / expected[n].abs().max()) for n in expected)


if __name__ == "__main__":
    arguments = parser(__doc__, SHAPES, "human", "cells", 64)
    arguments.add_argument("--full", action="store_true", help="all cells have as many genes as fit: nothing is padded")
    sys.exit(main(arguments, compare))
