"""Tables of spans and of labels."""

from __future__ import annotations

import numpy as np
import pytest

from sae_genomics.data.proteins.labels import labels_of_records, read_labels
from sae_genomics.data.proteins.spans import concepts, n_overlapping, read_spans
from sae_genomics.errors import UserError
from tests.data.proteins.conftest import write

HEADER = "accession\tstart\tend\tconcept\tname\n"


def spans(path, two):
    return read_spans(path, two.rows, two.length)


@pytest.mark.parametrize("name", ["s.tsv", "s.tsv.gz"])
def test_positions_become_zero_based_and_half_open(tmp_path, two, name):
    path = write(tmp_path / name, HEADER + "P2\t1\t4\tPF2\tall of it\nP1\t10\t10\tPF1\t\nP1\t1\t3\tPF1\tfirst three\n")
    table = spans(path, two)
    assert [tuple(row) for row in table.frame.itertuples(index=False)] == [
        (0, 0, 3, "PF1", "first three"),
        (0, 9, 10, "PF1", "PF1"),
        (1, 0, 4, "PF2", "all of it"),
    ]


def test_columns_may_stand_in_any_order_and_name_may_be_missing(tmp_path, two):
    path = write(tmp_path / "s.tsv", "concept\tend\tsource\tstart\taccession\nPF1\t3\tPfam\t2\tP1\n")
    assert [tuple(row) for row in spans(path, two).frame.itertuples(index=False)] == [(0, 1, 3, "PF1", "PF1")]


def test_a_span_given_twice_counts_once_and_unknown_accessions_are_counted(tmp_path, two):
    path = write(tmp_path / "s.tsv", HEADER + "P1\t1\t3\tA\ta\nP1\t1\t3\tA\ta\nQ9\t1\t3\tA\ta\nP1\t1\t3\tB\tb\n")
    table = spans(path, two)
    assert (len(table.frame), table.repeated, table.unknown, table.unknown_first) == (2, 1, 1, "Q9")


def test_overlaps_are_counted_within_a_protein(tmp_path, two):
    rows = "P1\t1\t9\tA\ta\nP1\t2\t3\tB\tb\nP1\t4\t5\tB\tb\nP1\t10\t10\tA\ta\nP2\t1\t2\tA\ta\nP2\t3\t4\tA\ta\n"
    assert n_overlapping(spans(write(tmp_path / "s.tsv", HEADER + rows), two).frame) == 2


def test_concepts_count_proteins_once(tmp_path, two):
    rows = "P1\t1\t2\tA\ta\nP1\t4\t5\tA\ta\nP2\t1\t1\tA\ta\nP1\t9\t9\tB\tb\n"
    frame = spans(write(tmp_path / "s.tsv", HEADER + rows), two).frame.rename(columns={"row": "item_index"})
    table = concepts(frame, np.array([False, True]))
    assert [tuple(row) for row in table.itertuples(index=False)] == [("A", "a", 3, 2, 1), ("B", "b", 1, 1, 0)]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("P1\t1\t11\tA\ta", "span 1 to 11 lies outside P1, which has the residues 1 to 10"),
        ("P1\t0\t3\tA\ta", "span 0 to 3 lies outside P1"),
        ("P1\t5\t4\tA\ta", "starts at 5 and ends at 4"),
        ("P1\t5\tx\tA\ta", "end = 'x' is not a whole number"),
        ("P1\t-1\t4\tA\ta", "span -1 to 4 lies outside P1"),
        ("P1\t99999999999999999999\t4\tA\ta", "is not a whole number"),
        ("P1\t1.5\t4\tA\ta", "start = '1.5' is not a whole number"),
        ("P1\t1\t4\t\ta", "no concept"),
        ("P1\t1\t4\tA", "4 fields, but the header has 5 columns"),
        ("P1\t1\t4\tA\ta\tb", "6 fields"),
    ],
)
def test_a_faulty_row_is_one_line_with_its_number(tmp_path, two, row, words):
    path = write(tmp_path / "s.tsv", HEADER + "P1\t1\t3\tA\ta\n\n" + row + "\n")
    with pytest.raises(UserError, match=f"s.tsv, line 4: .*{words}"):
        spans(path, two)


def test_blanks_quotes_and_line_ends_of_other_systems_do_no_harm(tmp_path, two):
    text = "\ufeff\n" + HEADER + "\n \t \nP1\t 1\t3 \tA \t\"quoted, 3' end\r\n\nP2\t1\t2\tB\t"
    path = tmp_path / "s.tsv"
    path.write_bytes(text.replace("\n", "\r\n").encode())
    table = spans(path, two)
    assert [tuple(row) for row in table.frame.itertuples(index=False)] == [
        (0, 0, 3, "A", "\"quoted, 3' end"),
        (1, 0, 2, "B", "B"),
    ]
    path.write_bytes(b"accession\tstart\tend\tconcept\nP1\t1\t2\tA\nP1\t1\t2\tcaf\xe9\n")
    with pytest.raises(UserError, match=r"s.tsv, line 3: not UTF-8 text"):
        spans(path, two)
    path.write_bytes(HEADER.encode().rstrip())
    assert len(spans(path, two).frame) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("accession\tstart\tconcept\tname\n", "no column end"),
        ("accession,start,end,concept,name\nP1,1,3,A,a\n", "separated by tabs"),
        ("P1\t1\t3\tA\ta\n", "line 1: no column accession"),
        ("accession\tstart\tend\tconcept\tend\n", "two columns are called 'end'"),
        (HEADER + "Q1\t1\t3\tA\ta\n", "none of its accessions"),
        ("", "is empty"),
    ],
)
def test_a_wrong_table_is_one_line(tmp_path, two, text, words):
    with pytest.raises(UserError, match=words):
        spans(write(tmp_path / "s.tsv", text), two)


def test_labels_follow_the_sequences_and_blanks_are_no_label(tmp_path, two):
    path = write(tmp_path / "l.tsv.gz", "accession\tfamily\torganism\nQ7\tf9\tx\nP2\tf2\t \nP1\tnan\tHuman\n")
    labels = read_labels(path, two.rows)
    assert labels.columns["family"].tolist() == [None, "f2"]
    assert labels.columns["organism"].tolist() == ["Human", None]
    assert labels.notes == ("Rows of l.tsv.gz for proteins that are not among the sequences: 1 (the first is Q7).",)
    with pytest.raises(UserError, match=r"data.label_key: no column 'clan'; l.tsv.gz has family, organism"):
        labels.column("clan", "data.label_key")


def test_labels_of_a_protein_twice_or_of_none_are_refused(tmp_path, two):
    with pytest.raises(UserError, match=r"line 4: P1 has a row already, in line 2"):
        read_labels(write(tmp_path / "a.tsv", "accession\tf\nP1\ta\nP2\tb\nP1\tc\n"), two.rows)
    with pytest.raises(UserError, match="none of its accessions"):
        read_labels(write(tmp_path / "b.tsv", "accession\tf\nQ1\ta\n"), two.rows)
    with pytest.raises(UserError, match=r"data.labels names a table"):
        labels_of_records([], "p.fasta").column("family", "data.group_key")
