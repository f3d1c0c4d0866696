"""Small random ESM2 checkpoints, made with transformers, and what transformers' own hooks see in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import EsmConfig, EsmForMaskedLM

from sae_genomics.items import SequenceItems

VOCAB = ("<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO", ".", "-", "<null_1>", "<mask>")
LETTERS = "LAGVSERTIDPKQNFYMHWCXBUZO"
CLS, PAD, EOS, MASK = 0, 1, 2, 32


def make(
    folder: Path, seed: int = 0, *, head: bool = True, max_shard_size: str = "1GB", **settings: Any
) -> EsmForMaskedLM:
    """A checkpoint as save_pretrained leaves it, with biases and norms that are not what training begins with."""
    values = {
        "vocab_size": len(VOCAB), "mask_token_id": MASK, "pad_token_id": PAD, "hidden_size": 48, "num_hidden_layers": 3,
        "num_attention_heads": 4, "intermediate_size": 96, "max_position_embeddings": 130, "layer_norm_eps": 1e-5,
        "position_embedding_type": "rotary", "token_dropout": True, "emb_layer_norm_before": False, **settings,
    }  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    network = EsmForMaskedLM(EsmConfig(**values)).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scale = 0.02 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5
            is_norm = parameter.ndim < 2 and name.endswith("weight")
            parameter.copy_(noise * scale * (5 if parameter.ndim < 2 else 1) + float(is_norm))
    (network if head else network.esm).save_pretrained(folder, max_shard_size=max_shard_size)
    (folder / "vocab.txt").write_text("\n".join(VOCAB))
    return network


def proteins(seed: int, lengths: list[int]) -> SequenceItems:
    generator = np.random.default_rng(seed)
    sequences = ["".join(generator.choice(list(LETTERS), length)) for length in lengths]
    return SequenceItems(np.arange(len(lengths)) * 3 + 5, sequences, overlap=16)


def read(sequence: str) -> list[int]:
    """Token ids of one protein, spelt out here on its own."""
    return [CLS, *(VOCAB.index(letter) for letter in sequence), EOS]


@torch.inference_mode()
def seen_by_hooks(network: EsmForMaskedLM, rows: list[list[int]]) -> dict[tuple[str, int], list[np.ndarray]]:
    """(hook, layer) -> activations of each row, from one padded pass through transformers with forward hooks."""
    longest = max(map(len, rows))
    token = torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    found: dict[tuple[str, int], torch.Tensor] = {}

    def keep(hook: str, layer: int) -> Any:
        def listener(module: Any, given: Any, output: Any) -> None:
            found[hook, layer] = output[0] if isinstance(output, tuple) else output

        return listener

    handles = []
    for layer, block in enumerate(network.esm.encoder.layer):
        handles.append(block.register_forward_hook(keep("resid_post", layer)))
        handles.append(block.attention.output.dense.register_forward_hook(keep("attn_out", layer)))
        handles.append(block.output.dense.register_forward_hook(keep("mlp_out", layer)))
    try:
        network(input_ids=token, attention_mask=mask)
    finally:
        for handle in handles:
            handle.remove()
    return {key: [x[number, : len(row)].numpy() for number, row in enumerate(rows)] for key, x in found.items()}


def close(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Equal to 1e-5 of the largest number."""
    return ours.shape == theirs.shape and float(np.abs(ours - theirs).max()) <= 1e-5 * float(np.abs(theirs).max())
