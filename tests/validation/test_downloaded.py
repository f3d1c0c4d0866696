"""Downloaded databases in the stage: which are tested, who is a member, and that nothing but the disk is asked."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from sae_genomics.artifacts import ANNOTATION_NULLS, FEATURE_TERMS
from sae_genomics.config import ValidationConfig, apply_override, parse_config
from sae_genomics.errors import UserError
from sae_genomics.report.section_annotation import collections_table
from sae_genomics.run import Run
from sae_genomics.validation.databases import load_collections
from sae_genomics.validation.gene_sets import COLLECTIONS
from sae_genomics.validation.normal_form import schema
from sae_genomics.validation.task import run_task

from . import test_task

planted = test_task.make_run  # a run whose features read the planted sets off
Row = tuple[str, str, str, bool]
ROWS: list[Row] = [
    ("R-HSA-2", "Twice", "SYM1", False),
    ("R-HSA-1", "Twice", "SYM2", False),
    ("R-HSA-2", "Twice", "SYM3", False),
    ("R-HSA-2", "Twice", "SYM3", False),  # in two categories
    ("R-HSA-2", "Twice", "SYM4", True),
    ("R-HSA-1", "Twice", "", False),  # known by its id alone
    ("R-HSA-3", "Refuted", "SYM5", True),
    ("TF1", "TF1", "SYM6", False),
    ("TF1", "TF1", "SYM6", True),  # sources disagree
]


def write(folder: Path, rows: list[Row] = ROWS, **facts: str) -> None:
    frame = pd.DataFrame(rows, columns=["term_id", "term_name", "gene_symbol", "negative"])
    frame = frame.assign(source=folder.name, ensembl_id="", hgnc_id="", score=1.0, evidence="", category="x")
    schema.write_table(
        folder / schema.TERMS_FILE, pa.Table.from_pandas(frame[schema.TERMS.names], preserve_index=False)
    )
    schema.write_source(folder, {"name": folder.name, **facts})


def loaded(folder: Path, **settings: Any) -> dict[str, dict[str, set[str]]]:
    found = load_collections(ValidationConfig(**settings), folder)
    return {each.name: {one.term: set(one.genes) for one in each.sets} for each in found}


def test_members_are_the_genes_that_are_said_to_belong(tmp_path: Path) -> None:
    write(tmp_path / "reactome")
    sets = loaded(tmp_path, builtin=False)["reactome"]
    assert sets == {"Twice (R-HSA-2)": {"SYM1", "SYM3"}, "Twice (R-HSA-1)": {"SYM2"}, "TF1": {"SYM6"}}
    found = load_collections(ValidationConfig(builtin=False), tmp_path)[0]
    assert [one.description for one in found.sets] == ["R-HSA-2", "R-HSA-1", "TF1"]
    assert found.sets[0].genes == ("SYM1", "SYM3")


def test_a_run_tests_what_is_there_or_what_it_names(tmp_path: Path) -> None:
    write(tmp_path / "reactome")
    write(tmp_path / "hpo")
    schema.write_source(tmp_path / "string", {"name": "string"})  # a network alone
    (tmp_path / "string" / schema.EDGES_FILE).touch()
    (tmp_path / "gwas_catalog").mkdir()  # of a download that did not end
    write(tmp_path / "clinvar", [("A", "A", "SYM1", True)])  # nothing but what is refuted
    assert list(loaded(tmp_path, builtin=False)) == ["hpo", "reactome"]
    assert list(loaded(tmp_path, builtin=False, databases=["reactome"])) == ["reactome"]
    assert {"hpo", "reactome"}.isdisjoint(loaded(tmp_path, databases=[]))
    assert list(loaded(tmp_path)) == [*loaded(tmp_path, databases=[]), "hpo", "reactome"]
    assert loaded(tmp_path / "absent") == loaded(tmp_path, databases=[])
    for name, says in (
        ("kegg", r"kegg is not in .*; run scripts/download_databases\.py --only kegg --to "),
        ("gwas_catalog", r"run scripts/download_databases\.py --only gwas_catalog"),
        ("string", "string has a network and no gene sets"),
        ("clinvar", "clinvar has no gene sets"),
    ):
        with pytest.raises(UserError, match=says) as caught:
            loaded(tmp_path, databases=["reactome", name])
        assert "\n" not in str(caught.value)
    (tmp_path / "hpo" / schema.TERMS_FILE).write_bytes(b"PAR1 cut off")
    with pytest.raises(UserError, match=r"cannot read .*terms\.parquet.*--only hpo"):
        loaded(tmp_path)


def test_names_are_checked_when_the_config_is_read() -> None:
    values: dict[str, Any] = {"data": {"path": "x"}}
    assert parse_config(values, "c").validation.databases == "all"
    apply_override(values, "validation.databases=reactome,hpo")
    assert parse_config(values, "c").validation.databases == ["reactome", "hpo"]
    for wrong, says in (([".."], "no name of a database"), (["hpo", "hpo"], "names a database twice")):
        with pytest.raises(UserError, match=says):
            parse_config({"data": {"path": "x"}, "validation": {"databases": wrong}}, "c")


def test_two_collections_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "databases" / "reactome")
    gmt = tmp_path / "reactome.gmt"
    gmt.write_text("a\tb\tSYM1\n")
    with pytest.raises(UserError, match="two gene-set collections are called 'reactome'"):
        loaded(tmp_path / "databases", gmt=[gmt])


_forbidden = False


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if _forbidden and event.startswith("socket.") and event != "socket.gethostname":
        raise AssertionError(f"a socket was opened: {event} {arguments}")


@pytest.fixture
def no_sockets() -> Iterator[None]:
    """Python tells of every socket and every look-up of a name; each is an error."""
    global _forbidden
    sys.addaudithook(_refuse)
    _forbidden = True
    try:
        with pytest.raises(AssertionError, match="a socket was opened"):
            socket.create_connection(("localhost", 9))
        yield
    finally:
        _forbidden = False


@pytest.mark.usefixtures("no_sockets")
def test_the_stage_tests_a_database_without_a_network(planted: Callable[..., Run], tmp_path: Path) -> None:
    rows = [(f"R-HSA-{i}", f"Pathway | {i}", f"SYM{g}", False) for i in range(5) for g in range(20 * i, 20 * i + 20)]
    rows += [("R-HSA-9", "Not these", f"SYM{g}", True) for g in range(60, 80)]
    write(tmp_path / "db" / "reactome", rows, version="91", licence="CC0 1.0", title="Reactome")
    run = planted()
    run.config.paths.databases = tmp_path / "db"
    run_task(run, 0)
    folder = run.layer_results(2)
    terms = FEATURE_TERMS.read(folder / FEATURE_TERMS.file)
    mine = terms[terms["collection"] == "reactome"]
    assert set(mine["term"]) == {f"Pathway | {i} (R-HSA-{i})" for i in range(5)}
    for feature in range(5):
        best = mine[mine["feature"] == feature].iloc[0]
        assert best["term"] == f"Pathway | {feature} (R-HSA-{feature})"
        assert best["q_value"] < 0.05
        assert best["n_term"] == 20
    nulls = ANNOTATION_NULLS.read(folder / ANNOTATION_NULLS.file)
    assert nulls["n_tests"].iloc[0] == 30 * (15 + 5)

    said = json.loads(ANNOTATION_NULLS.fact(folder / ANNOTATION_NULLS.file, COLLECTIONS) or "")
    assert [(each["name"], each["n_sets"], each["n_fit"]) for each in said] == [("planted", 15, 15), ("reactome", 5, 5)]
    assert collections_table(said).splitlines()[2:] == [
        "| planted | 15 | 15 | – | – |",
        "| Reactome | 5 | 5 | 91 | CC0 1.0 |",
    ]
    said[1]["left_out"] = "1 term (overview map)"
    assert collections_table(said).endswith("\n\nLeft out of the tests:\n\n- Reactome: 1 term (overview map)")
