"""ESM2's activations of all layers, against a plain transformers loop, and against what the machine's matrix products allow.

    python benchmarks/esm2_extraction.py [--shape 8m] [--device cpu] [--json]

A random model of a published shape and made-up proteins with log-normal lengths. The peer is transformers' EsmModel with forward hooks
on all layers and batches of 8 proteins as they come, padded. Ours is the model as the stage extract calls it: the same batches, the
same worker threads. Both keep the real rows of all layers of a batch in memory and write nothing. Rates count real tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import sae_genomics  # noqa: F401  before torch: it says how torch's threads wait

# isort: split
import numpy as np
import torch
from torch import nn
from transformers import EsmConfig, EsmForMaskedLM, EsmModel
from transformers.utils import logging

from sae_genomics.activations.extraction.extract import _batches, _n_workers
from sae_genomics.activations.extraction.workers import Workers
from sae_genomics.items import SequenceItems
from sae_genomics.models import pick_device
from sae_genomics.models.cpu_products import DotProductAttention, Linear
from sae_genomics.models.esm2 import packed
from sae_genomics.models.esm2.model import Esm2, load_folder
from sae_genomics.models.packed_model import PackedModel
from sae_genomics.tokens import Tokens

SHAPES = {  # layers, d_model, heads
    "tiny": (2, 64, 4),
    "8m": (6, 320, 20),
    "35m": (12, 480, 20),
    "150m": (30, 640, 20),
    "650m": (33, 1280, 20),
}
VOCAB = ("<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO", ".", "-", "<null_1>", "<mask>")
PEER_BATCH = 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="8m", help="default: %(default)s")
    parser.add_argument("--proteins", type=int, default=128, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads of both sides; default: all cores")
    parser.add_argument("--device", default="auto", help="default: %(default)s")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--repeats", type=int, default=3, help="the best of so many; default: %(default)s")
    parser.add_argument("--batch-tokens", type=int, default=16_384, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads or os.cpu_count() or 1)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with tempfile.TemporaryDirectory(prefix="esm2-") as folder:
        result = compare(Path(folder), arguments)
    if arguments.json:
        print(json.dumps(result))
    return 0


def compare(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    device = pick_device(arguments.device)
    write_checkpoint(folder, *SHAPES[arguments.shape])
    items = made_up_proteins(arguments.proteins)
    ours = load_folder(folder, device=str(device), dtype=arguments.dtype)
    peer = EsmModel.from_pretrained(folder, add_pooling_layer=False, dtype=getattr(torch, arguments.dtype))
    peer = peer.eval().to(device)
    tokens = ours.tokenise(items, 0)
    run_ours(ours, tokens.take(np.arange(4)), arguments.batch_tokens)  # compiles kernels
    run_peer(peer, tokens.take(np.arange(4)), device)
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    padding = 0.0
    for _ in range(arguments.repeats):  # in turn: a slow minute of the machine then falls on neither alone
        ours._read = ours._computed = 0
        seconds["ours"].append(timed(device, lambda: run_ours(ours, tokens, arguments.batch_tokens)))
        padding = ours.padding_share
        seconds["peer"].append(timed(device, lambda: run_peer(peer, tokens, device)))
    rates = {name: len(tokens) / min(times) for name, times in seconds.items()}
    n_layers, d_model, _ = SHAPES[arguments.shape]
    limit = products_rate(ours, device) / (24 * d_model**2 * n_layers)
    shares = where_time_goes(ours, tokens, device, arguments.batch_tokens)
    result = {
        "name": f"esm2_extraction_{arguments.shape}", "unit": "real tokens/s", "peer_name": "transformers, batches of 8 as they come", **rates, "ratio": rates["ours"] / rates["peer"],
        "padding": padding, "peer_padding": peer_padding(tokens.lengths), "limit": limit, "share_of_limit": rates["ours"] / limit,
        "time": shares, "proteins": arguments.proteins, "tokens": len(tokens), "device": str(device), "dtype": arguments.dtype,
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    print(
        f"{rates['ours']:,.0f} tokens/s, {result['ratio']:.2f} x the plain loop's {rates['peer']:,.0f}; padding {padding:.1%} "
        f"of computed tokens (plain loop {result['peer_padding']:.0%}); {result['share_of_limit']:.0%} of the {limit:,.0f} that the "
        f"encoder's matrix products alone allow"
    )
    print("time of one worker: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))
    return result


def write_checkpoint(folder: Path, n_layers: int, d_model: int, n_heads: int) -> None:
    config = EsmConfig(
        vocab_size=len(VOCAB), mask_token_id=32, pad_token_id=1, hidden_size=d_model, num_hidden_layers=n_layers,
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


def run_ours(model: PackedModel, tokens: Tokens, batch_tokens: int) -> None:
    """As the stage extract does: its batches, its worker threads."""
    n_layers, d_model = model.info.n_layers, model.info.d_model
    layers = list(range(n_layers))
    workers = _n_workers(model, len(tokens), batch_tokens, 4 * d_model * n_layers)  # type: ignore[arg-type]
    with Workers(workers) as workers:
        for batch in _batches(model, tokens.lengths, batch_tokens):  # type: ignore[arg-type]
            workers.do(lambda batch=batch: model.forward_layers(tokens.take(batch), layers, "resid_post"))


@torch.inference_mode()
def run_peer(model: Any, tokens: Tokens, device: torch.device, pad: int = 1) -> None:
    """What a script of twenty lines does. pad: the padding token, which stands nowhere else."""
    kept: dict[int, torch.Tensor] = {}
    real = torch.empty(0)

    def keep(layer: int) -> Callable[..., None]:
        def listener(module: nn.Module, given: Any, output: Any) -> None:
            kept[layer] = (output[0] if isinstance(output, tuple) else output)[real]

        return listener

    handles = [block.register_forward_hook(keep(layer)) for layer, block in enumerate(model.encoder.layer)]
    for start in range(0, tokens.n_items, PEER_BATCH):
        some = range(start, min(start + PEER_BATCH, tokens.n_items))
        rows = [torch.from_numpy(tokens.token[tokens.item_ptr[s] : tokens.item_ptr[s + 1]]).long() for s in some]
        token = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad).to(device)
        real = token != pad
        model(input_ids=token, attention_mask=real.long())
    for handle in handles:
        handle.remove()


def peer_padding(lengths: np.ndarray) -> float:
    parts = [lengths[start : start + PEER_BATCH] for start in range(0, len(lengths), PEER_BATCH)]
    return 1 - float(lengths.sum()) / sum(len(part) * int(part.max()) for part in parts)


def products_rate(model: PackedModel, device: torch.device) -> float:
    """Operations per second of the encoder's matrix products on the shapes that the model computes, on all cores at once."""
    block: Any = model.network.blocks[0]  # type: ignore[index]
    dtype = block.up.weight.dtype
    linear = [block.attention.qkv, block.attention.out, block.up, block.down]
    rows = model.piece_tokens or 16_384
    n_workers = torch.get_num_threads() if device.type == "cpu" else 1
    given = [torch.randn(rows, layer.in_features, device=device, dtype=dtype) for layer in linear]

    def once() -> None:
        with torch.inference_mode():
            for _ in range(4):
                for layer, x in zip(linear, given, strict=True):
                    layer(x)

    def everywhere() -> None:
        with Workers(n_workers) as workers:
            for _ in range(n_workers):
                workers.do(once)

    everywhere()
    best = min(timed(device, everywhere) for _ in range(5))
    return 4 * n_workers * sum(2 * rows * layer.in_features * layer.out_features for layer in linear) / best


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


def timed(device: torch.device, work: Callable[[], object]) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
