"""Fetching files, against a local server that fails in every way that servers do."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from sae_genomics.atomic import UNFINISHED
from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form import fetch
from sae_genomics.validation.normal_form.catalogue import Entry
from sae_genomics.validation.normal_form.fetch import Wanted, fetch_file
from sae_genomics.validation.normal_form.listing import parts_of
from sae_genomics.validation.normal_form.pages import fetch_pages
from sae_genomics.validation.normal_form.service import Service
from sae_genomics.web import Patience
from tests.validation.normal_form.files_server import FileServer

BODY = b"".join(f"gene{i}\t{i * 7919}\n".encode() for i in range(40_000))


def service(server: FileServer, key: str = "", timeout: float = 30.0, **values) -> Service:
    files = [{"name": "x", "url": "http://x/{key}" if key and "key_header" not in values else "http://x"}]
    entry = Entry(title="T", licence="L", citation="C", files=files, key="SOME_KEY" if key else "", **values)
    return Service("base", entry, key, Patience(wait=1.0, tries=4, timeout=timeout))


def wanted(server: FileServer, folder: Path, name: str = "table.txt", **values) -> Wanted:
    return Wanted(folder / "base" / name, f"{server.url}/{name}", **values)


def nothing_left(folder: Path) -> bool:
    return not any(path.is_file() for path in folder.rglob("*"))


@pytest.fixture
def table(server) -> FileServer:
    server.files["/table.txt"] = BODY
    return server


def test_a_file_and_what_is_recorded_of_it(table, tmp_path, capsys):
    file = fetch_file(service(table), wanted(table, tmp_path))
    assert (tmp_path / "base" / "table.txt").read_bytes() == BODY
    assert (file.name, file.url, file.bytes, file.modified) == (
        "table.txt",
        f"{table.url}/table.txt",
        len(BODY),
        "2026-09-04",
    )
    assert file.sha256 == hashlib.sha256(BODY).hexdigest()
    assert [path.name for path in (tmp_path / "base").iterdir()] == ["table.txt"]
    assert table.requests[0][1]["User-Agent"].startswith("sae-genomics/")
    assert f"base: table.txt: {len(BODY):,}/{len(BODY):,} bytes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("failures", "waited"),
    [
        ([429, 500, 503], [0, 0, 0]),
        ([(429, {"x-rate-limit-retry-after-seconds": "9"}), (429, {"Retry-After": "30"})], [9, 30]),
        (["drop"], [1]),
        (["half", "half"], [1, 2]),
    ],
    ids=["statuses", "asked pauses", "dropped", "half a body"],
)
def test_what_passes_is_tried_again(table, tmp_path, pauses, failures, waited):
    table.failures = list(failures)
    file = fetch_file(service(table), wanted(table, tmp_path))
    assert (tmp_path / "base" / "table.txt").read_bytes() == BODY
    assert file.bytes == len(BODY)
    assert pauses == waited


def test_a_time_out_is_tried_again(table, tmp_path, pauses, capsys):
    table.failures, table.patience = ["slow"], 1.5
    fetch_file(service(table, timeout=0.3), wanted(table, tmp_path))
    assert (tmp_path / "base" / "table.txt").read_bytes() == BODY
    assert "did not answer (timed out); trying again" in capsys.readouterr().err


def test_a_transfer_goes_on_from_where_it_stopped(table, tmp_path, pauses):
    table.failures = ["half"]
    fetch_file(service(table), wanted(table, tmp_path))
    assert table.requests[1][1]["Range"] == f"bytes={len(BODY) // 2}-"
    assert (tmp_path / "base" / "table.txt").read_bytes() == BODY


def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(table, tmp_path, pauses):
    table.failures = ["half"] * 4
    with pytest.raises(
        UserError, match=r"did not answer 4 times \(.* bytes came\); the same command goes on from here later"
    ):
        fetch_file(service(table), wanted(table, tmp_path))
    assert not (tmp_path / "base" / "table.txt").exists()
    table.files["/table.txt"] = other = BODY[::-1]
    fetch_file(service(table), wanted(table, tmp_path))
    assert "Range" in table.requests[-1][1]
    assert (tmp_path / "base" / "table.txt").read_bytes() == other
    assert len(list((tmp_path / "base").iterdir())) == 1


def test_a_server_that_names_no_version_of_a_file_is_not_resumed(table, tmp_path, pauses):
    table.tags, table.failures = False, ["half"]
    fetch_file(service(table), wanted(table, tmp_path))
    assert "Range" not in table.requests[1][1]
    assert (tmp_path / "base" / "table.txt").read_bytes() == BODY


def test_a_later_process_goes_on(table, tmp_path):
    """What a process left that has ended, here one that was killed in the middle."""
    program = (
        "import os, sys; from pathlib import Path; from sae_genomics.atomic import *\n"
        "p = temporary_beside(Path(sys.argv[1]), UNFINISHED); p.parent.mkdir(parents=True)\n"
        "p.write_bytes(sys.stdin.buffer.read()); write_json(p.with_name(p.name + '.json'), {'validator': sys.argv[2]}); os._exit(9)"
    )
    path, tag = tmp_path / "base" / "table.txt", f'"{hashlib.md5(BODY).hexdigest()}"'
    subprocess.run([sys.executable, "-c", program, str(path), tag], input=BODY[:1000], timeout=120)
    fetch_file(service(table), wanted(table, tmp_path))
    assert table.requests[0][1]["Range"] == "bytes=1000-"
    assert path.read_bytes() == BODY
    assert [each.name for each in path.parent.iterdir()] == ["table.txt"]


def test_a_file_that_another_process_fetches_now_is_left_alone(table, tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    theirs = folder / f"{UNFINISHED}another-host-17.4711-0-table.txt"
    theirs.write_bytes(b"x")
    fetch_file(service(table), wanted(table, tmp_path))
    assert theirs.read_bytes() == b"x"


def test_a_web_page_in_place_of_a_table_is_refused_at_once(table, tmp_path, pauses):
    table.failures = ["html"]
    with pytest.raises(
        UserError, match=r"base: http.*/table.txt gives a web page and not table.txt: a key has expired"
    ):
        fetch_file(service(table), wanted(table, tmp_path))
    assert len(table.requests) == 1
    assert nothing_left(tmp_path)


@pytest.mark.parametrize(
    "page", [b"\xef\xbb\xbf \n<HTML>", b"<?xml version='1.0'?>\n<!DOCTYPE html PUBLIC>", b"<!-- x --><html lang='en'>"]
)
def test_what_is_a_web_page(page):
    assert fetch.is_web_page(page)
    assert not fetch.is_web_page(b"<?xml version='1.0' encoding='ISO-8859-1'?>\n<JDBOR>")
    assert not fetch.is_web_page(b"gene\t<html>")


@pytest.mark.parametrize("check", ["sha256", "md5"])
def test_a_wrong_checksum(table, tmp_path, check, capsys):
    right = hashlib.new(check, BODY).hexdigest()
    fetch_file(service(table), wanted(table, tmp_path, **{check: right}))
    (tmp_path / "base" / "table.txt").unlink()
    with pytest.raises(UserError, match=r"base: table.txt has the .* and should have 0000.*, 2 times; is http"):
        fetch_file(service(table), wanted(table, tmp_path, **{check: "0" * len(right)}))
    assert len(table.requests) == 3
    assert nothing_left(tmp_path)
    assert "fetching it again" in capsys.readouterr().err


def packed(name: str) -> bytes:
    if name.endswith(".gz"):
        return gzip.compress(BODY)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside.tsv", BODY)
    return file.getvalue()


@pytest.mark.parametrize("name", ["table.txt.gz", "table.zip"])
def test_an_archive_that_is_cut_off_with_a_plausible_size(server, tmp_path, name):
    whole = packed(name)
    server.files[f"/{name}"] = whole[:-500]  # the server announces exactly what it sends
    with pytest.raises(UserError, match=rf"base: {name} is damaged or cut off .*, 2 times"):
        fetch_file(service(server), wanted(server, tmp_path, name))
    assert nothing_left(tmp_path)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    server.files[f"/{name}"] = bytes(flipped)
    with pytest.raises(UserError, match=rf"base: {name} is damaged"):
        fetch_file(service(server), wanted(server, tmp_path, name))
    server.files[f"/{name}"] = whole
    assert fetch_file(service(server), wanted(server, tmp_path, name)).bytes == len(whole)


def test_an_empty_file_and_a_parquet_part_that_is_cut_off(server, tmp_path):
    server.files |= {"/empty.txt": b"\n", "/part.parquet": b"PAR1" + bytes(500)}
    with pytest.raises(UserError, match=r"empty.txt is empty, 2 times"):
        fetch_file(service(server), wanted(server, tmp_path, "empty.txt"))
    with pytest.raises(UserError, match="cut off, or no Parquet file"):
        fetch_file(service(server), wanted(server, tmp_path, "part.parquet"))


def test_an_address_that_is_not_there_is_not_tried_again(server, tmp_path):
    with pytest.raises(
        UserError, match=r"base: http.*/table.txt answers HTTP status 404 .*; the address has changed\?"
    ):
        fetch_file(service(server), wanted(server, tmp_path))
    assert len(server.requests) == 1
    assert nothing_left(tmp_path)


def test_a_redirect_is_followed_and_the_key_does_not_go_along(table, tmp_path):
    other = FileServer()
    other.files["/moved.txt"] = BODY
    table.redirects["/table.txt"] = f"{other.url}/moved.txt"
    fetch_file(service(table, key="s3cret", key_header="Authorization"), wanted(table, tmp_path))
    other.shutdown()
    other.server_close()
    assert (tmp_path / "base" / "table.txt").read_bytes() == BODY
    assert table.requests[0][1]["Authorization"] == "s3cret"
    assert "Authorization" not in other.requests[0][1]


def test_a_key_stands_in_no_message(server, tmp_path, capsys, pauses):
    key = "s3cret/+ key"
    asking = service(server, key=key)
    url = f"{server.url}/downloads/{{key}}/table.txt"
    server.files["/downloads/s3cret%2F%2B%20key/table.txt"] = BODY
    server.failures = [500, "drop"]
    file = fetch_file(asking, Wanted(tmp_path / "table.txt", url))
    assert file.url == url
    server.failures = [403]
    with pytest.raises(UserError, match="is the key in SOME_KEY right") as refused:
        fetch_file(asking, Wanted(tmp_path / "other.txt", url))
    server.failures = ["html"]
    with pytest.raises(UserError) as page:
        fetch_file(asking, Wanted(tmp_path / "other.txt", url))
    said = f"{capsys.readouterr()}{refused.value}{page.value}{asking}{file}"
    assert "s3cret" not in said
    assert "SOME_KEY" in said


def test_requests_keep_their_distance(table, tmp_path):
    asking = service(table, pause=0.3)
    begin = time.monotonic()
    for i in range(4):
        fetch_file(asking, Wanted(tmp_path / f"{i}.txt", f"{table.url}/table.txt"))
    assert time.monotonic() - begin >= 0.9


def test_parts_of_a_directory(server):
    listing = (
        '<html><body><a href="?C=N;O=D">Name</a> <a href="/pub/">Parent</a> <a href="part-1.zstd.parquet">1</a> <a href="_SUCCESS">_</a>'
        '<a href="part-0.zstd.parquet">0</a> <a href="sub/part-9.parquet">9</a> <a href="http://elsewhere/part-8.parquet">8</a></body></html>'
    )
    server.files["/out/"] = listing.encode()
    server.files["/empty/"] = b"<html></html>"
    assert parts_of(service(server), f"{server.url}/out") == {
        "part-0.zstd.parquet": f"{server.url}/out/part-0.zstd.parquet",
        "part-1.zstd.parquet": f"{server.url}/out/part-1.zstd.parquet",
    }
    with pytest.raises(UserError, match=r"/empty/ lists no .parquet file"):
        parts_of(service(server), f"{server.url}/empty/")


GENES = [str(i) for i in range(1, 24)]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def pages(server: FileServer, folder: Path, key: str = "s3cret"):
    url = f"{server.url}/gda/summary?gene_ncbi_id={{genes}}&page_number={{page}}"
    return fetch_pages(service(server, key=key, key_header="Authorization"), folder / "gda_pages.jsonl", url, GENES)


def test_all_pages_of_a_rest_interface(server, tmp_path, capsys):
    server.rows = {"1": 3, "2": 9, "11": 5, "23": 1}
    file = pages(server, tmp_path)
    answers = lines(tmp_path / "gda_pages.jsonl")
    assert [len(answer["payload"]) for answer in answers] == [5, 5, 2, 5, 1]
    assert "page_number=0" in server.paths()[0]
    assert {request["Authorization"] for _, request in server.requests} == {"s3cret"}
    assert capsys.readouterr().err.count("only curated sources for this key") == 1
    assert file.sha256 == hashlib.sha256((tmp_path / "gda_pages.jsonl").read_bytes()).hexdigest()
    assert "s3cret" not in (tmp_path / "gda_pages.jsonl").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["gda_pages.jsonl"]


def test_a_quota_that_is_used_up_ends_with_one_line_and_goes_on_later(server, tmp_path, pauses):
    server.rows = {"1": 12, "11": 7}
    server.failures = [None, None, (429, {"x-rate-limit-retry-after-seconds": "79000"})]
    with pytest.raises(UserError, match=r"base: 127.0.0.1:\d+ asks to wait 21 h 56 min"):
        pages(server, tmp_path)
    assert not (tmp_path / "gda_pages.jsonl").exists()
    n = len(server.requests)
    pages(server, tmp_path)
    assert [len(answer["payload"]) for answer in lines(tmp_path / "gda_pages.jsonl")] == [5, 5, 2, 5, 2, 0]
    assert len(server.requests) == n + 4


def test_rows_that_are_announced_and_do_not_come(server, tmp_path):
    server.rows, server.announced_too_many = {"1": 7}, 2
    with pytest.raises(UserError, match="the service announced 9 rows and gave 7; type the same command again"):
        pages(server, tmp_path)
    assert not (tmp_path / "gda_pages.jsonl").exists()
    server.announced_too_many = 0
    pages(server, tmp_path)
    assert [len(answer["payload"]) for answer in lines(tmp_path / "gda_pages.jsonl")] == [5, 2, 0, 0]
