"""The bundled protein model: what its card claims, measured again on families it never saw; and the script that makes it."""

import importlib.util
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sae_genomics.data.proteins.synthetic.baselines import Counts
from sae_genomics.data.split import split_items

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "make_demo_protein_model.py"
FOLDER = ROOT / "sae_genomics" / "assets" / "demo_protein_model"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_demo_protein_model", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def proteins(script):
    return script.demo_proteins()


def card_number(row: str, column: int = 2) -> float:
    lines = (FOLDER / "MODEL_CARD.md").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(f"| {row}")).split("|")[column])


def test_it_is_small_and_as_save_pretrained_leaves_it():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 4_000_000
    assert {"config.json", "model.safetensors", "vocab.txt", "MODEL_CARD.md"} <= {p.name for p in FOLDER.iterdir()}
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["model_type"] == "esm"
    assert config["position_embedding_type"] == "rotary"
    assert config["token_dropout"] is True
    assert config["emb_layer_norm_before"] is False
    assert config["vocab_size"] == 33


def test_its_vocabulary_is_esm2s(script):
    """The order is published with ESM2; token 4 is L, token 32 is <mask>."""
    vocabulary = (FOLDER / "vocab.txt").read_text().split("\n")
    assert tuple(vocabulary) == script.VOCABULARY
    assert vocabulary[:8] == ["<cls>", "<pad>", "<eos>", "<unk>", "L", "A", "G", "V"]
    assert "".join(vocabulary[4:24]) == "LAGVSERTIDPKQNFYMHWC"
    assert (vocabulary[24], vocabulary[31], vocabulary[32]) == ("X", "<null_1>", "<mask>")


def test_transformers_own_classes_load_it():
    from transformers import EsmForMaskedLM, EsmTokenizer

    network, info = EsmForMaskedLM.from_pretrained(FOLDER, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    tokens = EsmTokenizer.from_pretrained(FOLDER)("MKV")["input_ids"]
    assert tokens == [0, 20, 15, 7, 2]
    assert network.config.mask_token_id == 32


def test_on_families_it_never_saw_it_beats_frequencies_and_neighbours(script, proteins):
    """A plain measurement, apart from the script's own: one draw of hidden residues, one protein at a time."""
    from transformers import EsmForMaskedLM

    network = EsmForMaskedLM.from_pretrained(FOLDER).eval()
    groups = np.array(proteins.groups)
    heldout = split_items(len(groups), groups, 0.25, 0, groups=groups)
    tokens = script.encode(proteins.sequences)
    counts = np.ones(20)
    for row in np.flatnonzero(~heldout):
        counts += np.bincount(tokens[row] - 4, minlength=20)
    frequency = np.log(counts / counts.sum())
    neighbours = Counts.of([tokens[row] - 4 for row in np.flatnonzero(~heldout)], 20)
    rng = np.random.default_rng(7)
    losses, plain = [], []
    longest = 2 + max(len(tokens[row]) for row in np.flatnonzero(heldout))
    seen, masks = [], []
    for row in np.flatnonzero(heldout):
        shown = np.concatenate([[0], tokens[row], [2]])
        hidden = np.zeros(len(shown), dtype=bool)
        hidden[1:-1] = rng.random(len(tokens[row])) < 0.15
        if not hidden.any():
            continue
        rows = np.where(hidden, 32, shown)
        with torch.no_grad():
            logits = network(
                torch.from_numpy(rows)[None], attention_mask=torch.ones(1, len(rows), dtype=torch.long)
            ).logits
        chances = torch.log_softmax(logits[0].double(), dim=-1).numpy()
        losses.extend(-chances[hidden, shown[hidden]])
        plain.extend(-frequency[shown[hidden] - 4])
        seen.append(np.pad(shown - 4, (0, longest - len(shown)), constant_values=-1))
        masks.append(np.pad(hidden, (0, longest - len(shown))))
    pairs = script.neighbour_loss(neighbours, np.stack(seen), np.stack(masks))[1]
    model, of_frequency, of_neighbours = np.mean(losses), np.mean(plain), np.mean(pairs)
    assert model == pytest.approx(card_number("this model"), abs=0.02)
    assert math.exp(model) == pytest.approx(card_number("this model", 3), rel=0.03)
    assert of_frequency == pytest.approx(card_number("residue frequencies"), abs=0.02)
    assert of_neighbours == pytest.approx(card_number("left and right neighbour"), abs=0.02)
    assert model < of_neighbours - 0.01
    assert model < of_frequency - 0.04


def test_held_out_families_are_whole(script, proteins):
    train, test = script.split(proteins)
    groups = np.array(proteins.groups)
    assert not set(groups[train]) & set(groups[test])
    assert len(train) + len(test) == len(groups)


def test_special_tokens_and_rare_letters_are_never_hidden(script):
    rows = script.padded(script.encode(["MKVX" * 50, "BZUO" * 10]))
    hidden = script.hide(rows, np.random.default_rng(0))
    assert hidden[0].any()
    assert set(rows[hidden]) == {20, 15, 7}
    assert (rows[1, 42:] == script.PAD).all()


def run_script(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.slow
def test_a_short_training_on_any_fasta(tmp_path):
    fasta, labels = tmp_path / "x.fasta", tmp_path / "x.tsv"
    rng = np.random.default_rng(0)
    names = [f"P{i}" for i in range(24)]
    fasta.write_text("".join(f">{name}\n{''.join(rng.choice(list('ACDEFGHIKL'), 60))}\n" for name in names))
    labels.write_text("accession\tcluster\n" + "".join(f"{name}\tc{i % 6}\n" for i, name in enumerate(names)))
    options = [
        "--steps",
        "2",
        "--d-model",
        "16",
        "--layers",
        "1",
        "--heads",
        "2",
        "--batch-tokens",
        "500",
        "--threads",
        "1",
    ]
    weights = []
    for name in ("one", "two"):
        done = run_script(
            "--fasta", fasta, "--labels", labels, "--group-key", "cluster", "--output", tmp_path / name, *options
        )
        assert done.returncode == 0, done.stderr
        assert re.search(r"train: 2/2 steps", done.stderr)
        assert "`x.fasta`" in (tmp_path / name / "MODEL_CARD.md").read_text()
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1], "a seed decides"


@pytest.mark.slow
def test_what_is_wrong_is_said_in_one_line(tmp_path):
    done = run_script("--fasta", tmp_path / "none.fasta", "--output", tmp_path / "m")
    assert done.returncode == 2
    assert re.fullmatch(r"error: no such file: .*none.fasta\n", done.stderr)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "m").exists()
    done = run_script("--fasta", tmp_path / "none.fasta")
    assert done.returncode == 2
    assert "--output" in done.stderr
