"""Small random Geneformer checkpoints with dictionaries, made with transformers, and what transformers' own hooks see in them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from transformers import BertConfig, BertForMaskedLM

from sae_genomics.items import CountItems
from tests.models import encoder_hooks

N_GENES = 60
PAD, MASK, CLS, EOS = 0, 1, 2, 3


def genes(n: int = N_GENES) -> list[str]:
    return [f"ENSG{number:011d}" for number in range(n)]


def tokens_of(series: str, n: int = N_GENES) -> dict[str, int]:
    """Ids of genes are not in the genes' order."""
    special = {"<pad>": PAD, "<mask>": MASK} | ({"<cls>": CLS, "<eos>": EOS} if series == "V2" else {})
    order = np.random.default_rng(7).permutation(n)
    return special | {gene: len(special) + int(at) for gene, at in zip(genes(n), order, strict=True)}


def medians_of(n: int = N_GENES, seed: int = 3) -> dict[str, float]:
    """Numpy scalars, as in the published files."""
    return dict(zip(genes(n), np.exp(np.random.default_rng(seed).normal(0.3, 1, n)), strict=True))


def write_dictionaries(place: Path, series: str = "V2", tag: str = "", n: int = N_GENES, end: str = "pkl") -> None:
    place.mkdir(parents=True, exist_ok=True)
    names = {f"SYM{number}": gene for number, gene in enumerate(genes(n))}
    for stem, entries in (
        ("token_dictionary", tokens_of(series, n)),
        ("gene_median_dictionary", medians_of(n)),
        ("gene_name_id_dict", names),
    ):
        content = pickle.dumps(entries) if end == "pkl" else json.dumps(entries).encode()
        (place / f"{stem}{tag}.{end}").write_bytes(content)


def make(
    folder: Path, series: str = "V2", seed: int = 0, *, head: bool = True, dictionaries: bool = True,
    max_shard_size: str = "1GB", n: int = N_GENES, **settings: Any,
) -> BertForMaskedLM:  # fmt: skip
    """A checkpoint as save_pretrained leaves it, with biases and norms that are not what training begins with."""
    values = {
        "vocab_size": len(tokens_of(series, n)), "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 96, "max_position_embeddings": 40, "hidden_act": "relu", "pad_token_id": PAD, **settings,
    }  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    network = BertForMaskedLM(BertConfig(**values)).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scale = 0.1 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5
            parameter.copy_(noise * scale + float(parameter.ndim < 2 and name.endswith("weight")))
    (network if head else network.bert).save_pretrained(folder, max_shard_size=max_shard_size)
    if dictionaries:
        write_dictionaries(folder, series, n=n)
    return network


def cells(series: str, n_expressed: list[int], seed: int = 0) -> CountItems:
    """Cells with so many genes each; totals above the sum of the known genes' counts."""
    generator = np.random.default_rng(seed)
    counts = np.zeros((len(n_expressed), N_GENES), np.float32)
    for row, n in zip(counts, n_expressed, strict=True):
        row[generator.choice(N_GENES, n, replace=False)] = generator.integers(1, 40, n)
    ids = np.array(sorted(token for gene, token in tokens_of(series).items() if gene[0] != "<"), np.int32)
    totals = counts.sum(axis=1, dtype=np.float64) + generator.integers(1, 500, len(counts))
    return CountItems(np.arange(len(counts)) * 3 + 5, csr_matrix(counts), ids, totals=totals)


def read(items: CountItems, series: str, most: int) -> list[list[int]]:
    """Token ids of each cell, spelt out here one by one as Geneformer's tokenizer does it."""
    by_token = {token: gene for gene, token in tokens_of(series).items()}
    medians, rows = medians_of(), []
    for number in range(len(items.rows)):
        vector = items.counts[number].toarray()[0].astype(np.float64)
        level = np.array([medians[by_token[token]] for token in items.token.tolist()])
        total = float(vector.sum()) if items.totals is None else float(items.totals[number])
        scaled = vector / total * 10_000 / level
        (there,) = np.nonzero(scaled)
        ranked = items.token[there][np.argsort(-scaled[there], kind="stable")].tolist()
        rows.append([CLS, *ranked[: most - 2], EOS] if series == "V2" else ranked[:most])
    return rows


def seen_by_hooks(network: BertForMaskedLM, rows: list[list[int]]) -> dict[tuple[str, int], list[np.ndarray]]:
    """(hook, layer) -> activations of each row, from one padded pass through transformers with forward hooks."""
    return encoder_hooks.seen_by_hooks(network, network.bert.encoder.layer, rows, PAD)
