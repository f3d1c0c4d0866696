"""The download of proteins, against a local server that pages and fails."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sae_genomics.data.proteins.download import FILES, Query, download
from sae_genomics.data.proteins.labels import read_labels
from sae_genomics.data.proteins.read import read_sequences
from sae_genomics.data.proteins.spans import read_spans
from sae_genomics.errors import UserError
from tests.data.proteins.uniprot_server import UniProt, entry

ROOT = Path(__file__).parents[3]


@pytest.fixture
def server() -> Iterator[UniProt]:
    server = UniProt([entry(i) for i in range(1, 24)])
    yield server
    server.shutdown()
    server.server_close()


def query(server: UniProt, **values) -> Query:
    return Query(
        **{"query": "reviewed:true", "features": ("zn_fing", "domain"), "pfam": False, "server": server.url, "size": 5}
        | values
    )


def text(folder: Path, name: str) -> list[str]:
    return gzip.decompress((folder / name).read_bytes()).decode().splitlines()


def test_all_pages_become_files_that_the_data_kind_reads(server, tmp_path):
    source = download(query(server, pfam=True), tmp_path / "out")
    assert (source["n_proteins"], source["n_of_query"], source["n_spans"]) == (23, 23, 23 * 5)
    assert (source["release"], source["n_features_without_exact_ends"]) == ("2026_05", 23 * 3)
    assert len(server.requests) == 5
    first = server.requests[0]
    assert (first["query"], first["format"], first["size"]) == ("reviewed:true", "json", "5")
    assert first["fields"].split(",")[-4] == "protein_families"
    assert first["fields"].split(",")[-3:] == ["ft_zn_fing", "ft_domain", "xref_pfam"]
    assert "cursor" not in first
    assert [each["cursor"] for each in server.requests[1:]] == ["5", "10", "15", "20"]
    assert first["agent"].startswith("sae-genomics/")

    read = read_sequences(tmp_path / "out" / FILES[0])
    assert read.accession == [f"P{i:05d}" for i in range(1, 24)]
    assert read.name[:2] == ["Zinc finger protein 1", "Zinc finger protein 2"]
    table = read_spans(tmp_path / "out" / FILES[1], read.rows, read.length)
    mine = table.frame[table.frame["row"] == 0]
    assert [tuple(row) for row in mine[["start", "stop", "concept"]].itertuples(index=False)] == [
        (0, 4, "Signal"), (0, 5, "Transmembrane: Helical"), (2, 9, "Zinc finger: C2H2-type"),
        (11, 18, "Zinc finger: C2H2-type; degenerate"), (19, 20, "Binding site: Zn(2+)"),
    ]  # fmt: skip
    labels = read_labels(tmp_path / "out" / FILES[2], read.rows)
    assert {name: column[1] for name, column in labels.columns.items()} == {
        "entry": "T2_HUMAN", "organism": "Homo sapiens", "gene": "ZNF2", "family": "family2 family", "group": "family2 family",
        "pfam": "PF00096",
    }  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*FILES, "source.json"])


def test_a_protein_without_a_family_is_a_group_of_its_own(server, tmp_path):
    del server.entries[0]["comments"], server.entries[0]["genes"], server.entries[0]["features"]
    server.entries[0]["proteinDescription"] = {"submissionNames": [{"fullName": {"value": "Some\tname"}}]}
    download(query(server, most=1), tmp_path)
    assert text(tmp_path, FILES[2])[1] == "P00001\tT1_HUMAN\tHomo sapiens\t\t\tP00001"
    assert text(tmp_path, FILES[0])[0] == ">sp|P00001|T1_HUMAN Some name OS=Homo sapiens"


def test_every_failure_that_passes_is_tried_again(server, tmp_path, capsys):
    server.failures = [503, None, 429, "cut", "drop", 500, None]
    source = download(query(server, size=10), tmp_path, wait=0.01)
    assert source["n_proteins"] == 23
    assert len(server.requests) == 3 + 5
    said = capsys.readouterr().err
    assert "HTTP status 503" in said
    assert "trying again in 0 s" in said


def test_a_service_that_stays_away_is_one_line_and_the_same_command_goes_on(server, tmp_path):
    whole = download(query(server), tmp_path / "whole")
    server.failures = [None, None, *[500] * 8]
    with pytest.raises(
        UserError, match=r"UniProt did not answer 8 times \(HTTP status 500\); the same command goes on"
    ):
        download(query(server), tmp_path / "out", wait=0.001)
    assert not (tmp_path / "out" / FILES[0]).exists()
    server.requests.clear()
    assert download(query(server), tmp_path / "out") == whole
    assert [each["cursor"] for each in server.requests] == ["10", "15", "20"]  # two pages were there
    for name in FILES:
        assert text(tmp_path / "out", name) == text(tmp_path / "whole", name)


def test_what_is_there_is_not_downloaded_again(server, tmp_path):
    first = download(query(server), tmp_path)
    server.requests.clear()
    assert download(query(server), tmp_path) == first
    assert not server.requests
    with pytest.raises(UserError, match=r"holds the proteins of another query \(reviewed:true\)"):
        download(query(server, query="other"), tmp_path)
    assert download(query(server, query="other"), tmp_path, restart=True)["asked"]["query"] == "other"


def test_an_unfinished_download_of_another_query_is_not_mixed_in(server, tmp_path):
    server.failures = [None, *[500] * 8]
    with pytest.raises(UserError, match="did not answer"):
        download(query(server), tmp_path, wait=0.001)
    with pytest.raises(UserError, match=r"unfinished download of another query \(reviewed:true\); pass --restart"):
        download(query(server, query="other"), tmp_path)
    assert download(query(server, query="other"), tmp_path, restart=True)["n_proteins"] == 23


def test_a_new_release_in_between_is_not_mixed_in(server, tmp_path):
    server.failures = [None, *[500] * 8]
    with pytest.raises(UserError, match="did not answer"):
        download(query(server), tmp_path, wait=0.001)
    server.release = "2026_06"
    with pytest.raises(UserError, match=r"from release 2026_05 to 2026_06 during the download; pass --restart"):
        download(query(server), tmp_path)
    assert download(query(server), tmp_path, restart=True)["release"] == "2026_06"


def test_at_most_so_many(server, tmp_path):
    assert download(query(server, most=7), tmp_path)["n_proteins"] == 7
    assert len(server.requests) == 2
    assert len(text(tmp_path, FILES[2])) == 8


def test_a_refused_query_is_one_line_with_the_services_words(server, tmp_path):
    with pytest.raises(UserError, match=r"HTTP status 400: 'wrong' is not a valid search field\); correct the query"):
        download(query(server, query="wrong:1"), tmp_path)
    with pytest.raises(UserError, match="no protein for the query 'nothing'"):
        download(query(server, query="nothing"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_script(server, tmp_path):
    def call(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / "scripts" / "download_proteins.py"), "--server", server.url, *arguments]
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)

    done = call("reviewed:true", "--out", str(tmp_path / "out"), "--features", "domain,zn_fing")
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'out'}: 23 proteins, 115 spans" in done.stdout
    assert f"path: {tmp_path / 'out' / FILES[0]}" in done.stdout
    assert json.loads((tmp_path / "out" / "source.json").read_text())["asked"]["features"] == ["domain", "zn_fing"]
    wrong = call("reviewed:true", "--out", str(tmp_path / "out2"), "--features", "domains")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: --features: 'domains' is not known")
    refused = call("wrong:1", "--out", str(tmp_path / "out3"))
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
