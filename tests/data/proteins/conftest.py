"""Small protein files, made up."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from sae_genomics.data.proteins.read import Sequences, read_sequences

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
