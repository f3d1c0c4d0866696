"""Small protein files, made up."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sae_genomics.config import parse_config
from sae_genomics.data.proteins.read import Sequences, read_sequences
from sae_genomics.models import FAMILIES
from sae_genomics.run import Run

# Real proteins and their Pfam domains are no part of the repository: a folder named by this variable, or one beside the checkout.
_NAMED = os.environ.get("SAE_GENOMICS_REAL_PROTEINS")
_NEAR = (found for folder in Path(__file__).parents for found in folder.glob("*/fixtures/proteins/proteins.fasta.gz"))
FIXTURE = Path(_NAMED) if _NAMED else next((found.parent for found in _NEAR), Path("no such folder"))


def write(path: Path, text: str | bytes) -> Path:
    """A file; compressed where its name ends in .gz."""
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.fixture
def two(tmp_path: Path) -> Sequences:
    """P1 with ten residues, P2 with four."""
    return read_sequences(write(tmp_path / "two.fasta", ">P1\nMKVLAACDEF\n>P2\nGGHH\n"))


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """make_run(path, **sections) -> a run over those proteins with the toy family; nothing is written."""
    module = "tests.data.proteins.toy_family"
    monkeypatch.setitem(FAMILIES, "toy", (module, module))

    def make(path: Path | str, **sections: dict[str, Any]) -> Run:
        values: dict[str, Any] = {
            "run": {"name": "small"},
            "paths": {name: str(tmp_path / "out" / name) for name in ("checkpoints", "results", "logs")},
            "data": {"kind": "proteins", "path": str(path)},
            "model": {"family": "toy"},
            "activations": {"items_per_shard": 4},
            "sae": {"k": 4},
        }
        for section, keys in sections.items():
            values.setdefault(section, {}).update(keys)
        return Run(parse_config(values, "test"))

    return make
