"""The bundled model: what its card claims, measured again on cells it never saw; and the script that makes it."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from sae_genomics.config import ModelConfig
from sae_genomics.data.split import split_items
from sae_genomics.items import CountItems
from sae_genomics.models import load_model
from sae_genomics.models.tx1 import load_folder
from sae_genomics.models.tx1_config import DEMO_FOLDER, FILES

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "make_demo_model.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_demo_model", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cells(script):
    return script.read_cells()


def card_number(row: str) -> float:
    line = next(
        line for line in (DEMO_FOLDER / "MODEL_CARD.md").read_text().splitlines() if line.startswith(f"| {row}")
    )
    value = line.split("|")[2].strip()
    return float(value.rstrip("%")) / (100 if value.endswith("%") else 1)


def test_it_is_small_and_in_the_releases_layout():
    assert sum(path.stat().st_size for path in DEMO_FOLDER.iterdir()) <= 4_000_000
    assert {path.name for path in DEMO_FOLDER.iterdir()} == {*FILES, "MODEL_CARD.md", "heldout_cells.json"}


def test_it_is_the_default_model():
    model = load_model(ModelConfig(device="cpu"))
    assert model.info.name == "demo"
    assert len(model.vocab) == 765


def test_its_heldout_cells_are_those_of_the_split(cells):
    kept = json.loads((DEMO_FOLDER / "heldout_cells.json").read_text())
    heldout = split_items(700, cells.labels, kept["fraction"], kept["seed"])
    np.testing.assert_array_equal(np.flatnonzero(heldout), kept["rows"])
    assert cells.names[kept["rows"]].tolist() == kept["names"]


def test_counts_are_recovered(cells):
    assert cells.counts.shape == (700, 765)
    values = cells.counts.data
    np.testing.assert_array_equal(values, np.round(values))
    assert values.min() == 1
    assert (cells.counts.min(axis=1).toarray() == 0).all()


def test_on_cells_it_never_saw_it_beats_each_genes_mean(cells):
    """A plain measurement, apart from the script's own: one draw of hidden genes, one cell at a time."""
    model = load_folder(DEMO_FOLDER)
    rows = json.loads((DEMO_FOLDER / "heldout_cells.json").read_text())["rows"]
    columns = np.array([model.vocab[symbol] for symbol in cells.symbols])
    every = model.tokenise(CountItems(np.arange(700), cells.counts, columns), 0)
    is_gene = every.token < 765
    trained = is_gene & ~np.isin(every.item, rows)
    total, times = np.zeros(765), np.zeros(765)
    np.add.at(total, every.token[trained], every.per_token["value"][trained])
    np.add.at(times, every.token[trained], 1)
    means = np.where(times > 0, total / np.maximum(times, 1), every.per_token["value"][trained].mean())

    rng = np.random.default_rng(7)
    errors = {"model": 0.0, "mvc": 0.0, "mean": 0.0}
    for cell in rows:
        tokens = every.take([cell])
        masked = np.zeros(len(tokens), dtype=bool)
        masked[1 + rng.permutation(len(tokens) - 1)[: (len(tokens) - 1) // 2]] = True
        outputs = model.outputs(tokens, masked=masked)
        truth = tokens.per_token["value"][masked]
        errors["model"] += ((outputs.expr_preds.numpy()[masked] - truth) ** 2).sum()
        errors["mvc"] += ((outputs.mvc_output.numpy()[masked] - truth) ** 2).sum()
        errors["mean"] += ((means[tokens.token[masked]] - truth) ** 2).sum()
    gain = 1 - errors["model"] / errors["mean"]
    assert gain >= 0.05
    assert gain == pytest.approx(card_number("masked MSE below that by"), abs=0.02)
    assert 1 - errors["mvc"] / errors["mean"] == pytest.approx(card_number("MVC MSE below that by"), abs=0.02)


def test_hidden_genes_are_chosen_evenly_and_never_special(script):
    model = load_folder(DEMO_FOLDER)
    tokens = model.tokenise(
        CountItems(np.arange(50), csr_matrix(np.ones((50, 765), dtype=np.float32)), np.arange(765)), 0
    )
    masked = script.hide(tokens, 765, 0.5, np.random.default_rng(0))
    per_cell = np.add.reduceat(masked, tokens.item_ptr[:-1])
    assert (per_cell == (tokens.lengths - 1) // 2).all()
    assert not masked[tokens.token >= 765].any()


@pytest.mark.slow
def test_help_and_a_short_training(tmp_path):
    said = subprocess.run([sys.executable, SCRIPT, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert said.returncode == 0
    assert "--weight-decay" in said.stdout
    options = ["--steps", "2", "--d-model", "16", "--layers", "1", "--batch-cells", "8", "--threads", "1"]
    weights = []
    for name in ("one", "two"):
        command = [sys.executable, SCRIPT, "--output", tmp_path / name, *options]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        assert re.search(r"train: 2/2 steps", done.stderr)
        assert load_folder(tmp_path / name).info.d_model == 16
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1], "a seed decides"
