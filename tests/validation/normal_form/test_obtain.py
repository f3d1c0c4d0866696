"""scripts/download_databases.py: sources from a local server and from folders."""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import sae_genomics.validation.databases as databases
from sae_genomics.validation.normal_form.schema import EDGES_FILE, PARENTS_FILE, SOURCE_FILE, TERMS_FILE, read_table
from scripts.download_databases import main
from tests.validation.excerpts import excerpts, needs
from tests.validation.normal_form.hgnc_file import filler, gene, write_hgnc

ROOT = Path(__file__).parents[3]
KEY = "k3y-that-is-s3cret"
READER = """
from pathlib import Path
from sae_genomics.validation.normal_form.statements import Statements
from sae_genomics.validation.normal_form.text_tables import find, read_text_table

def read(folder: Path) -> Statements:
    table = read_text_table(find(folder, ["NAME.tsv.gz", "NAME.tsv"], "NAME"), ["term_id", "gene_symbol"], optional=["term_name"])
    return Statements(terms=table, rows_read=len(table))
"""
TABLE = b"term_id\tterm_name\tgene_symbol\nT:1\tfirst\tONE\nT:1\tfirst\tOLD\nT:2\tsecond\tTWO\n"


@pytest.fixture
def added(tmp_path, monkeypatch):
    """Adds a source from outside: a file with its reader in the folder of databases, and an entry in a catalogue."""
    readers = tmp_path / "readers"
    readers.mkdir()
    monkeypatch.setattr(databases, "__path__", [*databases.__path__, str(readers)])
    catalogue = tmp_path / "databases.yaml"
    entries: dict = {}

    def add(name: str, url: str, reader: str = READER, **values) -> list[str]:
        (readers / f"{name}.py").write_text(reader.replace("NAME", name))
        importlib.invalidate_caches()
        usual = {
            "title": name,
            "licence": "CC0",
            "citation": "C",
            "files": [{"name": url.rpartition("/")[2], "url": url}],
        }
        entries[name] = usual | values
        catalogue.write_text(yaml.safe_dump(entries, sort_keys=False))
        return ["--catalogue", str(catalogue), "--to", str(tmp_path / "to")]

    yield add
    for name in entries:
        sys.modules.pop(f"{databases.__name__}.{name}", None)


@pytest.fixture
def hgnc(added, server, tmp_path):
    genes = [gene(1, "ONE", prev_symbol="OLD"), gene(2, "TWO"), *filler(10_000)]
    server.files["/hgnc_complete_set.txt"] = write_hgnc(tmp_path / "made", genes).read_bytes()
    reader = (ROOT / "sae_genomics" / "validation" / "databases" / "hgnc.py").read_text()
    return added("hgnc", f"{server.url}/hgnc_complete_set.txt", reader)


def facts(tmp_path: Path, name: str) -> dict:
    return json.loads((tmp_path / "to" / name / SOURCE_FILE).read_text())


def everything_written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() + str(path).encode() for path in sorted(folder.rglob("*")) if path.is_file())


def test_a_database_is_added_in_two_places(hgnc, added, server, tmp_path, capsys):
    server.files["/other.tsv"] = TABLE
    arguments = added("other", f"{server.url}/other.tsv", version="3")
    assert main([*arguments, "--only", "other"]) == 0  # the table of genes comes along
    said = capsys.readouterr()
    assert "hgnc is fetched too" in said.err
    assert "other: 3 rows read, 2 statements on 2 terms and 2 genes, 0 negative; unmapped genes 0.0%" in said.err
    assert f"{tmp_path / 'to'}: 2 built, 0 there already, 0 skipped, 0 failed" in said.out
    table = read_table(tmp_path / "to" / "other" / TERMS_FILE).to_pandas()
    assert table[["term_id", "gene_symbol", "hgnc_id"]].values.tolist() == [
        ["T:1", "ONE", "HGNC:1"],
        ["T:2", "TWO", "HGNC:2"],
    ]
    known = facts(tmp_path, "other")
    assert (known["version"], known["counts"]["dropped"]) == ("3", {"duplicate": 1})
    assert known["files"][0]["url"] == f"{server.url}/other.tsv"
    assert (known["files"][0]["bytes"], known["files"][0]["modified"]) == (len(TABLE), "2026-09-04")
    assert facts(tmp_path, "hgnc")["version"] == "2026-09-04"  # an address that moves: the day of the file
    assert main([*arguments, "--list"]) == 0
    assert "other         other                              3            CC0" in capsys.readouterr().out


