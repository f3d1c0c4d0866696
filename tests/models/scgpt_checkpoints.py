"""A small scGPT checkpoint that has learnt a little of real cells, made with this package's own network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import nn

from sae_genomics.items import CountItems
from sae_genomics.models.scgpt.folder import read_folder
from sae_genomics.models.scgpt.network import ScgptNetwork, Shape
from sae_genomics.models.scgpt.tokenise import tokenise
from sae_genomics.models.sequences import Sequences

ARGS = {
    "embsize": 48, "nheads": 3, "d_hid": 64, "nlayers": 3, "n_layers_cls": 3, "n_bins": 51, "max_seq_len": 120, "pad_token": "<pad>",
    "pad_value": -2, "mask_value": -1, "input_style": "binned", "input_emb_style": "continuous", "dropout": 0.2, "fast_transformer": True,
    "MVC": True,
}  # fmt: skip


def write_small_files(folder: Path, genes: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "args.json").write_text(json.dumps(ARGS))
    tokens = [*genes, "<pad>", "<cls>", "<eoc>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "best_model.pt").touch()


def train(folder: Path, counts: csr_matrix, genes: list[str], *, steps: int) -> list[float]:
    """Leaves the folder, and returns the mean squared error of each step, in bins squared. counts: [cells, genes]."""
    write_small_files(folder, genes)
    read = read_folder(folder)
    torch.manual_seed(0)
    network = ScgptNetwork(
        Shape(read.vocab_size, read.d_model, read.n_layers, read.n_heads, read.d_mlp, pre_norm=False, has_mvc=True)
    )
    nn.init.uniform_(network.encoder.embedding.weight, -0.1, 0.1)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    generator = np.random.default_rng(0)
    ids = np.arange(len(genes), dtype=np.int32)
    losses = []
    for step in range(steps):
        rows = generator.choice(counts.shape[0], 32, replace=False)
        tokens = tokenise(CountItems(rows, counts[rows], ids), read.tokeniser, step)
        hidden = torch.from_numpy(~tokens.special & (generator.random(len(tokens)) < 0.5))
        value = torch.from_numpy(tokens.per_token["value"])
        sequences = Sequences(tokens.item_ptr, torch.device("cpu"), padded=True)
        vectors, x = network.embed(
            torch.from_numpy(tokens.token).long(), value.masked_fill(hidden, read.tokeniser.mask_value)
        )
        x = network.encode(x, sequences, range(read.n_layers), lambda hook, layer, x: x)
        _, predicted, from_cell = network.decode(x, vectors, sequences)
        assert from_cell is not None
        loss = nn.functional.mse_loss(predicted[hidden], value[hidden])
        optimiser.zero_grad()
        (loss + 0.2 * nn.functional.mse_loss(from_cell[hidden], value[hidden])).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    torch.save(network.state_dict(), folder / "best_model.pt")
    return losses
