"""A language model's activations of all layers, against a plain transformers loop.

    python benchmarks/text_extraction.py [--shape gpt2] [--device cpu] [--json]

A random model of an architecture and made-up documents with log-normal lengths. The peer is transformers' AutoModel (no head) with
forward hooks on all layers and batches of 8 documents as they come, padded. Ours is the model as the stage extract calls it: the same
batches, the same worker threads. Both keep the real rows of all layers of a batch in memory and write nothing. Rates count real tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import sae_genomics  # noqa: F401  before torch: it says how torch's threads wait

# isort: split
import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.utils import logging

from benchmarks.esm2_extraction import peer_padding, run_ours, timed
from sae_genomics.models import pick_device
from sae_genomics.models.huggingface.model import load_folder
from sae_genomics.tokens import Tokens, pointers, ranges

_COMMON = {"vocab_size": 8192, "max_position_embeddings": 2048, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
_GROUPED = {
    **_COMMON, "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4,
    "head_dim": 64,
}  # fmt: skip
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny": (
        "llama",
        {**_GROUPED, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 16},
    ),
    "llama": ("llama", _GROUPED),
    "gemma2": ("gemma2", {**_GROUPED, "sliding_window": 256}),
    "gemma3": ("gemma3_text", {**_GROUPED, "sliding_window": 256}),
    "qwen3": ("qwen3", _GROUPED),
    "gpt2": (
        "gpt2",
        {
            "vocab_size": 8192,
            "n_embd": 512,
            "n_layer": 8,
            "n_head": 8,
            "n_positions": 2048,
            "bos_token_id": 2,
            "eos_token_id": 1,
        },
    ),
    "pythia": (
        "gpt_neox",
        {**_COMMON, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6, "num_attention_heads": 8},
    ),
}
STACKS = {"gpt2": "h"}  # of the model below the head
PEER_BATCH = 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="gpt2", help="default: %(default)s")
    parser.add_argument("--documents", type=int, default=96, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads of both sides; default: all cores")
    parser.add_argument("--device", default="auto", help="default: %(default)s")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--repeats", type=int, default=3, help="the best of so many; default: %(default)s")
    parser.add_argument("--batch-tokens", type=int, default=16_384, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads or os.cpu_count() or 1)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with tempfile.TemporaryDirectory(prefix="text-") as folder:
        result = compare(Path(folder), arguments)
    if arguments.json:
        print(json.dumps(result))
    return 0


def compare(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    device = pick_device(arguments.device)
    kind, settings = SHAPES[arguments.shape]
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings)).save_pretrained(folder)
    ours = load_folder(folder, device=str(device), dtype=arguments.dtype)
    peer = AutoModel.from_pretrained(folder, dtype=getattr(torch, arguments.dtype)).eval().to(device)
    stack = peer.get_submodule(STACKS.get(kind, "layers"))
    tokens = made_up_documents(arguments.documents)
    run_ours(ours, tokens.take(np.arange(4)), arguments.batch_tokens)  # type: ignore[arg-type]
    run_peer(peer, stack, tokens.take(np.arange(4)), device)
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    padding = 0.0
    for _ in range(arguments.repeats):  # in turn: a slow minute of the machine then falls on neither alone
        ours._read = ours._computed = 0
        seconds["ours"].append(timed(device, lambda: run_ours(ours, tokens, arguments.batch_tokens)))  # type: ignore[arg-type]
        padding = ours.padding_share
        seconds["peer"].append(timed(device, lambda: run_peer(peer, stack, tokens, device)))
    rates = {name: len(tokens) / min(times) for name, times in seconds.items()}
    result = {
        "name": f"text_extraction_{arguments.shape}", "unit": "real tokens/s", "peer_name": "transformers, batches of 8 as they come",
        **rates, "ratio": rates["ours"] / rates["peer"], "padding": padding, "peer_padding": peer_padding(tokens.lengths),
        "documents": arguments.documents, "tokens": len(tokens), "device": str(device), "dtype": arguments.dtype,
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    print(
        f"{arguments.shape}: {rates['ours']:,.0f} tokens/s, {result['ratio']:.2f} x the plain loop's {rates['peer']:,.0f}; padding "
        f"{padding:.1%} of computed tokens (plain loop {result['peer_padding']:.0%})"
    )
    return result


def made_up_documents(count: int) -> Tokens:
    """Random pieces; lengths as paragraphs have them: median 200, a long tail."""
    generator = np.random.default_rng(0)
    lengths = np.exp(generator.normal(np.log(200), 0.8, count)).astype(int).clip(10, 1024)
    ptr = pointers(lengths)
    n = int(ptr[-1])
    return Tokens(
        item=np.repeat(np.arange(count), lengths), token=generator.integers(3, 8192, n).astype(np.int32), unit=np.zeros(n, np.int32),
        position=ranges(np.zeros(count, np.int64), lengths).astype(np.int32), weight=np.ones(n, np.float32),
        special=np.zeros(n, bool), item_ptr=ptr,
    )  # fmt: skip


@torch.inference_mode()
def run_peer(model: nn.Module, stack: Any, tokens: Tokens, device: torch.device) -> None:
    """What a script of twenty lines does."""
    kept: dict[int, torch.Tensor] = {}
    real = torch.empty(0)

    def keep(layer: int) -> Callable[..., None]:
        def listener(module: nn.Module, given: Any, output: Any) -> None:
            kept[layer] = (output[0] if isinstance(output, tuple) else output)[real]

        return listener

    handles = [block.register_forward_hook(keep(layer)) for layer, block in enumerate(stack)]
    for start in range(0, tokens.n_items, PEER_BATCH):
        some = range(start, min(start + PEER_BATCH, tokens.n_items))
        rows = [torch.from_numpy(tokens.token[tokens.item_ptr[s] : tokens.item_ptr[s + 1]]).long() for s in some]
        token = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0).to(device)
        real = token != 0
        model(input_ids=token, attention_mask=real.long(), use_cache=False)
    for handle in handles:
        handle.remove()


if __name__ == "__main__":
    sys.exit(main())
