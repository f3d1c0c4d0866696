"""ESM2's activations of all layers, against a plain transformers loop, and against what the machine's matrix products allow.

    python benchmarks/esm2_extraction.py [--shape 8m] [--device cpu] [--json]

A random model of a published shape and made-up proteins with log-normal lengths. The peer is transformers' EsmModel with forward hooks on all
layers; `extraction_peer.py` says how both are run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import sae_genomics  # noqa: F401  before torch: it says how torch's threads wait

# isort: split
import numpy as np
import torch
from extraction_peer import in_turn, main, parser, products_limit, run_ours, run_peer, summary, timed
from torch import nn
from transformers import EsmConfig, EsmForMaskedLM, EsmModel

from sae_genomics.activations.extraction.extract import _batches
from sae_genomics.items import SequenceItems
from sae_genomics.models import pick_device
from sae_genomics.models.cpu_products import DotProductAttention, Linear
from sae_genomics.models.esm2 import packed
from sae_genomics.models.esm2.model import Esm2, load_folder
from sae_genomics.tokens import Tokens

SHAPES = {  # layers, d_model, heads
    "tiny": (2, 64, 4),
    "8m": (6, 320, 20),
    "35m": (12, 480, 20),
    "150m": (30, 640, 20),
    "650m": (33, 1280, 20),
}
VOCAB = ("<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO", ".", "-", "<null_1>", "<mask>")
PAD = 1


def compare(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    device = pick_device(arguments.device)
    write_checkpoint(folder, *SHAPES[arguments.shape])
    items = made_up_proteins(arguments.proteins)
    ours = load_folder(folder, device=str(device), dtype=arguments.dtype)
    peer = EsmModel.from_pretrained(folder, add_pooling_layer=False, dtype=getattr(torch, arguments.dtype))
    peer = peer.eval().to(device)
    tokens = ours.tokenise(items, 0)
    ways = {
        "ours": lambda some: run_ours(ours, some, arguments.batch_tokens),
        "peer": lambda some: run_peer(peer, peer.encoder.layer, some, device, PAD),
    }
    measured = in_turn(ours, tokens, ways, arguments.repeats)
    block: Any = ours.network.blocks[0]
    limit = products_limit(ours, [block.attention.qkv, block.attention.out, block.up, block.down])
    result = summary("esm2_extraction", arguments, tokens, measured, limit=limit)
    shares = where_time_goes(ours, tokens, device, arguments.batch_tokens)
    print("time of one worker: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))
    return {**result, "time": shares}


def write_checkpoint(folder: Path, n_layers: int, d_model: int, n_heads: int) -> None:
    config = EsmConfig(
        vocab_size=len(VOCAB), mask_token_id=32, pad_token_id=PAD, hidden_size=d_model, num_hidden_layers=n_layers,
        num_attention_heads=n_heads, intermediate_size=4 * d_model, max_position_embeddings=1026, layer_norm_eps=1e-5,
        position_embedding_type="rotary", token_dropout=True, emb_layer_norm_before=False,
    )  # fmt: skip
    torch.manual_seed(0)
    EsmForMaskedLM(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCAB))


def made_up_proteins(count: int) -> SequenceItems:
    """Lengths as reviewed proteins have them: median 300, a long tail, at most what the model reads at once."""
    generator = np.random.default_rng(0)
    lengths = np.exp(generator.normal(np.log(300), 0.7, count)).astype(int).clip(30, 1022)
    letters = list("ACDEFGHIKLMNPQRSTVWY")
    return SequenceItems(np.arange(count), ["".join(generator.choice(letters, n)) for n in lengths])


def where_time_goes(model: Esm2, tokens: Tokens, device: torch.device, batch_tokens: int) -> dict[str, float]:
    """Share of each kind of work in the time of one worker."""
    spent: dict[str, float] = {}

    def clocked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            result = None

            def work() -> None:
                nonlocal result
                result = function(*given, **named)

            spent[name] = spent.get(name, 0.0) + timed(device, work)
            return result

        return call

    modules = [m for block in model.network.blocks for m in block.modules()]
    for module in modules:
        if isinstance(module, Linear):
            module.forward = clocked("matrix products", module.forward)  # type: ignore[method-assign]
        elif isinstance(module, nn.LayerNorm):
            module.forward = clocked("norms", module.forward)  # type: ignore[method-assign]
        elif isinstance(module, DotProductAttention):
            module.of_packed = clocked("attention", module.of_packed)  # type: ignore[method-assign]
            module.forward = clocked("attention", module.forward)  # type: ignore[method-assign]
    rotate, functional = packed.rotate, packed.F
    packed.rotate = clocked("rotary positions", rotate)
    packed.F = SimpleNamespace(gelu=clocked("gelu", functional.gelu))  # type: ignore[assignment]
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if device.type == "cpu" else threads)
    layers = list(range(model.info.n_layers))
    batches = _batches(model, tokens.lengths, batch_tokens)  # type: ignore[arg-type]
    total = timed(device, lambda: [model.forward_layers(tokens.take(batch), layers, "resid_post") for batch in batches])
    packed.rotate, packed.F = rotate, functional
    torch.set_num_threads(threads)
    rest = {"sums, embedding, hooks and copies": total - sum(spent.values())}
    return {name: time / total for name, time in sorted({**spent, **rest}.items(), key=lambda entry: -entry[1])}


if __name__ == "__main__":
    sys.exit(main(parser(__doc__, SHAPES, "8m", "proteins", 128), compare))
