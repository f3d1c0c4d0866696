"""FASTA files as people have them, and as they should not be."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.data import lines as files
from sae_genomics.data.proteins import records
from sae_genomics.data.proteins.read import read_sequences, read_some
from sae_genomics.data.proteins.records import count_records, read_fasta, split_header
from sae_genomics.data.proteins.residues import AMINO_ACIDS, LETTERS
from sae_genomics.errors import UserError
from tests.data.proteins.conftest import write


def sequences_in(path: Path, alphabet: str = LETTERS) -> list[tuple[str, str]]:
    n = count_records(path)
    found = read_some(path, alphabet, np.arange(n))
    return [(block.accession[i], block.sequence(i).decode()) for block in found for i in range(len(block))]


residue_text = st.text(alphabet="".join(AMINO_ACIDS), min_size=1, max_size=90)


@settings(max_examples=150, deadline=None)
@given(
    proteins=st.lists(residue_text, min_size=1, max_size=12),
    width=st.integers(1, 70),
    end=st.sampled_from(["\n", "\r\n"]),
    blank=st.booleans(),
    last_end=st.booleans(),
    zipped=st.booleans(),
    block=st.integers(5, 200),
)
def test_what_is_written_is_read_however_it_is_wrapped_and_blocked(
    tmp_path_factory, proteins, width, end, blank, last_end, zipped, block
):
    text = ""
    for i, sequence in enumerate(proteins):
        parts = [sequence[j : j + width] for j in range(0, len(sequence), width)]
        text += end.join([f">P{i} some name", *parts]) + end + (end if blank else "")
    if not last_end:
        text = text.rstrip("\r\n")
    path = write(tmp_path_factory.mktemp("fasta") / ("p.fasta.gz" if zipped else "p.fasta"), text)
    expected = [(f"P{i}", sequence) for i, sequence in enumerate(proteins)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.blocks, "__defaults__", (block,))
        assert sequences_in(path) == expected
        lines = [int(line) for part in read_fasta(path) for line in part.line]
    assert count_records(path) == len(proteins)
    assert lines == [i for i, line in enumerate(text.split("\n"), 1) if line.startswith(">")]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("sp|P12345|NAME_HUMAN Zinc finger protein 8 OS=Homo sapiens OX=9606 GN=ZNF8 PE=1 SV=2", ("P12345", "Zinc finger protein 8")),
        ("tr|A0A084API3|A0A084API3_STACH Synthase", ("A0A084API3", "Synthase")),
        ("A0A084API3 Polyketide synthase SAT13 GN=SAT13", ("A0A084API3", "Polyketide synthase SAT13")),
        ("gnl|db|1.2 name", ("gnl|db|1.2", "name")),
        ("P1", ("P1", None)),
        ("P1 GN=ABC", ("P1", None)),
        ("P1\tname", ("P1", "name")),
    ],
)  # fmt: skip
def test_accession_and_name_of_a_header(header, expected):
    assert split_header(header) == expected


def test_only_the_asked_records_are_read_and_reading_stops_there(tmp_path):
    path = write(tmp_path / "p.fasta", "".join(f">P{i}\n{'ACDE'[i % 4] * (i + 1)}\n" for i in range(9)) + ">P9\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.blocks, "__defaults__", (16,))
        found = list(read_some(path, LETTERS, np.array([1, 4])))  # P9, which is empty, is never come to
    rows = [(int(b.row[i]), b.accession[i], b.sequence(i).decode()) for b in found for i in range(len(b))]
    assert rows == [(1, "P1", "CC"), (4, "P4", "AAAAA")]


def test_letters_are_changed_as_said_and_counted(tmp_path):
    path = write(tmp_path / "p.fasta", ">P1\nmkvJ\n>P2\nUOBZX*\n>P3\nMK*\n")
    assert sequences_in(path) == [("P1", "MKVX"), ("P2", "UOBZX"), ("P3", "MK")]
    letters = read_sequences(path).letters
    assert (letters.lower, letters.unknown, letters.unknown_kinds, letters.stops) == (3, 1, "J", 2)


def test_letters_that_the_model_does_not_know_become_x(tmp_path):
    path = write(tmp_path / "p.fasta", ">P1\nMUOK\n")
    known = "".join(AMINO_ACIDS) + "X"
    assert sequences_in(path, known) == [("P1", "MXXK")]
    read = read_sequences(path, known)
    assert read.letters.unknown == 2
    assert read.letters.unknown_kinds == "OU"
    assert read.counts == {"K": 1, "M": 1, "X": 2}


def test_only_letters_of_the_used_records_are_counted(tmp_path):
    path = write(tmp_path / "p.fasta", ">P1\nAAA\n>P2\nCC\n>P3\nAC\n")
    assert read_sequences(path, used=np.array([1, 2])).counts == {"A": 1, "C": 3}


def test_the_same_residues_have_the_same_digest(tmp_path):
    read = read_sequences(write(tmp_path / "p.fasta", ">P1\nMKV\n>P2\nMKW\n>P3\nM\nkv*\n"))
    assert read.digest[0] == read.digest[2] != read.digest[1]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (">P1\nMKV\n>P2\n>P3\nMK\n", 3, ["'P2'", "no sequence"]),
        (">P1\nMKV\n>P2\n\n", 3, ["'P2'", "no sequence"]),
        (">P1\nMKV\n>P2\n*\n", 3, ["P2", "stop codon"]),
        ("\nMKV\n>P2\nMK\n", 2, ["no header", "'MKV'"]),
        (">P1\nMKV\n>\nMK\n", 3, ["header without a name"]),
        (">P1\nMKV\n\n>P2\nAC\n>P1\nMKV\n", 6, ["P1", "line 1", "one record per accession"]),
        (">P1\nMKV\n>P2\nMK\nM*K\n", 5, ["P2", "stop codon", "inside"]),
        (">P1\nM**\n", 2, ["P1", "stop codon", "inside"]),
        (">P1\nMKV\nMK-V\n", 3, ["P1", "gap ('-')", "remove the gaps"]),
        (">P1\n1 MKV\n", 2, ["P1", "'1' is not a residue"]),
        (">P1\nMK\xc3\xa9V\n", 2, ["P1", "not a residue"]),
    ],
)
def test_a_fault_is_one_line_with_file_and_line(tmp_path, text, line, words):
    path = write(tmp_path / "p.fasta", text)
    with pytest.raises(UserError) as refusal:
        read_sequences(path)
    said = str(refusal.value)
    assert f"{path}, line {line}" in said
    assert all(word in said for word in words), said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("p.fasta", b"", "is empty"),
        ("p.fasta", b"\n \n", "is empty"),
        ("p.fasta", b"\x89HDF\r\n\x1a\n" + bytes(100), "is HDF5"),
        ("p.fasta", b"PK\x03\x04" + bytes(100), "is a zip archive"),
        ("p.fasta", bytes(range(128, 256)) * 9, "neither FASTA nor JSONL"),
    ],
)
def test_what_is_no_fasta_at_all_is_refused(tmp_path, name, data, words):
    path = write(tmp_path / name, data)
    for function in (read_sequences, count_records):
        with pytest.raises(UserError, match=words):
            function(path)


def test_a_gzip_file_cut_short_is_refused(tmp_path):
    whole = gzip.compress(
        b"".join(
            b">P%d\n%s\n"
            % (
                i,
                np.random.default_rng(i)
                .bytes(40)
                .hex()
                .upper()
                .translate(str.maketrans("0123456789", "GHIKLMNPQR"))
                .encode(),
            )
            for i in range(500)
        )
    )
    path = tmp_path / "p.fasta.gz"
    path.write_bytes(whole[: len(whole) // 2])
    for function in (read_sequences, count_records):
        with pytest.raises(UserError, match=r"gzip file is broken or cut short.*download it again"):
            function(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_sequences(tmp_path / "none.fasta")
    with pytest.raises(UserError, match="is a folder"):
        read_sequences(tmp_path)


def test_a_byte_order_mark_is_no_sequence(tmp_path):
    path = write(tmp_path / "p.fasta", b"\xef\xbb\xbf>P1\nMKV\n>P2\nAC\n")
    assert sequences_in(path) == [("P1", "MKV"), ("P2", "AC")]
    assert sequences_in(write(tmp_path / "q.fasta", b"\xef\xbb\xbf>P1\nMKV\n")) == [("P1", "MKV")]


def test_names_in_another_encoding_do_not_stop_reading(tmp_path):
    path = write(tmp_path / "p.fasta", ">P1 Prot\xe9ine\nMKV\n".encode("latin-1"))
    assert sequences_in(path) == [("P1", "MKV")]


def test_take_keeps_lines_of_residues(tmp_path):
    path = write(tmp_path / "p.fasta", ">P1\nMKV\n>P2\nAC\nDE\n>P3\nGG\n")
    block, last = records.read_fasta(path)
    assert last.accession == ["P3"]
    taken = block.take(np.array([1, 0]))
    assert taken.accession == ["P2", "P1"]
    assert [taken.sequence(i) for i in range(2)] == [b"ACDE", b"MKV"]
    assert [taken.residue_line(i) for i in range(7)] == [4, 4, 5, 5, 2, 2, 2]
