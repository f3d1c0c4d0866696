"""Large tables, some rows at a time: the rows are those of the csv module, and damage is refused."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pandas as pd
import pytest

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.text_batches import text_batches

ROWS = [[str(i), f'a "quote {i}', "NA" if i % 2 else "", "#no comment"] for i in range(200)]


def written(path: Path, rows: list[list[str]] = ROWS, head: str = "#id\tname\tvalue\tnote", end: str = "\n") -> Path:
    text = end.join([head, *("\t".join(row) for row in rows)]) + end
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("head", ["#id\tname\tvalue\tnote", "\ufeffid\tname\tvalue\tnote"])
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_rows_in_batches(tmp_path: Path, end: str, head: str, name: str) -> None:
    path = written(tmp_path / name, head=head, end=end)
    batches = list(text_batches(path, ["value", "id", "name"], batch_bytes=512))
    assert len(batches) > 3
    table = pd.concat(batches)
    plain = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    expected = list(csv.reader(plain.decode().splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    assert table.to_numpy().tolist() == [[row[2], row[0], row[1]] for row in expected]


def test_no_rows(tmp_path: Path) -> None:
    assert list(text_batches(written(tmp_path / "a.txt", []), ["id"])) == []


@pytest.mark.parametrize("row", [["1", "2", "3"], ["1", "2", "3", "4", "5"]])
def test_a_row_with_another_number_of_cells_is_refused(tmp_path: Path, row: list[str]) -> None:
    with pytest.raises(UserError, match="damaged or cut off"):
        list(text_batches(written(tmp_path / "a.txt", [*ROWS, row]), ["id"]))


def test_damage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no column 'other'"):
        list(text_batches(written(tmp_path / "a.txt"), ["id", "other"]))
    path = written(tmp_path / "a.txt.gz")
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(UserError, match="damaged or cut off"):
        list(text_batches(path, ["id"]))
    (tmp_path / "b.txt").write_bytes(b"id\tname\n1\t\xff\xfe\n")
    with pytest.raises(UserError, match="damaged or cut off"):
        list(text_batches(tmp_path / "b.txt", ["id", "name"]))
