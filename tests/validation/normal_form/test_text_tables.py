"""Text tables of databases: every cell as it stands, and no half-read table."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.text_tables import find, read_text_table


def write(folder: Path, text: str, name: str = "table.txt") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_no_cell_is_read_as_missing_or_as_a_number(tmp_path):
    path = write(tmp_path, '#gene\tscore\tname\r\nNA\t007\t"half\r\nNULL\t1e3\t# no comment\r\nnan\t\t \r\n')
    frame = read_text_table(path, ["gene", "score", "name"], optional=["more"])
    assert frame.values.tolist() == [
        ["NA", "007", '"half', ""],
        ["NULL", "1e3", "# no comment", ""],
        ["nan", "", " ", ""],
    ]


def test_columns_come_by_name_and_comments_before_the_header_are_passed_over(tmp_path):
    path = write(tmp_path, "!version 2\n!date\na\tx\tx\tb\n1\t2\t3\t4\n")
    assert read_text_table(path, ["b", "a"], skip="!").values.tolist() == [["4", "1"]]
    with pytest.raises(UserError, match="has two columns 'x'"):
        read_text_table(path, ["x"], skip="!")
    with pytest.raises(UserError, match=r"no column 'gene'; it begins with a, x, x, b: its layout has changed"):
        read_text_table(path, ["gene"], skip="!")


def test_a_table_without_a_header_or_without_rows(tmp_path):
    path = write(tmp_path, "a b 1\n")
    assert read_text_table(path, ["one", "two"], names=["one", "two", "n"], separator=" ").values.tolist() == [
        ["a", "b"]
    ]
    empty = read_text_table(write(tmp_path, "a\tb\n"), ["a"], optional=["c"])
    assert (list(empty), len(empty)) == (["a", "c"], 0)


def test_quoted_cells_hold_separators_and_line_ends(tmp_path):
    path = write(tmp_path, '"a","b"\n"1,2","x\ny"\n"say ""hi""",\n')
    assert read_text_table(path, ["a", "b"], separator=",", quoted=True).values.tolist() == [
        ["1,2", "x\ny"],
        ['say "hi"', ""],
    ]


@pytest.mark.parametrize("row", ["1\t2\n", "1\t2\t3\t4\n", "1"])
def test_a_row_with_another_number_of_cells_is_refused(tmp_path, row):
    path = write(tmp_path, "a\tb\tc\n7\t8\t9\n" + row)
    with pytest.raises(UserError, match=r"damaged or cut off: .*Expected 3 columns, got"):
        read_text_table(path, ["a"])


def test_rows_that_end_early_are_filled_where_that_is_their_form(tmp_path):
    path = write(tmp_path, 'a\tb\tc\n1\t"x|y"\n4\t5\t6\n')
    assert read_text_table(path, ["c", "b", "a"], quoted=True, short_rows=True).values.tolist() == [
        ["6", "5", "4"],
        ["", "x|y", "1"],
    ]
    with pytest.raises(UserError, match="Expected 3 columns, got 4"):
        read_text_table(write(tmp_path, "a\tb\tc\n1\t2\t3\t4\n"), ["a"], short_rows=True)


def test_archives_web_pages_and_damage(tmp_path):
    text = "a\tb\n" + "".join(f"{i}\t{i * i}\n" for i in range(20_000))
    packed = tmp_path / "table.txt.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert len(read_text_table(packed, ["b"])) == 20_000
    packed.write_bytes(packed.read_bytes()[:-2000])
    with pytest.raises(UserError, match="damaged or cut off"):
        read_text_table(packed, ["b"])
    bad = bytearray(gzip.compress(text.encode()))
    bad[len(bad) // 2] ^= 0xFF
    packed.write_bytes(bad)
    with pytest.raises(UserError, match="damaged or cut off"):
        read_text_table(packed, ["b"])
    with zipfile.ZipFile(tmp_path / "table.zip", "w") as archive:
        archive.writestr("inside.tsv", text)
    assert len(read_text_table(tmp_path / "table.zip", ["a"])) == 20_000
    with pytest.raises(UserError, match="is a web page and not a table"):
        read_text_table(write(tmp_path, " \n<!DOCTYPE html><html>"), ["a"])
    with pytest.raises(UserError, match="is empty"):
        read_text_table(write(tmp_path, "\n"), ["a"])
    (tmp_path / "latin.txt").write_bytes("a\nj\xe9\n".encode("latin-1"))
    with pytest.raises(UserError, match="damaged or cut off"):
        read_text_table(tmp_path / "latin.txt", ["a"])
    assert read_text_table(tmp_path / "latin.txt", ["a"], encoding="latin-1")["a"].tolist() == ["j\xe9"]
    with pytest.raises(UserError, match=r"none of a.txt, b.txt is in"):
        find(tmp_path, ["a.txt", "b.txt"], "hpo")