def test_what_is_there_is_not_fetched_again(hgnc, added, server, tmp_path, capsys):
    server.files["/other.tsv"] = TABLE
    arguments = added("other", f"{server.url}/other.tsv", version="3")
    assert main(arguments) == 0
    n = len(server.requests)
    assert main(arguments) == 0
    assert len(server.requests) == n
    assert "0 built, 2 there already" in capsys.readouterr().out
    added("other", f"{server.url}/other.tsv", version="4")
    assert main(arguments) == 0
    assert server.paths()[n:] == ["/other.tsv"]
    assert facts(tmp_path, "other")["version"] == "4"
    assert main([*arguments, "--only", "other", "--again"]) == 0
    assert server.paths()[n:] == ["/other.tsv", "/other.tsv"]
    # Another table of genes: what was named by the old one is made again, without a fetch.
    server.files["/hgnc_complete_set.txt"] += (
        b"\t".join([b"HGNC:9", b"NINE", *[b""] * 3, b"Approved", *[b""] * 47]) + b"\n"
    )
    assert main([*arguments, "--only", "hgnc", "--again"]) == 0
    assert main(arguments) == 0
    assert server.paths()[n + 2 :] == ["/hgnc_complete_set.txt"]
    assert facts(tmp_path, "other")["gene_table"] == facts(tmp_path, "hgnc")["gene_table"]


def test_one_source_that_fails_stops_no_other(hgnc, added, server, tmp_path, capsys):
    server.files |= {
        "/good.tsv": TABLE,
        "/bug.tsv": TABLE,
        "/changed.tsv": TABLE.replace(b"gene_symbol", b"symbol_of_gene"),
        "/cut.tsv": TABLE[:-10],
    }
    for name in ("changed", "cut", "gone", "bug", "page", "good"):
        reader = READER.replace("return", "raise KeyError('odd')\n    return") if name == "bug" else READER
        arguments = added(name, f"{server.url}/{name}.tsv", reader)
    server.files["/page.tsv"] = b"<html>Please sign in</html>"
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert "2 built, 0 there already, 0 skipped, 5 failed" in said.out
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert [line.split()[1] for line in errors] == ["changed:", "cut:", "gone:", "bug:", "page:"]
    for line, reason in zip(errors, ["has no column 'gene_symbol'", "is damaged or cut off", "answers HTTP status 404", "KeyError: 'odd'", "gives a web page"], strict=True):  # fmt: skip
        assert reason in line
    there = {path.name for path in (tmp_path / "to").iterdir() if (path / SOURCE_FILE).exists()}
    assert there == {"hgnc", "good"}
    for name in ("changed", "cut", "gone", "bug", "page"):
        assert not (tmp_path / "to" / name / TERMS_FILE).exists()


def test_a_source_goes_on_without_an_optional_file(hgnc, added, server, tmp_path, capsys):
    server.files["/other.tsv"] = TABLE
    names = [
        {"name": "absent.obo", "url": f"{server.url}/absent.obo", "optional": True},
        {"name": "other.tsv", "url": f"{server.url}/other.tsv"},
    ]
    arguments = added("other", f"{server.url}/other.tsv", files=names)
    assert main([*arguments, "--tries", "1"]) == 0
    assert "other: goes on without absent.obo: " in capsys.readouterr().err
    assert [file["name"] for file in facts(tmp_path, "other")["files"]] == ["other.tsv"]
    names[0]["optional"] = False
    arguments = added("other", f"{server.url}/other.tsv", files=names)
    assert main([*arguments, "--tries", "1", "--again"]) == 2
    # It comes with the next fetch.
    server.files["/absent.obo"] = b"format-version: 1.2\n"
    assert main([*arguments, "--tries", "1", "--again"]) == 0
    assert [file["name"] for file in facts(tmp_path, "other")["files"]] == ["absent.obo", "other.tsv"]


def test_a_source_of_an_older_form_is_made_again_without_a_fetch(hgnc, added, server, tmp_path):
    server.files["/other.tsv"] = TABLE
    arguments = added("other", f"{server.url}/other.tsv")
    assert main(arguments) == 0
    path = tmp_path / "to" / "other" / SOURCE_FILE
    n, now = len(server.requests), facts(tmp_path, "other")
    path.write_text(json.dumps({name: value for name, value in now.items() if name != "form"}))
    assert main(arguments) == 0
    assert facts(tmp_path, "other")["form"] == now["form"]
    assert len(server.requests) == n


