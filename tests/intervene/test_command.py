"""scripts/intervene.py as it is typed: what it prints and writes, concepts and labels, and one line for bad input with nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from sae_genomics.concepts.vectors import ConceptVector, write_vectors
from sae_genomics.run import Run
from sae_genomics.sae.load import load_encoder
from scripts.intervene import main

FEW = ("--draws", "3", "--max-items", "5")


def call(run: Run, *words: object) -> int:
    return main(["--config", str(run.config_file), "--layer", "1", *map(str, words)])


def busy(run: Run) -> int:
    """A feature that is active in most cells."""
    from tests.intervene.test_answers import often

    return often(run, 1)[0]


@pytest.fixture
def concept(cells: Run) -> str:
    """A concept whose vector is a decoder row: its scores are those of a direction that matters."""
    encoder = load_encoder(cells.sae_dir(1), "cpu")
    row = encoder.W_dec[busy(cells)].numpy()
    known = [
        ConceptVector("label:B cell", "label", "B cell", row / np.linalg.norm(row), -0.2),
        ConceptVector("label:T cell", "label", "T cell", -row / np.linalg.norm(row), -0.2),
        ConceptVector("label:nowhere", "label", "nowhere", row / np.linalg.norm(row), -1e6),
    ]
    folder = cells.layer_results(1)
    folder.mkdir(parents=True, exist_ok=True)
    write_vectors(folder, known, len(row), {})
    return "B cell"


def test_what_is_printed_and_written(cells: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    feature = busy(cells)
    tables = []
    for name in ("units.tsv", "units.parquet"):
        assert call(cells, "--features", feature, "--edit", "ablate", "--out", tmp_path / name, *FEW) == 0
        tables.append(
            pd.read_csv(tmp_path / name, sep="\t") if name.endswith("tsv") else pd.read_parquet(tmp_path / name)
        )
    assert tables[0].columns.tolist() == tables[1].columns.tolist()
    np.testing.assert_allclose(tables[0]["change"], tables[1]["change"], rtol=1e-6)
    text = capsys.readouterr().out
    for words in (
        f"feature {feature}: ablate to 0, where active",
        "5 cells (heldout)",
        "edit norm",
        "3 random directions",
        "own against matched",
        "genes whose predicted value",
    ):
        assert words in text
    assert call(cells, "--features", feature, "--edit", "ablate", "--json", *FEW) == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole["n_items"] == 5
    assert {each["outcome"] for each in whole["outcomes"]} == {"token", "from_item", "embedding"}
    assert whole["features"][0]["median"] > 0
    assert set(whole["moved_most"]) == {"token", "from_item"}


def test_a_concept_is_edited_as_its_score(cells: Run, concept: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Doubling max(0, s) adds max(0, s) v."""
    assert call(cells, "--concept", concept, "--edit", "scale", "--amount", "2", "--json", *FEW) == 0
    doubled = json.loads(capsys.readouterr().out)
    assert doubled["subject"] == "concept label:B cell"
    assert call(cells, "--concept", "label:B cell", "--edit", "ablate", "--json", *FEW) == 0
    taken = json.loads(capsys.readouterr().out)
    assert doubled["norm"] == pytest.approx(taken["norm"], rel=1e-5)
    assert 0 < taken["n_edited"] < taken["n_tokens"]


