"""Small texts in two languages, and runs over them with a small family that reads text."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sae_genomics.config import parse_config
from sae_genomics.models import FAMILIES
from sae_genomics.run import Run
from tests.data.text.reader.config import write_tokeniser

WORDS = {
    "english": [
        "the",
        "cat",
        "sat",
        "on",
        "a",
        "mat",
        "and",
        "saw",
        "one",
        "small",
        "bird",
        "that",
        "sang",
        "in",
        "the",
        "old",
        "tree",
        "by",
        "our",
        "house",
    ],
    "french": [
        "le",
        "chat",
        "était",
        "sur",
        "un",
        "tapis",
        "et",
        "voyait",
        "un",
        "petit",
        "oiseau",
        "qui",
        "chantait",
        "dans",
        "le",
        "vieil",
        "arbre",
        "près",
        "de",
        "chez",
        "nous",
    ],
}


def sentences(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Objects with a text of 3 to 30 words, its language, its author and a number."""
    rng = np.random.default_rng(seed)
    languages = list(WORDS)
    return [
        {
            "name": f"d{i}",
            "text": " ".join(rng.choice(WORDS[languages[i % 2]], rng.integers(3, 30))),
            "language": languages[i % 2],
            "author": f"author {i // 2 % 7}",
            "year": 1990 + i % 3,
        }
        for i in range(count)
    ]


def write(path: Path, text: str | bytes) -> Path:
    """A file; compressed where its name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_jsonl(path: Path, entries: Iterable[Any]) -> Path:
    return write(path, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries))


@pytest.fixture(scope="session")
def tokeniser_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    return write_tokeniser(folder, [" ".join(words) for words in WORDS.values()])


@pytest.fixture
def make_run(tmp_path: Path, tokeniser_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """make_run(path, **sections) -> a run over those texts with the small family; nothing is written."""
    package = "tests.data.text.reader"
    monkeypatch.setitem(FAMILIES, "reader", (f"{package}.config", f"{package}.model"))

    def make(path: Path | str, **sections: dict[str, Any]) -> Run:
        values: dict[str, Any] = {
            "run": {"name": "small"},
            "paths": {name: str(tmp_path / "out" / name) for name in ("checkpoints", "results", "logs")},
            "data": {"kind": "text", "path": str(path)},
            "model": {"family": "reader", "path": str(tokeniser_folder), "device": "cpu"},
            "activations": {"items_per_shard": 7},
            "sae": {"k": 4, "d_sae": 32, "steps": 30, "batch_tokens": 128, "lr_warmup_steps": 2, "device": "cpu"},
        }
        for section, keys in sections.items():
            values.setdefault(section, {}).update(keys)
        return Run(parse_config(values, "test"))

    return make
