"""Proteins through the command line: what `prepare` and `extract` leave on disk is what transformers' own hooks see."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from transformers import EsmForMaskedLM

from tests.hub_server import ROOT
from tests.models.esm2_checkpoints import CLS, EOS, VOCAB, close, make, read, seen_by_hooks

MOST, OVERLAP = 126, 20  # residues that the checkpoint reads at once (130 positions), and that windows share
ALPHABET = "ACDEFGHIKLMNPQRSTVWY"
LENGTHS = [40, 126, 1, 300, 127, 17, 233, 90, 5]


def sequences() -> dict[str, str]:
    generator = np.random.default_rng(4)
    made = {f"P{number:05d}": "".join(generator.choice(list(ALPHABET), n)) for number, n in enumerate(LENGTHS)}
    made["P00005"] = "mkJXBUZOACDEFGHIK"  # lower case, and a letter that the model does not have
    return made


def stage(script: str, config: Path) -> None:
    done = subprocess.run(
        [sys.executable, f"scripts/{script}.py", "--config", str(config)],
        capture_output=True, text=True, cwd=ROOT, check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": str(config.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def windows(sequence: str) -> list[tuple[str, int, int]]:
    """Text of each window, and the residues of it that are stored: spelt out here for one protein at a time."""
    if len(sequence) <= MOST:
        return [(sequence, 0, len(sequence))]
    starts = [0]
    while starts[-1] + MOST < len(sequence):
        starts.append(starts[-1] + MOST - OVERLAP)
    found = []
    for start in starts:
        text = sequence[start : start + MOST]
        first = 0 if start == 0 else OVERLAP // 2
        last = len(text) if start == starts[-1] else MOST - OVERLAP // 2
        found.append((text, first, last))
    return found


def expected_rows(network: EsmForMaskedLM, sequence: str, hook: str, n_layers: int) -> dict[int, np.ndarray]:
    """What is stored of a protein: <cls> of the first window, each residue once, <eos> of the last."""
    parts: dict[int, list[np.ndarray]] = {layer: [] for layer in range(n_layers)}
    cut = windows(sequence)
    for number, (text, first, last) in enumerate(cut):
        seen = seen_by_hooks(network, [read(text)])
        start = 0 if number == 0 else first + 1
        stop = len(text) + 2 if number == len(cut) - 1 else last + 1
        for layer, rows in parts.items():
            rows.append(seen[hook, layer][0][start:stop])
    return {layer: np.concatenate(rows) for layer, rows in parts.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hook", "shape"),
    [
        ("resid_post", {}),
        ("mlp_out", {"position_embedding_type": "absolute", "emb_layer_norm_before": True}),
        ("attn_out", {"token_dropout": False}),
    ],
)
def test_files_hold_what_transformers_hooks_see(tmp_path: Path, hook: str, shape: dict[str, Any]) -> None:
    make(tmp_path / "checkpoint", seed=1, **shape)
    network = EsmForMaskedLM.from_pretrained(tmp_path / "checkpoint", dtype=torch.float32).eval()
    proteins = sequences()
    with gzip.open(tmp_path / "proteins.fasta.gz", "wt") as file:
        for accession, sequence in proteins.items():
            file.write(
                f">{accession} made up\n"
                + "\n".join(sequence[at : at + 60] for at in range(0, len(sequence), 60))
                + "\n"
            )
    config = tmp_path / "small.yaml"
    config.write_text(
        yaml.safe_dump({
            "paths": {name: str(tmp_path / name) for name in ("checkpoints", "results", "logs")},
            "data": {"kind": "proteins", "path": str(tmp_path / "proteins.fasta.gz"), "window_overlap": OVERLAP},
            "model": {"family": "esm2", "path": str(tmp_path / "checkpoint"), "hook": hook, "device": "cpu"},
            "activations": {"dtype": "float32", "items_per_shard": 4, "batch_tokens": 512},
        })
    )  # fmt: skip
    stage("01_prepare", config)
    stage("02_extract", config)

    folder = tmp_path / "checkpoints" / "small"
    items = pd.read_parquet(next(tmp_path.rglob("items.parquet")))
    units = pd.read_parquet(next(tmp_path.rglob("units.parquet")))
    assert items["item_id"].tolist() == list(proteins)
    assert items["n_windows"].tolist() == [len(windows(sequence)) for sequence in proteins.values()]
    unit_of = dict(zip(units["token"], units["unit"], strict=True))
    letter_of = dict(zip(units["token"], units["unit_id"], strict=True))
    n_done = 0
    for shard in range(3):
        with h5py.File(folder / "activations" / "tokens" / f"shard_{shard:04d}.h5") as file:
            assert (file.attrs["format_version"], file.attrs["data_kind"]) == (2, "proteins")
            tokens = {name: file[name][:] for name in file}
        assert set(tokens) == {"item", "token", "unit", "position", "weight", "special", "item_ptr"}
        layers = []
        for layer in range(3):
            with h5py.File(folder / "activations" / f"layer_{layer:02d}" / f"shard_{shard:04d}.h5") as file:
                layers.append(file["activations"][:])
        for first, last in zip(tokens["item_ptr"][:-1], tokens["item_ptr"][1:], strict=True):
            text = proteins[items["item_id"][n_done]].upper().replace("J", "X")
            rows = {name: values[first:last] for name, values in tokens.items() if name != "item_ptr"}
            assert (rows["item"] == n_done).all()
            assert rows["position"].tolist() == list(range(len(text) + 2)), "residue p is token p, whatever was cut"
            assert rows["special"].tolist() == [True, *[False] * len(text), True]
            assert (rows["token"][0], rows["token"][-1]) == (CLS, EOS)
            assert "".join(letter_of[token] for token in rows["token"][1:-1]) == text
            assert rows["token"][1:-1].tolist() == [VOCAB.index(letter) for letter in text]
            assert rows["unit"].tolist() == [-1, *[unit_of[token] for token in rows["token"][1:-1]], -1]
            assert (rows["weight"] == 1).all()
            expected = expected_rows(network, text, hook, 3)
            for layer in range(3):
                assert close(layers[layer][first:last], expected[layer]), (text[:10], layer)
            n_done += 1
    assert n_done == len(proteins)
