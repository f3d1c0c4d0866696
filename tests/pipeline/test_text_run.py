"""A small language model and made-up sentences in two languages, from data to report."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from transformers import AutoTokenizer

from sae_genomics.cli import main
from tests.models.text_checkpoints import close, make, seen_by_hooks

WORDS = {
    "english": ["the cell", "a nucleus", "divides", "folds", "the water", "is copied", "and then", "at night"],
    "german": ["die Zelle", "ein Kern", "teilt sich", "faltet", "das Wasser", "wird kopiert", "und dann", "bei Nacht"],
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    make(tmp_path / "model", "gemma3_text")
    rng = np.random.default_rng(0)
    with (tmp_path / "sentences.jsonl").open("w", encoding="utf-8") as file:
        for number in range(60):
            language = ("english", "german")[number % 2]
            text = " ".join(rng.choice(WORDS[language], rng.integers(3, 9)))
            file.write(json.dumps({"text": text, "language": language, "source": f"book {number % 12}"}) + "\n")
    values = {
        "run": {"name": "text"},
        "paths": {name: str(tmp_path / name) for name in ("checkpoints", "results", "logs")},
        "data": {
            "kind": "text", "path": str(tmp_path / "sentences.jsonl"), "text_key": "text", "label_key": "language", "group_key": "source"
        },
        "model": {"family": "huggingface", "path": str(tmp_path / "model"), "layers": [1, 3], "device": "cpu"},
        "activations": {"items_per_shard": 25},
        "sae": {"k": 4, "d_sae": 48, "steps": 60, "batch_tokens": 128, "lr_warmup_steps": 2, "device": "cpu"},
        "causal": {"features": 3, "sampled_features": 1, "items": 6, "screen_items": 8, "training_items": 20, "heldout_items": 12, "draws": 4},
    }  # fmt: skip
    (tmp_path / "text.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "text.yaml"


@pytest.mark.slow
def test_from_sentences_to_a_report(config: Path) -> None:
    assert main(["pipeline", str(config), "--local"]) == 0
    folder = config.parent
    checkpoints, results = folder / "checkpoints" / "text", folder / "results" / "text"
    tokeniser = AutoTokenizer.from_pretrained(folder / "model")
    sentences = [json.loads(line)["text"] for line in (folder / "sentences.jsonl").read_text("utf-8").splitlines()]
    rows = [ids for text in sentences[25:50] for ids in tokeniser(text)["input_ids"]]
    with h5py.File(checkpoints / "activations" / "tokens" / "shard_0001.h5") as file:
        token, special = file["token"][:], file["special"][:]
    assert token.tolist() == rows
    assert (special == np.isin(token, tokeniser.all_special_ids)).all()

    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    expected = [seen_by_hooks(network, "gemma3_text", tokeniser(text)["input_ids"]) for text in sentences[25:50]]
    for layer in (1, 3):
        with h5py.File(checkpoints / "activations" / f"layer_{layer:02d}" / "shard_0001.h5") as file:
            assert close(file["activations"][:], np.concatenate([part["resid_post", layer] for part in expected]))
        metrics = json.loads((checkpoints / "saes" / f"layer_{layer:02d}" / "metrics.json").read_text())
        assert metrics["loss_name"] == "cross-entropy of the next token, in nats"
        assert metrics["loss_cells"] > 0
    units = pd.read_parquet(results / "layer_01" / "feature_units.parquet")
    assert not units["unit_name"].str.contains("<bos>").any(), "special tokens train no SAE and are no units"
    report = (results / "report.md").read_text(encoding="utf-8")
    assert "60 documents went through the model" in report
    assert "word piece" in report
    assert "language" in report
    assert not torch.is_inference_mode_enabled()
