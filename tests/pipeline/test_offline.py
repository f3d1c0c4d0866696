"""Compute nodes have no network: validate, annotate and compare_runs open no socket, on a real run with databases."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sae_genomics.artifacts import ANNOTATION_NULLS, FEATURE_TERMS
from sae_genomics.config import load_config
from sae_genomics.execute import execute
from sae_genomics.file_keys import BUILTIN_GENE_SETS
from sae_genomics.run import Run
from sae_genomics.stages import stage_named
from scripts.download_databases import main as download
from tests.pipeline.conftest import ROOT
from tests.pipeline.known_biology_files import write_hgnc

# A hook cannot be removed, and a process that ends at once cannot catch what happened.
GUARD = """
import os, sys
def refuse(event, arguments):
    if event.startswith("socket.") and event != "socket.gethostname":
        os.write(2, f"a socket was opened: {event} {arguments}".encode())
        os._exit(99)
sys.addaudithook(refuse)
"""
MODULES = {"stage": "sae_genomics.cli", "annotate": "scripts.annotate", "compare_runs": "scripts.compare_runs"}


def offline(*arguments: str | Path, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command in a process that ends with 99 at the first socket."""
    command = [str(each) for each in arguments]
    rest = command if command[:1] == ["stage"] else command[1:]
    call = code or f"from {MODULES[command[0]]} import main\nsys.exit(main({rest!r}))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", GUARD + call], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=600
    )


@pytest.mark.parametrize(
    "code",
    [
        "import socket\nsocket.create_connection(('127.0.0.1', 9))",
        "import urllib.request\ntry:\n    urllib.request.urlopen('http://127.0.0.1:9')\nexcept Exception:\n    pass",
        "import socket\ntry:\n    socket.getaddrinfo('localhost', 80)\nexcept Exception:\n    pass",
    ],
)
def test_the_guard_sees_a_socket_even_where_errors_are_caught(code: str) -> None:
    done = offline(code=code)
    assert done.returncode == 99
    assert "a socket was opened" in done.stderr


@pytest.mark.slow
def test_validate_annotate_and_compare_without_a_network(write_config: Callable[..., Path], tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    (raw / "reactome").mkdir(parents=True)
    sets = [
        line.split("\t") for line in (BUILTIN_GENE_SETS / "cell_types.gmt").read_text().splitlines() if line[:1] != "#"
    ]
    lines = ["\t".join([name, f"R-HSA-{100 + i}", *genes]) for i, (name, _, *genes) in enumerate(sets)]
    (raw / "reactome" / "ReactomePathways.gmt").write_text("\n".join(lines) + "\n")
    write_hgnc(raw / "hgnc", 30, {0: list(range(9))})
    assert download(["--from", str(raw), "--to", str(tmp_path / "databases")]) == 0
    sections = {"data": {"max_cells": 60}, "model": {"layers": [2]}, "sae": {"steps": 20}}
    values = {**sections, "validation": {"shuffles": 2, "baselines": ["neurons"]}}
    configs = [write_config("a.yaml", run={"name": "a"}, **values), write_config("b.yaml", run={"name": "b"}, **values)]
    run = Run(load_config(configs[0]), configs[0])
    for name in ("prepare", "extract", "train", "associate"):
        for task in range(run.n_tasks(stage_named(name))):
            execute(run, stage_named(name), task)

    done = offline("stage", "validate", "--config", configs[0])
    assert done.returncode == 0, done.stderr
    layer = run.layer_results(2)
    terms = FEATURE_TERMS.read(layer / FEATURE_TERMS.file)
    assert {"reactome", "cell_types"} <= set(terms["collection"])
    nulls = ANNOTATION_NULLS.read(layer / ANNOTATION_NULLS.file)
    assert {"features", "neurons"} == set(nulls["units"])

    background = layer / "gene_tokens.parquet"
    done = offline(
        "annotate", "CD3D", "CD3E", "CD3G", "LCK", "--config", configs[0], "--background", background, "--tsv"
    )
    assert done.returncode == 0, done.stderr
    header, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    found = {(row[header.index("collection")], row[header.index("term_id")]) for row in rows}
    t_cell = f"R-HSA-{100 + [name for name, *_ in sets].index('T cell')}"
    assert {("cell_types", "T cell"), ("reactome", t_cell)} <= found

    shutil.copytree(run.results, tmp_path / "results" / "b")
    done = offline("compare_runs", *configs, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    # The same results under two names: they find the same terms.
    header, *rows = [line.split("\t") for line in (tmp_path / "out" / "pairs.tsv").read_text().splitlines()]
    whole = dict(zip(header, rows[0], strict=True))
    assert (whole["run_a"], whole["run_b"]) == ("a", "b")
    assert whole["terms_a"] == whole["terms_b"] == whole["terms_shared"]
    assert float(whole["terms_tested"]) > 20
