"""Regulons: a pair once, its sign, and what is counted."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from sae_genomics.errors import UserError
from sae_genomics.validation.databases.trrust import read

ROWS = [
    ("AATF", "BAX", "Repression", "22909821"),
    ("ABL1", "JUN", "Activation", "10022120"),
    ("ABL1", "JUN", "Repression", "10022121;10022122"),
    ("AR", "CDK20", "Activation", "1"),
    ("AR", "CDK20", "Activation", "1"),
    ("AHR", "CYP1A1", "Unknown", "10359656;2"),
    ("AHR", "CYP1A1", "Activation", "2"),
    ("AHR", "NA", "Unknown", "3"),  # a symbol that is read as missing by default
    ("ABL1", "SEPT7", "Unknown", "4"),
    ("", "JUN", "Unknown", "5"),
]


def write(folder: Path, rows: list[tuple[str, ...]] = ROWS, end: str = "\n") -> Path:
    path = folder / "trrust_rawdata.human.tsv"
    path.write_bytes("".join("\t".join(row) + end for row in rows).encode())
    return folder


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_pair_is_one_edge_and_one_row_of_a_regulon(tmp_path: Path, end: str) -> None:
    found = read(write(tmp_path, end=end))
    with (tmp_path / "trrust_rawdata.human.tsv").open(newline="") as file:
        plain = [row for row in csv.reader(file, delimiter="\t") if row[0] and row[1]]
    pairs: dict[tuple[str, str], set[str]] = {}
    for factor, target, mode, _ in plain:
        pairs.setdefault((factor, target), set()).add(mode)
    edges, terms = found.edges, found.terms
    assert edges is not None
    assert terms is not None
    assert found.directed
    assert set(zip(edges["source_gene_symbol"], edges["target_gene_symbol"], strict=True)) == set(pairs)
    assert len(edges) == len(terms) == len(pairs)
    for row in edges.itertuples():
        modes = pairs[row.source_gene_symbol, row.target_gene_symbol]
        assert row.sign == ("Activation" in modes) - ("Repression" in modes)
    assert found.rows_read == len(ROWS)
    assert found.rows_read + found.split == len(edges) + len(terms) + sum(found.dropped.values())
    assert found.dropped == {"no gene": 1, "contradictory mode": 1, "duplicate": 2}
    assert "1 pairs" in found.notes[0]
    assert set(terms["category"]) == set(edges["category"]) == {"regulon"}
    assert terms.groupby("term_id")["gene_symbol"].apply(set)["AHR"] == {"CYP1A1", "NA"}
    assert not terms["negative"].any()
    evidence = edges.set_index(["source_gene_symbol", "target_gene_symbol"])["evidence"]
    assert evidence["ABL1", "JUN"] == "10022120;10022121;10022122"
    assert evidence["AHR", "CYP1A1"] == "10359656;2"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"TF\ttarget\tmode\tPMID\nAATF\tBAX\tRepression\t1\n", "'mode' and should be one of Activation"),
        (b"AATF\tBAX\tRepression\n", "damaged or cut off"),
        (b"AATF\tBAX\tRepression\t1\nABL1\tJU", "damaged or cut off"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
        (b"", "is empty"),
    ],
)
def test_another_layout_is_refused_in_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "trrust_rawdata.human.tsv").write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"download_databases\.py --only trrust"):
        read(tmp_path)