def test_without_its_key_a_source_is_skipped(hgnc, added, server, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    arguments = added("locked", f"{server.url}/{{key}}/locked.tsv", key="SOME_KEY")
    assert main(arguments) == 0
    assert (
        "locked: skipped, the environment variable SOME_KEY with its access key is not set" in capsys.readouterr().err
    )
    assert not any("locked" in path for path in server.paths())


def test_no_key_is_in_any_output_or_file(hgnc, added, server, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SOME_KEY", KEY)
    server.files[f"/{KEY}/locked.tsv"] = TABLE
    server.rows = {str(1000 + i): i for i in (1, 2)}
    pages = [
        {
            "name": "gda_pages.jsonl",
            "kind": "pages",
            "url": f"{server.url}/gda/summary?gene_ncbi_id={{genes}}&page_number={{page}}",
        }
    ]
    bug = READER.replace("return", "import os; raise ValueError('read with ' + os.environ['SOME_KEY'])\n    return")
    of_pages = (
        READER.split("def read")[0]
        + "def read(folder):\n    raise RuntimeError((folder / 'gda_pages.jsonl').read_text())\n"
    )
    added("locked", f"{server.url}/{{key}}/locked.tsv", key="SOME_KEY")
    failing = [{"name": "failing.tsv", "url": f"{server.url}/{{key}}/locked.tsv"}]
    added("failing", "http://x/x", bug, key="SOME_KEY", files=failing)
    added("refused", f"{server.url}/{{key}}/nothing.tsv", key="SOME_KEY")
    arguments = added("api", "http://x/x", of_pages, key="SOME_KEY", key_header="Authorization", files=pages)
    monkeypatch.setattr("sae_genomics.validation.normal_form.obtain._entrez_ids", lambda task: ["1001", "1002"])
    monkeypatch.setattr("sae_genomics.web.time.sleep", lambda seconds: None)
    server.failures = [500, 503, "drop"]
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert any(KEY in path for path in server.paths())  # it was used
    assert any(headers.get("Authorization") == KEY for _, headers in server.requests)
    assert KEY not in said.out + said.err
    assert KEY.encode() not in everything_written(tmp_path / "to")
    assert "locked: 3 rows read" in said.err
    assert facts(tmp_path, "locked")["files"][0]["url"] == f"{server.url}/{{key}}/locked.tsv"
    assert "ValueError: read with <SOME_KEY>); the lines above say where; --again fetches" in said.err
    assert "api: its reader failed (RuntimeError: " in said.err


def test_a_directory_of_parts_and_what_an_earlier_release_left(hgnc, added, server, tmp_path):
    reader = "def read(folder):\n    import pandas as pd\n    from sae_genomics.validation.normal_form.statements import Statements\n    t = pd.concat(pd.read_parquet(p) for p in sorted((folder / 'parts').glob('*.parquet')))\n    return Statements(terms=t, rows_read=len(t))\n"
    import pandas as pd

    for i in range(3):
        part = tmp_path / "part.parquet"
        pd.DataFrame({"term_id": ["T:1"], "term_name": ["a"], "gene_symbol": [f"FILL{50_000 + i}"]}).to_parquet(part)
        server.files[f"/1/part-{i}.parquet"] = server.files[f"/2/piece-{i}.parquet"] = part.read_bytes()
    for release, word in (("1", "part"), ("2", "piece")):
        links = "".join(f'<a href="{word}-{i}.parquet">x</a>' for i in range(3))
        server.files[f"/{release}/"] = f"<html>{links}</html>".encode()
    files = [{"name": "parts", "kind": "directory", "url": f"{server.url}/{{version}}/"}]
    for release, word in (("1", "part"), ("2", "piece")):
        arguments = added("parted", "http://x/x", reader, version=release, files=files)
        assert main([*arguments, "--only", "parted"]) == 0
        known = facts(tmp_path, "parted")
        assert [file["name"] for file in known["files"]] == [f"parts/{word}-{i}.parquet" for i in range(3)]
        assert (known["version"], known["counts"]["genes"], known["counts"]["rows_read"]) == (release, 3, 3)
        (tmp_path / "to" / "parted" / "files" / "mine.txt").write_text("put there by hand")
    # Stopped in the middle of a third release: the second one's parts are known, and go once the third is whole.
    for i in range(3):
        server.files[f"/3/new-{i}.parquet"] = server.files[f"/1/part-{i}.parquet"]
    server.files["/3/"] = server.files["/1/"].replace(b"part-", b"new-").replace(b"new-2", b"missing-2")
    arguments = added("parted", "http://x/x", reader, version="3", files=files)
    assert main([*arguments, "--only", "parted"]) == 2
    server.files["/3/"] = server.files["/1/"].replace(b"part-", b"new-")
    assert main([*arguments, "--only", "parted"]) == 0
    assert facts(tmp_path, "parted")["counts"]["rows_read"] == 3
    left = sorted(path.name for path in (tmp_path / "to" / "parted" / "files").rglob("*") if path.is_file())
    assert left == ["fetched.json", "mine.txt", "new-0.parquet", "new-1.parquet", "new-2.parquet"]


def test_from_a_folder_without_a_socket(hgnc, added, tmp_path, monkeypatch, capsys):
    def no_socket(*arguments, **values):
        raise AssertionError("opens a socket")

    monkeypatch.setattr(socket.socket, "connect", no_socket)
    monkeypatch.setattr(socket, "create_connection", no_socket)
    added("locked", "https://nowhere/{key}/locked.tsv", key="SOME_KEY")
    arguments = added("absent", "https://nowhere/absent.tsv")
    source = tmp_path / "source"
    (source / "locked").mkdir(parents=True)
    (source / "locked" / "locked.tsv").write_bytes(TABLE)
    assert main([*arguments, "--from", str(source)]) == 0
    said = capsys.readouterr().err
    assert f"absent: passed over, {source / 'absent'} is not there" in said
    assert said.count("there is no HGNC table") == 1
    assert facts(tmp_path, "locked")["counts"]["statements"] == 3
    write_hgnc(source / "hgnc", [gene(1, "ONE", prev_symbol="OLD")])
    assert main([*arguments, "--from", str(source)]) == 0
    assert "the HGNC table is an excerpt of 1 genes" in capsys.readouterr().err
    table = read_table(tmp_path / "to" / "locked" / TERMS_FILE).to_pandas()
    assert table[["gene_symbol", "hgnc_id"]].values.tolist() == [["ONE", "HGNC:1"], ["TWO", None]]
    known = facts(tmp_path, "locked")
    assert (known["files"][0]["name"], known["files"][0]["url"], known["version"]) == ("locked.tsv", "", "")
    # What was built remembers the table of genes, also when only another source is asked for.
    (source / "hgnc" / "hgnc_complete_set.txt").unlink()
    assert main([*arguments, "--from", str(source), "--only", "locked"]) == 0
    assert facts(tmp_path, "locked")["gene_table"] == known["gene_table"]


def test_a_folder_that_was_fetched_elsewhere_keeps_its_addresses(hgnc, added, server, tmp_path):
    server.files["/other.tsv"] = TABLE
    arguments = added("other", f"{server.url}/other.tsv", version="3")
    assert main(arguments) == 0
    assert main([*arguments[:2], "--from", str(tmp_path / "to"), "--to", str(tmp_path / "to2")]) == 0
    one, two = facts(tmp_path, "other"), json.loads((tmp_path / "to2" / "other" / SOURCE_FILE).read_text())
    assert one == two


def test_the_script_says_what_is_wrong_in_one_line(tmp_path):
    def call(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / "scripts" / "download_databases.py"), *arguments]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300)

    helped = call("--help")
    assert helped.returncode == 0
    for option in (
        "--only",
        "--list",
        "--from",
        "--to",
        "--again",
        "OMIM_API_KEY",
        "DISGENET_API_KEY",
        "default: databases",
    ):
        assert option in helped.stdout
    wrong = call("--only", "reactom")
    assert (wrong.returncode, wrong.stderr) == (2, "error: --only: 'reactom' is no database of the catalogue; did you mean reactome?\n")  # fmt: skip
    nowhere = call("--from", str(tmp_path / "nothing"))
    assert (nowhere.returncode, nowhere.stderr.count("\n")) == (2, 1)
    listed = call("--list")
    assert len(listed.stdout.splitlines()) == 18
    assert "needs OMIM_API_KEY" in listed.stdout
    assert not list(tmp_path.iterdir())


EXCERPTS = excerpts()


@needs(EXCERPTS)
def test_the_real_excerpts(tmp_path, capsys):
    """Every excerpt whose reader is here becomes its normal form, beside HGNC's excerpt of seven rows."""
    names = [path.name for path in sorted(EXCERPTS.iterdir()) if path.is_dir()]
    here = [name for name in names if (ROOT / "sae_genomics" / "validation" / "databases" / f"{name}.py").exists()]
    assert "hgnc" in here
    assert main(["--from", str(EXCERPTS), "--to", str(tmp_path)]) == 0
    for name in here:
        known = json.loads((tmp_path / name / SOURCE_FILE).read_text())
        counts = known["counts"]
        assert read_table(tmp_path / name / TERMS_FILE).num_rows == counts["statements"]
        # The excerpt of Open Targets has targets and diseases, and no statement on both.
        assert (counts["rows_read"] > 0) == (name != "open_targets")
        assert counts["rows_read"] + counts["split"] == counts["kept"] + sum(counts["dropped"].values()), name
        for file, rows in ((PARENTS_FILE, "parents"), (EDGES_FILE, "edges")):
            if (tmp_path / name / file).exists():
                assert read_table(tmp_path / name / file).num_rows == counts[rows]
