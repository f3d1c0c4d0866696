"""Proteins through `prepare` and `extract` with a small ESM2 of random weights: every stored row stands at its residue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sae_genomics.activations.format.store import open_activations
from sae_genomics.activations.format.token_store import TokenShard, read_tokens
from sae_genomics.config import parse_config
from sae_genomics.data.plan_file import read_plan
from sae_genomics.execute import execute
from sae_genomics.run import Run
from sae_genomics.stages import stage_named
from tests.data.proteins.conftest import FIXTURE, write
from tests.models import esm2_checkpoints

MOST = 126  # residues that the checkpoint reads at once


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("esm2")
    esm2_checkpoints.make(folder, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
    return folder


def make_run(folder: Path, checkpoint: Path, data: dict[str, Any], per_shard: int, **activations: Any) -> Run:
    values = {
        "run": {"name": "proteins"},
        "paths": {name: str(folder / "out" / name) for name in ("checkpoints", "results", "logs")},
        "data": {"kind": "proteins", **data},
        "model": {"family": "esm2", "path": str(checkpoint)},
        "activations": {"items_per_shard": per_shard, **activations},
        "sae": {"k": 4},
    }
    return Run(parse_config(values, "test"))


def extracted(run: Run) -> list[TokenShard]:
    """The tokens of all shards."""
    execute(run, stage_named("prepare"), 0)
    for shard in range(run.n_shards):
        execute(run, stage_named("extract"), shard)
    return [read_tokens(run.tokens_file(shard)) for shard in range(run.n_shards)]


def as_frame(shards: list[TokenShard]) -> pd.DataFrame:
    names = ("item", "token", "unit", "position", "weight", "special")
    return pd.concat(
        [pd.DataFrame({name: getattr(shard, name) for name in names}) for shard in shards], ignore_index=True
    )


def check_rows(run: Run, shards: list[TokenShard], sequences: dict[int, str]) -> None:
    """Each residue of each protein is stored once, in order, with its own letter; <cls> stands before and <eos> behind."""
    rows = as_frame(shards)
    units = run.kind.read_units(run)
    expected_item, expected_position, expected_letter = [], [], []
    for item in run.kind.read_items(run, ["item"])["item"]:
        sequence = sequences[item]
        expected_item += [item] * (len(sequence) + 2)
        expected_position += range(len(sequence) + 2)
        expected_letter += ["", *sequence, ""]
    assert rows["item"].tolist() == expected_item
    assert rows["position"].tolist() == expected_position
    letter = np.array(expected_letter, dtype=object)
    assert (rows["special"] == (letter == "")).all()
    is_residue = letter != ""
    assert (units.unit_id[rows["unit"][is_residue]] == letter[is_residue]).all()
    assert (rows["unit"][~is_residue] == -1).all()
    token = dict(zip(units.unit_id, units.token, strict=True))
    assert rows["token"][is_residue].tolist() == [token[each] for each in letter[is_residue]]
    plan = read_plan(run)
    assert plan["n_tokens"] == len(rows)
    assert [shard["tokens"] for shard in plan["shards"]] == [len(shard) for shard in shards]
    assert all(shard.kind == "proteins" and shard.nouns["unit"] == "amino acid" for shard in shards)


def test_short_and_long_proteins(tmp_path, checkpoint, capsys):
    generator = np.random.default_rng(0)
    lengths = [5, MOST, MOST + 1, 400, 1, 60, 200, 33]
    sequences = {i: "".join(generator.choice(list("ACDEFGHIKLMNPQRSTVWYX"), n)) for i, n in enumerate(lengths)}
    fasta = write(tmp_path / "p.fasta.gz", "".join(f">P{i} name\n{text}\n" for i, text in sequences.items()))
    run = make_run(tmp_path, checkpoint, {"path": str(fasta), "window_overlap": 30}, per_shard=3)
    shards = extracted(run)
    assert len(shards) == 3
    check_rows(run, shards, sequences)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("extract shard 2:")]
    assert told[-1].endswith("padding 0.0% of the tokens computed")
    plan = read_plan(run)
    assert (plan["most_residues"], plan["n_items_in_windows"], plan["n_windows"]) == (MOST, 3, 5 + 2 + 4 + 2)
    with open_activations(run.activations_file(1, 1)) as file:
        rows = file.rows(0, len(shards[1]))
    assert rows.shape == (len(shards[1]), 16)
    assert (rows.std(axis=1) > 0).all()


def test_a_sample_of_residues(tmp_path, checkpoint):
    fasta = write(tmp_path / "p.fasta", "".join(f">P{i}\n{'ACDEFGHIKLMNPQRSTVWY' * 10}\n" for i in range(4)))
    run = make_run(tmp_path, checkpoint, {"path": str(fasta), "window_overlap": 20}, per_shard=2, tokens_per_item=12)
    shards = extracted(run)
    rows = as_frame(shards)
    assert rows.groupby("item").size().tolist() == [14] * 4
    assert read_plan(run)["n_tokens"] == 56
    assert not rows.duplicated(["item", "position"]).any()


@pytest.mark.skipif(not FIXTURE.is_dir(), reason="the real proteins are not at hand")
def test_real_proteins(tmp_path, checkpoint):
    data = {
        "path": str(FIXTURE / "proteins.fasta.gz"),
        "spans": str(FIXTURE / "spans.tsv"),
        "max_proteins": 200,
        "window_overlap": 40,
    }
    run = make_run(tmp_path, checkpoint, data, per_shard=80)
    shards = extracted(run)
    assert run.n_items == 200
    assert len(shards) == 3
    indices = np.arange(200)
    read = run.kind.read(run, indices)
    check_rows(run, shards, dict(zip(read.rows.tolist(), read.sequences, strict=True)))
    rows = as_frame(shards).set_index(["item", "position"])
    items = run.kind.read_items(run, ["item", "length"])
    spans = run.kind.read_spans(run)
    assert set(spans["item_index"]) == set(indices)  # every protein of this collection has a span
    assert (spans["stop"].to_numpy() <= items["length"].to_numpy()[spans["item_index"]]).all()
    units = run.kind.read_units(run)
    for span in spans[spans["concept"] == "PF00096"].itertuples():  # C-x(2,4)-C: the first cysteine of a zinc finger
        item = int(items["item"][span.item_index])
        letters = [
            units.unit_id[rows.loc[(item, residue + 1), "unit"]] for residue in range(span.start, span.start + 8)
        ]
        assert "C" in letters
