"""Real proteins, where they are at hand; they are not part of the repository."""

from __future__ import annotations

import pytest

from sae_genomics.data.proteins.read import read_sequences
from sae_genomics.data.proteins.records import count_records
from sae_genomics.data.proteins.spans import read_spans
from tests.data.proteins.conftest import FIXTURE

pytestmark = pytest.mark.skipif(not FIXTURE.is_dir(), reason="the real proteins are not at hand")


def test_real_proteins_and_their_spans():
    read = read_sequences(FIXTURE / "proteins.fasta.gz")
    assert count_records(FIXTURE / "proteins.fasta.gz") == len(read.accession) == 2793
    assert read.name[read.accession.index("Q99469")] == "SH3 and cysteine-rich domain-containing protein"
    assert (read.counts["X"], read.letters.unknown) == (17, 0)
    table = read_spans(FIXTURE / "spans.tsv", read.rows, read.length)
    assert len(table.frame) == 5087
    assert table.unknown == table.repeated == 0
    row = int(read.rows["A0A084API3"])
    mine = table.frame[table.frame["row"] == row]
    assert mine[["start", "stop", "concept"]].to_numpy().tolist() == [[7, 258, "PF00109"], [535, 831, "PF00698"]]