def test_a_direction_is_added_at_every_token(cells: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    d_model = cells.model_info.d_model
    vector = torch.full((d_model,), 0.1)
    save_file({"direction": vector, "other": torch.ones(3)}, tmp_path / "v.safetensors")
    assert call(cells, "--direction", tmp_path / "v.safetensors", "--edit", "add", "--amount", "3", "--json", *FEW) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n_edited"] == found["n_tokens"]
    per_cell = 3 * float(vector.norm()) * np.sqrt(found["n_tokens"] / 5)
    assert found["norm"] == pytest.approx(per_cell, rel=0.05)
    assert found["own_and_matched"] == []


def test_items_are_those_that_were_named(cells: Run, capsys: pytest.CaptureFixture[str]) -> None:
    items = cells.kind.read_items(cells, ["heldout", "label"])
    label = items[items["heldout"]]["label"].value_counts().index[0]
    feature = busy(cells)
    more = ("--features", feature, "--edit", "scale", "--amount", "0.5", "--draws", "2", "--max-items", "99", "--json")
    assert call(cells, *more, "--items", f"label={label}") == 0
    of_label = json.loads(capsys.readouterr().out)
    assert of_label["n_named"] == int((items["heldout"] & (items["label"] == label)).sum())
    assert call(cells, *more, "--items", "all") == 0
    everything = json.loads(capsys.readouterr().out)
    assert everything["n_named"] == len(items)
    assert everything["training_items_named"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--features", 9999, "--edit", "ablate"), "--features 9999: the SAE of layer 1 has the features 0 to 127"),
        (("--features", 1, 1, "--edit", "ablate"), "1 is named twice"),
        (("--features", 1, "--edit", "add", "--amount", "nan"), "it takes a finite number"),
        (("--features", 1, "--edit", "scale"), "--edit scale needs --amount"),
        (("--features", 1, "--edit", "scale", "--amount", 2, "--to", "mean"), "--to says what an ablated activation becomes"),
        (("--features", 1, "--edit", "ablate", "--amount", 2), "--amount: an ablation has none"),
        (("--features", 1, "--edit", "ablate", "--reference", "p99"), "--reference goes with --edit clamp"),
        (("--features", "BUSY", "--edit", "scale", "--amount", 1), "changes nothing in"),
        (("--concept", "B cel", "--edit", "ablate"), "close ones are label:B cell"),
        (("--direction", "missing.safetensors", "--edit", "add", "--amount", 1), "no such file: missing.safetensors"),
        (("--direction", "BAD", "--edit", "add", "--amount", 1), "no safetensors file"),
        (("--direction", "SHORT", "--edit", "add", "--amount", 1), "its shape is [3]"),
        (("--direction", "SHORT", "--edit", "ablate"), "it can only be added"),
        (("--direction", "SHORT", "--edit", "add", "--amount", 1, "--where", "active"), "a direction has no activations"),
        (("--features", 1, "--edit", "ablate", "--items", "some"), "--items some: it takes heldout, all and label=VALUE"),
        (("--features", 1, "--edit", "ablate", "--items", "label=nobody"), "no cell has this cell type"),
        (("--features", 1, "--edit", "ablate", "--draws", 0), "--draws takes a number from 1 on"),
        (("--features", 1, "--edit", "ablate", "--layer", 3), "--layer 3: run small has the layers 1"),
        (("--features", 1, "--edit", "ablate", "--set", "sae.k=9"), "run small is not finished: train layer_01 is stale"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(
    cells: Run, concept: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[object, ...], said: str
) -> None:
    (tmp_path / "bad.safetensors").write_text("no tensors")
    save_file({"x": torch.ones(3)}, tmp_path / "short.safetensors")
    named = {"BUSY": busy(cells), "BAD": tmp_path / "bad.safetensors", "SHORT": tmp_path / "short.safetensors"}
    out = tmp_path / "out.tsv"
    assert call(cells, *(named.get(str(word), word) for word in words), "--out", out, *FEW[2:]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]
    assert not out.exists()


def test_a_name_or_folder_that_will_not_do_is_told_first(cells: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for out, said in (("x.csv", "must end in .tsv or .parquet"), ("no/where/x.tsv", "no such folder")):
        assert call(cells, "--features", 1, "--edit", "ablate", "--out", out) == 2
        assert said in capsys.readouterr().err


def test_what_is_never_active_is_told(cells: Run, concept: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(cells, "--concept", "nowhere", "--edit", "clamp", "--where", "all", *FEW) == 2
    assert "never active in training cells, so there is no value to clamp it at" in capsys.readouterr().err
    assert call(cells, "--concept", "nowhere", "--edit", "ablate", *FEW) == 2
    assert "active in none of the" in capsys.readouterr().err


def test_a_family_that_cannot_be_edited_is_told(cells: Run, capsys, monkeypatch) -> None:
    monkeypatch.setattr("sae_genomics.models.tx1.NativeTx1.outcome", "")
    assert call(cells, "--features", 1, "--edit", "ablate", *FEW) == 2
    assert "cannot go on from edited activations, so nothing can be edited in this run" in capsys.readouterr().err
