"""JSONL files: sequences, labels, and both layouts of spans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sae_genomics.data.proteins.jsonl import entry_spans
from sae_genomics.data.proteins.read import read_sequences, read_some
from sae_genomics.data.proteins.records import count_records
from sae_genomics.data.proteins.residues import LETTERS
from sae_genomics.data.proteins.spans import read_spans
from sae_genomics.errors import UserError
from tests.data.proteins.conftest import write


def write_jsonl(path: Path, *entries: dict[str, Any]) -> Path:
    return write(path, "".join(json.dumps(entry) + "\n" for entry in entries))


POSITIVE = {
    "set": "positive", "accession": "Q1", "header": "Some protein OS=Homo sapiens OX=9606 GN=ABC PE=1 SV=1", "sequence_length": 12,
    "sequence": "MKVLAACDEFGH", "domain_source": "PF00018", "domain_span_1based_inclusive": [4, 7],
    "window_span_0based_halfopen": [1, 9], "window_length": 8, "quality": {"fits_esm_limit": True},
}  # fmt: skip
NEGATIVE = POSITIVE | {
    "set": "negative", "accession": "Q2", "domain_source": None, "domain_span_1based_inclusive": None, "sequence": "ACDEFGHIKLMN",
}  # fmt: skip
MANY = {
    "accession": "Q3", "sequence": "MKVLAACDEFGH", "length": 12, "protein_name": "Zinc finger protein", "gene_name": "ZNF1",
    "target_motif": "PF00096",
    "ground_truth_annotations": [
        {"motif_id": "PF00096", "start": 2, "end": 5, "name": "Zinc finger, C2H2 type"},
        {"motif_id": "PF13912", "start": 8, "end": 12, "name": "C2H2-type zinc finger"},
    ],
}  # fmt: skip


def spans_of(path: Path, sequences: Path | None = None) -> list[tuple[Any, ...]] | None:
    read = read_sequences(sequences or path)
    table = read_spans(path, read.rows, read.length, own_file=sequences is None)
    return None if table is None else [tuple(row) for row in table.frame.itertuples(index=False)]


def test_one_span_per_positive_and_none_for_negatives(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", POSITIVE, NEGATIVE)
    read = read_sequences(path)
    assert read.accession == ["Q1", "Q2"]
    assert read.name == ["Some protein", "Some protein"]
    assert spans_of(path) == [(0, 3, 7, "PF00018", "PF00018")]
    assert [record["set"] for record in read.labels] == ["positive", "negative"]
    assert "window_length" not in read.labels[0]


def test_many_spans_per_line(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl.gz", MANY)
    assert spans_of(path) == [
        (0, 1, 5, "PF00096", "Zinc finger, C2H2 type"),
        (0, 7, 12, "PF13912", "C2H2-type zinc finger"),
    ]
    assert read_sequences(path).labels == [{"gene_name": "ZNF1", "target_motif": "PF00096"}]


def test_spans_count_from_the_start_of_a_window_where_the_sequence_is_one(tmp_path):
    window = POSITIVE | {"sequence": "LAACDEFG", "window_span_0based_halfopen": [103, 111], "sequence_length": 500,
                         "domain_span_1based_inclusive": [106, 108]}  # fmt: skip
    path = write_jsonl(tmp_path / "p.jsonl", window)
    assert spans_of(path) == [(0, 2, 5, "PF00018", "PF00018")]  # residue 106 of the protein is the window's third


def test_a_span_that_reaches_over_the_border_of_a_window_is_cut_there_and_counted(tmp_path):
    window = POSITIVE | {
        "sequence": "LAACDEFG",
        "window_span_0based_halfopen": [103, 111],
        "domain_span_1based_inclusive": [100, 106],
    }
    path = write_jsonl(tmp_path / "p.jsonl", window)
    read = read_sequences(path)
    table = read_spans(path, read.rows, read.length)
    assert table.frame[["start", "stop"]].to_numpy().tolist() == [[0, 3]]
    assert table.cut == 1


def test_spans_of_jsonl_belong_to_the_whole_protein_where_the_sequences_are_whole(tmp_path):
    window = POSITIVE | {
        "sequence": "LAACDEFG",
        "window_span_0based_halfopen": [3, 11],
        "domain_span_1based_inclusive": [5, 7],
    }
    spans = write_jsonl(tmp_path / "spans.jsonl", window)
    fasta = write(tmp_path / "p.fasta", ">Q1\nMKVLAACDEFGHIK\n")
    assert spans_of(spans, fasta) == [(0, 4, 7, "PF00018", "PF00018")]


def test_lines_without_spans_are_sequences_alone_but_no_file_of_spans(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", {"id": "A", "sequence": "MK", "family": "f1", "score": 2})
    assert read_sequences(path).labels == [{"family": "f1", "score": "2"}]
    assert spans_of(path) is None
    with pytest.raises(UserError, match="domain_span_1based_inclusive or ground_truth_annotations"):
        spans_of(path, path)


def test_records_are_counted_and_read_by_row(tmp_path):
    entries = [{"accession": f"A{i}", "sequence": "ACDEFGHIKL"[: i + 1]} for i in range(5)]
    path = write(tmp_path / "p.jsonl", "\n".join([json.dumps(entries[0]), "", *map(json.dumps, entries[1:])]))
    assert count_records(path) == 5
    (block,) = read_some(path, LETTERS, np.array([0, 3]))
    assert [(block.accession[i], block.sequence(i)) for i in range(2)] == [("A0", b"A"), ("A3", b"ACDE")]
    assert block.line.tolist() == [1, 5]


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ('{"accession": "A2", "sequence": "MK"', "not valid JSON"),
        ('["A2", "MK"]', "one object"),
        ('{"sequence": "MK"}', "no accession"),
        ('{"accession": "A2"}', "no sequence"),
        ('{"accession": "A2", "sequence": " "}', "sequence is empty"),
        ('{"accession": "A2", "sequence": "MK-K"}', r"\(A2\): a gap"),
        ('{"accession": "A1", "sequence": "MK"}', "A1 is there already, in line 1"),
    ],
)
def test_a_fault_of_the_second_line_is_said_with_its_number(tmp_path, second, words):
    path = write(tmp_path / "p.jsonl", '{"accession": "A1", "sequence": "MKV"}\n' + second + "\n")
    with pytest.raises(UserError, match=f"p.jsonl, line 2.*{words}"):
        read_sequences(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"domain_span_1based_inclusive": [4]}, "two whole numbers"),
        ({"domain_span_1based_inclusive": [4, "7"]}, "two whole numbers"),
        ({"domain_source": None}, "domain_source"),
        ({"domain_span_1based_inclusive": [4, 13]}, "lies outside Q1, which has the residues 1 to 12"),
        ({"domain_span_1based_inclusive": [0, 3]}, "lies outside Q1"),
        ({"domain_span_1based_inclusive": [7, 4]}, "starts at 7 and ends at 4"),
        ({"ground_truth_annotations": [{"start": 1, "end": 2}]}, "without motif_id"),
        ({"ground_truth_annotations": {"motif_id": "P"}}, "list of objects"),
        ({"window_span_0based_halfopen": [300, 312]}, "outside the window"),
    ],
)
def test_a_faulty_span_is_one_line(tmp_path, change, words):
    path = write_jsonl(tmp_path / "p.jsonl", POSITIVE | change)
    with pytest.raises(UserError, match=f"line 1: .*{words}"):
        spans_of(path)


def test_a_window_inside_a_whole_protein_shifts_nothing():
    assert entry_spans(POSITIVE, 12) == [(4, 7, "PF00018", "PF00018", False)]
