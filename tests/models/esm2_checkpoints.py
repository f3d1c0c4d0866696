"""Small random ESM2 checkpoints, made with transformers, and what transformers' own hooks see in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import EsmConfig, EsmForMaskedLM

from sae_genomics.items import SequenceItems
from tests.models import encoder_hooks

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


def seen_by_hooks(network: EsmForMaskedLM, rows: list[list[int]]) -> dict[tuple[str, int], list[np.ndarray]]:
    """(hook, layer) -> activations of each row, from one padded pass through transformers with forward hooks."""
    return encoder_hooks.seen_by_hooks(network, network.esm.encoder.layer, rows, PAD)


def close(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Equal to 1e-5 of the largest number."""
    return ours.shape == theirs.shape and float(np.abs(ours - theirs).max()) <= 1e-5 * float(np.abs(theirs).max())
