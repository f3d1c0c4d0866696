"""A language model's activations of all layers, against a plain transformers loop.

    python benchmarks/text_extraction.py [--shape gpt2] [--device cpu] [--json]

A random model of an architecture and made-up documents with log-normal lengths. The peer is transformers' AutoModel (no head) with
forward hooks on all layers; `extraction_peer.py` says how both are run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import sae_genomics  # noqa: F401  before torch: it says how torch's threads wait

# isort: split
import numpy as np
import torch
from extraction_peer import in_turn, main, parser, run_ours, run_peer, summary
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

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
PAD = 0


def compare(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    device = pick_device(arguments.device)
    kind, settings = SHAPES[arguments.shape]
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings)).save_pretrained(folder)
    ours = load_folder(folder, device=str(device), dtype=arguments.dtype)
    peer = AutoModel.from_pretrained(folder, dtype=getattr(torch, arguments.dtype)).eval().to(device)
    stack = peer.get_submodule(STACKS.get(kind, "layers"))
    tokens = made_up_documents(arguments.documents)
    ways = {
        "ours": lambda some: run_ours(ours, some, arguments.batch_tokens),
        "peer": lambda some: run_peer(peer, stack, some, device, PAD, use_cache=False),
    }
    measured = in_turn(ours, tokens, ways, arguments.repeats)
    return summary("text_extraction", arguments, tokens, measured)


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


if __name__ == "__main__":
    sys.exit(main(parser(__doc__, SHAPES, "gpt2", "documents", 96), compare))
