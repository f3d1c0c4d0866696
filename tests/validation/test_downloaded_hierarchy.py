"""Downloaded databases with a hierarchy: whose genes a term has, once; what is not tested; and what every command looks at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sae_genomics.artifacts import FEATURE_TERMS
from sae_genomics.config import ValidationConfig, apply_override, parse_config
from sae_genomics.errors import UserError
from sae_genomics.run import Run
from sae_genomics.validation.databases import check_collections, load_collections
from sae_genomics.validation.databases.downloaded import LEFT_OUT
from sae_genomics.validation.gene_sets import Collection
from sae_genomics.validation.normal_form import schema
from sae_genomics.validation.task import run_task

from . import test_task

planted = test_task.make_run  # a run whose features read the planted sets off

# T:0 is above T:1 and T:2; T:3 is below both, T:4 below T:3; T:5 stands alone. Nothing is stated on T:0 and T:1.
PARENTS = [("T:1", "T:0"), ("T:2", "T:0"), ("T:3", "T:1"), ("T:3", "T:2"), ("T:4", "T:3")]
ROWS: list[dict[str, Any]] = [
    {"term_id": "T:4", "gene_symbol": "FOUR"},
    {"term_id": "T:3", "gene_symbol": "THREE"},
    {"term_id": "T:2", "gene_symbol": "Two"},
    {"term_id": "T:5", "gene_symbol": "FIVE"},
]
Sets = dict[str, set[str]]


def write(
    folder: Path,
    rows: list[dict[str, Any]] = ROWS,
    parents: list[tuple[str, str]] | None = None,
    left_out: dict[str, str] | None = None,
    **facts: Any,
) -> None:
    usual = {"source": folder.name, "ensembl_id": "", "hgnc_id": "", "score": np.nan, "evidence": "", "category": "c", "negative": False}  # fmt: skip
    named = [{**usual, "term_name": row["term_id"].replace("T:", "name "), **row} for row in rows]
    tables = {schema.TERMS_FILE: pd.DataFrame(named, columns=schema.TERMS.names)}
    if parents is not None:
        pairs = pd.DataFrame(parents, columns=["term_id", "parent_id"])
        names = pairs["parent_id"].str.replace("T:", "name ")
        tables[schema.PARENTS_FILE] = pairs.assign(source=folder.name, parent_name=names)
    if left_out:
        marked = pd.DataFrame(left_out.items(), columns=["term_id", "reason"])
        tables[schema.LEFT_OUT_FILE] = marked.assign(source=folder.name, term_name="x")
    for name, table in tables.items():
        content = pa.Table.from_pandas(table[schema.SCHEMAS[name].names], schema.SCHEMAS[name], preserve_index=False)
        schema.write_table(folder / name, content)
    schema.write_source(folder, {"name": folder.name, **facts})


def collection(folder: Path, **settings: Any) -> Collection:
    return load_collections(ValidationConfig(builtin=False, **settings), folder)[0]


def sets(folder: Path, **settings: Any) -> Sets:
    return {each.term_id: set(each.genes) for each in collection(folder, **settings).sets}


def test_a_term_has_the_genes_of_all_terms_below_it(tmp_path: Path) -> None:
    write(tmp_path / "base", parents=PARENTS, propagated=False, contains=["hpo", "omim"])
    assert sets(tmp_path) == {
        "T:4": {"FOUR"}, "T:3": {"THREE", "FOUR"}, "T:2": {"Two", "THREE", "FOUR"}, "T:5": {"FIVE"},
        "T:1": {"THREE", "FOUR"}, "T:0": {"Two", "THREE", "FOUR"},
    }  # fmt: skip
    found = collection(tmp_path)
    # Terms that nothing is stated on have the names of their table.
    assert {each.term_id: each.term for each in found.sets}["T:0"] == "name 0 (T:0)"
    assert found.parents == {"T:1": ("T:0",), "T:2": ("T:0",), "T:3": ("T:1", "T:2"), "T:4": ("T:3",)}
    assert found.universe == {"FOUR", "THREE", "TWO", "FIVE"}
    assert found.contains == ("hpo", "omim")


def test_a_database_that_did_so_itself_is_left_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / "base", parents=PARENTS, propagated=True)
    assert sets(tmp_path) == {"T:4": {"FOUR"}, "T:3": {"THREE"}, "T:2": {"Two"}, "T:5": {"FIVE"}}
    assert collection(tmp_path).parents["T:4"] == ("T:3",)


def test_without_a_hierarchy_there_are_no_parents(tmp_path: Path) -> None:
    write(tmp_path / "base")
    assert sets(tmp_path) == {"T:4": {"FOUR"}, "T:3": {"THREE"}, "T:2": {"Two"}, "T:5": {"FIVE"}}
    assert collection(tmp_path).parents == {}


def test_a_gene_that_is_denied_a_term_does_not_come_to_it_from_below(tmp_path: Path) -> None:
    denied = [
        {"term_id": "T:3", "gene_symbol": "FOUR", "negative": True},  # and T:1 has nothing but T:3 below it
        {"term_id": "T:2", "gene_symbol": "Two", "negative": True},  # which another statement says
        {"term_id": "T:0", "gene_symbol": "NEVER", "negative": True},
    ]
    write(tmp_path / "base", [*ROWS, *denied], PARENTS, propagated=False)
    found = sets(tmp_path)
    assert found["T:3"] == {"THREE"}
    assert found["T:1"] == {"THREE", "FOUR"}
    assert found["T:2"] == {"Two", "THREE", "FOUR"}
    assert all("NEVER" not in genes for genes in found.values())
    assert "NEVER" in (collection(tmp_path).universe or ())  # the source could have named it


def test_propagation_is_that_of_a_plain_walk(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    n = 60
    parents = [(f"T:{i}", f"T:{j}") for i in range(1, n) for j in generator.integers(0, i, 2)]
    said = {(f"T:{generator.integers(n)}", f"G{generator.integers(40)}") for _ in range(200)}
    up: dict[str, set[str]] = {}
    for child, parent in parents:
        up.setdefault(child, set()).add(parent)
    expected: Sets = {}
    for term, gene in said:
        todo, seen = [term], set()
        while todo:
            now = todo.pop()
            if now not in seen:
                seen.add(now)
                todo += up.get(now, ())
        for each in seen:
            expected.setdefault(each, set()).add(gene)
    write(tmp_path / "base", [{"term_id": t, "gene_symbol": g} for t, g in sorted(said)], parents, propagated=False)
    assert sets(tmp_path) == expected


def test_terms_that_say_little_are_out_and_can_be_brought_back(tmp_path: Path) -> None:
    marked = {"T:0": "too general", "T:3": "protein binding", "T:99": "too general"}
    write(tmp_path / "base", parents=PARENTS, left_out=marked, propagated=False)
    everything = sets(tmp_path, all_terms=True)
    assert set(everything) == {f"T:{i}" for i in range(6)}
    assert sets(tmp_path) == {term: genes for term, genes in everything.items() if term not in marked}
    found = collection(tmp_path)
    assert found.sets[2].genes  # genes of a marked term count for the terms above it
    assert sets(tmp_path)["T:1"] == {"THREE", "FOUR"}
    assert found.universe == {"FOUR", "THREE", "TWO", "FIVE"}
    assert set(found.facts[LEFT_OUT].split("; ")) == {"1 term (too general)", "1 term (protein binding)"}
    assert LEFT_OUT not in collection(tmp_path, all_terms=True).facts


def test_scores_below_the_least_one_do_not_count(tmp_path: Path) -> None:
    rows = [
        {"term_id": "T:1", "gene_symbol": "LOW", "score": 0.39},
        {"term_id": "T:1", "gene_symbol": "EVEN", "score": 0.5},
        {"term_id": "T:1", "gene_symbol": "HIGH", "score": 0.9},
        {"term_id": "T:1", "gene_symbol": "UNTOLD"},
    ]
    write(tmp_path / "base", rows)
    assert sets(tmp_path) == {"T:1": {"LOW", "EVEN", "HIGH", "UNTOLD"}}
    assert sets(tmp_path, min_score={"base": 0.5}) == {"T:1": {"EVEN", "HIGH", "UNTOLD"}}
    found = collection(tmp_path, min_score={"base": 0.5})
    assert found.facts[LEFT_OUT] == "1 statement with a score below 0.5"
    assert found.universe == {"LOW", "EVEN", "HIGH", "UNTOLD"}
    write(tmp_path / "open_targets", rows)
    assert sets(tmp_path, databases=["open_targets"]) == {"T:1": {"EVEN", "HIGH", "UNTOLD"}}
    assert sets(tmp_path, databases=["open_targets"], min_score={"open_targets": 0}) == {
        "T:1": {"LOW", "EVEN", "HIGH", "UNTOLD"}
    }


def test_evidence_from_expression_is_out_by_default(tmp_path: Path) -> None:
    rows = [
        {"term_id": "T:1", "gene_symbol": "GENETIC", "category": "genetic"},
        {"term_id": "T:1", "gene_symbol": "MEASURED", "category": "expression"},
        {"term_id": "T:1", "gene_symbol": "GENETIC", "category": "overall"},
        {"term_id": "T:1", "gene_symbol": "MEASURED", "category": "overall"},
    ]
    write(tmp_path / "base", rows)
    assert sets(tmp_path) == {"T:1": {"GENETIC"}}
    assert sets(tmp_path, expression_evidence=True) == {"T:1": {"GENETIC", "MEASURED"}}
    said = collection(tmp_path).facts[LEFT_OUT]
    assert said.startswith("1 statement from expression data; 2 statements that sum up all kinds")
    # The sum alone counts, and that is said.
    write(tmp_path / "base", rows[2:])
    assert sets(tmp_path) == {"T:1": {"GENETIC", "MEASURED"}}
    assert collection(tmp_path).facts[LEFT_OUT].startswith("no statement: the scores sum up")


def test_the_least_scores_are_checked_when_the_config_is_read() -> None:
    values: dict[str, Any] = {"data": {"path": "x"}}
    assert parse_config(values, "c").validation.min_score == {"open_targets": 0.5, "string": 0.7}
    apply_override(values, "validation.min_score=string=0.4,hpo=0.1")
    assert parse_config(values, "c").validation.min_score == {"open_targets": 0.5, "string": 0.4, "hpo": 0.1}
    apply_override(values, "validation.min_score={open_targets: 0}")
    assert parse_config(values, "c").validation.min_score == {"open_targets": 0.0, "string": 0.7}
    for wrong in (0.5, ["string"], {"string": "much"}, {"a b": 0.1}):
        with pytest.raises(UserError, match=r"validation\.min_score"):
            parse_config({"data": {"path": "x"}, "validation": {"min_score": wrong}}, "c")


def test_every_command_looks_whether_databases_are_there_and_opens_none(tmp_path: Path) -> None:
    write(tmp_path / "base")
    (tmp_path / "base" / schema.TERMS_FILE).write_bytes(b"PAR1 cut off")
    (tmp_path / "string").mkdir()
    schema.write_source(tmp_path / "string", {"name": "string"})
    (tmp_path / "string" / schema.EDGES_FILE).touch()
    check_collections(ValidationConfig(builtin=False, databases=["base"], min_score={"base": 1, "hpo": 0.1}), tmp_path)
    with pytest.raises(UserError, match="cannot read"):
        load_collections(ValidationConfig(builtin=False, databases=["base"]), tmp_path)
    gmt = tmp_path / "base.gmt"
    gmt.write_text("a\tb\tSYM1\n")
    for settings, says in (
        ({"databases": ["kegg"]}, "kegg is not in"),
        ({"databases": ["string"]}, "string has a network and no gene sets"),
        ({"gmt": [gmt]}, "two gene-set collections are called 'base'"),
        ({"gmt": [tmp_path / "none.gmt"]}, "no such gene-set file"),
        ({"databases": []}, "no gene sets to test"),
        (
            {"databases": ["base"], "min_score": {"gwas_catalogue": 1}},
            "'gwas_catalogue' is no database .* did you mean gwas_catalog?",
        ),
    ):
        with pytest.raises(UserError, match=says):
            check_collections(ValidationConfig(**{"builtin": False, **settings}), tmp_path)


def test_the_stage_tells_which_terms_explain_others(planted: Callable[..., Run], tmp_path: Path) -> None:
    """Each planted programme is a pathway below `everything`, which is found for its genes and for no others."""
    rows = [
        {"term_id": f"T:{i}", "gene_symbol": f"SYM{gene}"} for i in range(10) for gene in range(20 * i, 20 * i + 20)
    ]
    rows += [{"term_id": f"T:9{i}", "gene_symbol": f"SYM{gene}"} for i in range(5) for gene in range(230 + i, 250)]
    parents = [(f"T:{i}", f"T:1{i}") for i in range(10)] + [(f"T:9{i}", f"T:1{i}") for i in range(5)]
    write(tmp_path / "db" / "base", rows, parents, propagated=False)
    run = planted(gmt=[], databases=["base"])
    run.config.paths.databases = tmp_path / "db"
    run_task(run, 0)
    terms = FEATURE_TERMS.read(run.layer_results(2) / FEATURE_TERMS.file)
    found = terms[terms["q_matched"] < 0.05].set_index(["feature", "term_id"])["explained_by"]
    for feature in range(10):
        assert found[feature, f"T:{feature}"] == ""
        assert found[feature, f"T:1{feature}"] == f"T:{feature}"
    assert (terms.loc[(terms["q_matched"] >= 0.05) & (terms["q_source_matched"] >= 0.05), "explained_by"] == "").all()
    assert set(terms["collection"]) == {"base"}
