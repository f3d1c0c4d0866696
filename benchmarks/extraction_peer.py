"""What the benchmarks of one family's extraction share: the command line, the plain loop of a script, both sides in turn, and the result.

A peer computes batches of 8 items as they come, padded. Ours is the model as the stage extract calls it: its batches, its worker threads.
Both keep the real rows of all layers of a batch in memory and write nothing. Rates count real tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sae_genomics.activations.extraction.extract import _batches, _n_workers
from sae_genomics.activations.extraction.workers import Workers
from sae_genomics.models.packed_model import PackedModel
from sae_genomics.models.transformers_quiet import quiet
from sae_genomics.tokens import Tokens

PEER_BATCH = 8
PEER = "transformers, batches of 8 as they come"


def parser(description: str, shapes: Mapping[str, Any], shape: str, items: str, count: int) -> argparse.ArgumentParser:
    """The arguments that all of them have. shape and count: the defaults. items: what there are so many of, such as cells."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--shape", choices=shapes, default=shape, help="default: %(default)s")
    made.add_argument(f"--{items}", type=int, default=count, help="default: %(default)s")
    made.add_argument("--threads", type=int, default=None, help="CPU threads of both sides; default: all cores")
    made.add_argument("--device", default="auto", help="default: %(default)s")
    made.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    made.add_argument("--repeats", type=int, default=3, help="the best of so many; default: %(default)s")
    made.add_argument("--batch-tokens", type=int, default=16_384, help="default: %(default)s")
    made.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    return made


def main(arguments: argparse.ArgumentParser, compare: Callable[[Path, argparse.Namespace], dict[str, Any]]) -> int:
    """Read the command line, and compare in a folder that is removed afterwards."""
    given = arguments.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(given.threads or os.cpu_count() or 1)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with quiet(), tempfile.TemporaryDirectory(prefix="extraction-") as folder:
        result = compare(Path(folder), given)
    if given.json:
        print(json.dumps(result))
    return 0


@dataclass(frozen=True)
class Measured:
    """What came of `in_turn`."""

    rates: dict[str, float]
    """Way -> real tokens per second, the best of all rounds."""
    padding: float
    """Share of the tokens that ours computed that were padding."""
    device: str


def in_turn(
    model: PackedModel, tokens: Tokens, ways: Mapping[str, Callable[[Tokens], object]], repeats: int
) -> Measured:
    """Time all ways of computing the tokens; one of them is `ours`."""
    for work in ways.values():  # compiles kernels
        work(tokens.take(np.arange(4)))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    padding = 0.0
    for _ in range(repeats):  # in turn: a slow minute of the machine then falls on none alone
        for name, work in ways.items():
            model._read = model._computed = 0
            seconds[name].append(timed(model.device, lambda work=work: work(tokens)))  # type: ignore[misc]
            padding = model.padding_share if name == "ours" else padding
    return Measured({name: len(tokens) / min(times) for name, times in seconds.items()}, padding, str(model.device))


def summary(
    name: str,
    arguments: argparse.Namespace,
    tokens: Tokens,
    measured: Measured,
    *,
    peer: str = "peer",
    limit: float | None = None,
) -> dict[str, Any]:
    """The object that others read, printed as a line too. peer: the way that counts. limit: tokens per second that nothing exceeds."""
    ours, other = measured.rates["ours"], measured.rates[peer]
    result = {
        "name": f"{name}_{arguments.shape}", "unit": "real tokens/s", "peer_name": PEER, "ours": ours, "peer": other, "ratio": ours / other,
        "padding": measured.padding, "peer_padding": peer_padding(tokens.lengths), "limit": limit,
        "share_of_limit": None if limit is None else ours / limit, "items": tokens.n_items, "tokens": len(tokens), "device": measured.device,
        "dtype": arguments.dtype, "threads": torch.get_num_threads(),
    }  # fmt: skip
    line = (
        f"{ours:,.0f} tokens/s, {ours / other:.2f} x the plain loop's {other:,.0f}; padding {measured.padding:.1%} of computed tokens "
        f"(plain loop {result['peer_padding']:.0%})"
    )
    if limit is not None:
        line += f"; {ours / limit:.0%} of the {limit:,.0f} that the encoder's matrix products alone allow"
    print(line)
    return result


def run_ours(model: PackedModel, tokens: Tokens, batch_tokens: int) -> None:
    """As the stage extract does: its batches, its worker threads."""
    n_layers, d_model = model.info.n_layers, model.info.d_model
    layers = list(range(n_layers))
    workers = _n_workers(model, len(tokens), batch_tokens, 4 * d_model * n_layers)
    with Workers(workers) as workers:
        for batch in _batches(model, tokens.lengths, batch_tokens):
            workers.do(lambda batch=batch: model.forward_layers(tokens.take(batch), layers, "resid_post"))


@dataclass
class RealRows:
    """The last batch's layers without their padding."""

    kept: dict[int, Tensor] = field(default_factory=dict)
    real: Tensor = field(default_factory=lambda: torch.empty(0))
    """bool [items, longest], of the batch that is computed."""


@contextmanager
def hooked(blocks: Any) -> Iterator[RealRows]:
    """Within it, a forward hook on every block keeps the rows of its output."""
    rows = RealRows()

    def keep(layer: int) -> Callable[..., None]:
        def listener(module: nn.Module, given: Any, output: Any) -> None:
            rows.kept[layer] = (output[0] if isinstance(output, tuple) else output)[rows.real]

        return listener

    handles = [block.register_forward_hook(keep(layer)) for layer, block in enumerate(blocks)]
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def run_peer(model: Any, blocks: Any, tokens: Tokens, device: torch.device, pad: int, **named: Any) -> None:
    """What a script of twenty lines does. pad: the padding token, which stands nowhere else. named: further arguments of the model."""
    with hooked(blocks) as rows:
        for start in range(0, tokens.n_items, PEER_BATCH):
            some = range(start, min(start + PEER_BATCH, tokens.n_items))
            items = [torch.from_numpy(tokens.token[tokens.item_ptr[s] : tokens.item_ptr[s + 1]]).long() for s in some]
            token = nn.utils.rnn.pad_sequence(items, batch_first=True, padding_value=pad).to(device)
            rows.real = token != pad
            model(input_ids=token, attention_mask=rows.real.long(), **named)


def peer_padding(lengths: np.ndarray) -> float:
    parts = [lengths[start : start + PEER_BATCH] for start in range(0, len(lengths), PEER_BATCH)]
    return 1 - float(lengths.sum()) / sum(len(part) * int(part.max()) for part in parts)


def products_limit(model: PackedModel, products: list[Any]) -> float:
    """Tokens per second that the matrix products of all blocks alone allow, on the shapes that the model computes, on all cores at once.

    products: the linear layers of one block.
    """
    rows, device = model.piece_tokens or 16_384, model.device
    n_workers = torch.get_num_threads() if device.type == "cpu" else 1
    given = [torch.randn(rows, layer.in_features, device=device, dtype=layer.weight.dtype) for layer in products]

    def once() -> None:
        with torch.inference_mode():
            for _ in range(4):
                for layer, x in zip(products, given, strict=True):
                    layer(x)

    def everywhere() -> None:
        with Workers(n_workers) as workers:
            for _ in range(n_workers):
                workers.do(once)

    everywhere()
    best = min(timed(device, everywhere) for _ in range(5))
    return 4 * n_workers * rows / best / model.info.n_layers


def timed(device: torch.device, work: Callable[[], object]) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
