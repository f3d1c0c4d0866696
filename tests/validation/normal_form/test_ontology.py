"""obo files: terms, parents, replaced ids, broken hierarchies, and the closure against a plain walk."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.hierarchy import ancestors
from sae_genomics.validation.normal_form.ontology import read_ontology
from tests.validation.excerpts import excerpt

HEAD = "format-version: 1.2\ndata-version: releases/2026-08-05\nontology: go\n"
BODY = """
[Term]
id: GO:0000001
name: root

[Term]
id: GO:0000002
name: middle
alt_id: GO:0000902
subset: gocheck_do_not_annotate
is_a: GO:0000001 ! root

[Term]
id: GO:0000003
name: part
alt_id: GO:0000004
is_a: GO:0000001 {source="x"} ! root
relationship: part_of GO:0000002 ! middle
relationship: regulates GO:0000001 ! root
relationship: part_of UBERON:0000001 ! another ontology

[Term]
id: GO:0000004
name: regulator
relationship: regulates GO:0000003 ! part

[Term]
id: GO:0000005
name: obsolete old
is_obsolete: true
replaced_by: GO:0000902

[Term]
id: GO:0000006
name: obsolete older
is_obsolete: true
consider: GO:0000002

[Term]
id: CHEBI:1
name: of another ontology
is_a: CHEBI:2
relationship: part_of CHEBI:1

[Typedef]
id: part_of
name: part of
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "go-basic.obo"
    path.write_text(text)
    return path


def test_terms_parents_and_replaced_ids(tmp_path):
    ontology = read_ontology(write(tmp_path, HEAD + BODY), "GO", ("is_a", "part_of"))
    assert ontology.version == "2026-08-05"
    assert list(ontology.terms.index) == [f"GO:000000{i}" for i in range(1, 7)]
    pairs = {tuple(row) for row in ontology.parents.to_numpy()}
    # `regulates` leads to no parent, and neither does part_of a term of another ontology.
    assert pairs == {
        ("GO:0000002", "GO:0000001", "is_a"), ("GO:0000003", "GO:0000001", "is_a"), ("GO:0000003", "GO:0000002", "part_of"),
    }  # fmt: skip
    assert ontology.current == {"GO:0000902": "GO:0000002", "GO:0000005": "GO:0000002"}
    # The last takes two steps. GO:0000004 is in use, so that it stays although another term claims it.
    ids = pd.Series(["GO:0000902", "GO:0000006", "GO:9999999", "GO:0000003"])
    assert list(ontology.resolved(ids)) == ["GO:0000002", "GO:0000006", "GO:9999999", "GO:0000003"]
    assert list(ontology.known(ontology.resolved(ids))) == [True, True, False, True]
    assert list(ontology.obsolete(ids)) == [False, True, False, False]
    assert list(ontology.names(ids)) == ["GO:0000902", "obsolete older", "GO:9999999", "part"]
    assert ontology.in_subset("gocheck_do_not_annotate") == ["GO:0000002"]
    assert list(ontology.below("GO:0000001")) == ["GO:0000002", "GO:0000003"]
    assert ontology.notes() == []


def test_is_a_alone(tmp_path):
    ontology = read_ontology(write(tmp_path, HEAD + BODY), "GO")
    assert set(ontology.parents["relation"]) == {"is_a"}
    assert len(ontology.parents) == 2


def test_a_parent_that_is_not_there_and_a_circle_are_told(tmp_path):
    more = "\n[Term]\nid: GO:0000007\nname: a\nis_a: GO:0000008\nis_a: GO:0000099\n\n[Term]\nid: GO:0000008\nname: b\nis_a: GO:0000007\nis_a: GO:0000001\n"
    ontology = read_ontology(write(tmp_path, HEAD + BODY + more), "GO", ("is_a", "part_of"))
    assert ontology.dangling.to_numpy().tolist() == [["GO:0000007", "GO:0000099", "is_a"]]
    assert ontology.cyclic == 2
    assert len(ontology.parents) == 4
    assert "1 of 7 parents are not in the file" in ontology.notes()[0]
    assert "2 parents that close one" in ontology.notes()[1]
    assert list(ontology.below("GO:0000099")) == ["GO:0000007"]  # by its id alone


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("<!DOCTYPE html><html>", "web page"),
        (HEAD, "no terms of GO"),
        (HEAD + "\n[Term]\n", "damaged"),
        (HEAD + BODY + "\n[Term]\nid: GO:0000010\nname", "damaged"),
        (HEAD + "\n[Term]\nid: HP:0000001\nname: All\n", "no terms of GO"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as error:
        read_ontology(write(tmp_path, text), "GO")
    assert "\n" not in str(error.value)


def test_latin_text_is_refused(tmp_path):
    path = tmp_path / "go-basic.obo"
    path.write_bytes((HEAD + BODY).encode() + b"\n[Term]\nid: GO:0000010\nname: caf\xe9\n")
    with pytest.raises(UserError, match="not utf-8"):
        read_ontology(path, "GO")


def walked(parents: pd.DataFrame) -> set[tuple[str, str]]:
    """Term and everything above it, by a walk from each term."""
    up: dict[str, set[str]] = {}
    for child, parent in parents[["term_id", "parent_id"]].itertuples(index=False):
        up.setdefault(child, set()).add(parent)
    pairs = set()
    for term in {*parents["term_id"], *parents["parent_id"]}:
        stack, seen = [term], {term}
        while stack:
            for parent in up.get(stack.pop(), ()):
                if parent not in seen:
                    seen.add(parent)
                    stack.append(parent)
        pairs |= {(term, above) for above in seen}
    return pairs


def drawn(terms: int, seed: int) -> pd.DataFrame:
    """A graph without circles: each term has one to three parents among those before it, near ones more often."""
    rng = np.random.default_rng(seed)
    child = np.repeat(np.arange(1, terms), rng.integers(1, 4, terms - 1))
    parent = (child * rng.random(len(child)) ** 0.5).astype(int)
    names = np.array([f"T:{i}" for i in range(terms)], dtype=object)
    return pd.DataFrame({"term_id": names[child], "parent_id": names[parent]}).drop_duplicates(ignore_index=True)


@pytest.mark.parametrize("seed", range(3))
def test_the_closure_is_that_of_a_walk(seed):
    parents = drawn(300, seed)
    ids, above = ancestors(parents)
    rows, columns = above.nonzero()
    assert set(zip(ids[rows], ids[columns], strict=True)) == walked(parents)


def test_the_closure_of_a_graph_with_a_circle_ends():
    parents = pd.DataFrame({"term_id": ["a", "b", "c"], "parent_id": ["b", "a", "a"]})
    ids, above = ancestors(parents)
    rows, columns = above.nonzero()
    assert set(zip(ids[rows], ids[columns], strict=True)) == walked(parents)


def test_no_parents_have_an_empty_closure():
    ids, above = ancestors(pd.DataFrame({"term_id": [], "parent_id": []}, dtype=object))
    assert len(ids) == 0
    assert above.shape == (0, 0)


def test_the_closure_of_forty_thousand_terms_takes_seconds():
    # As deep as GO: 20 levels that grow wider, two parents each, side by side in the level above.
    width = np.linspace(20, 4_000, 20).astype(int)
    start = np.concatenate([[0], np.cumsum(width)])
    level = np.repeat(np.arange(20), width)[width[0] :]
    child = np.arange(width[0], start[-1])
    relative = (child - start[level]) / width[level]
    first = (relative * width[level - 1]).astype(int)
    second = np.minimum(first + 1, width[level - 1] - 1)
    parents = pd.DataFrame({
        "term_id": np.concatenate([child, child]), "parent_id": np.concatenate([first, second]) + np.tile(start[level - 1], 2),
    }).drop_duplicates().astype(str).astype(object)  # fmt: skip
    began = time.perf_counter()
    ids, above = ancestors(parents)
    assert time.perf_counter() - began < 30
    assert above.diagonal().all()
    assert len(ids) == start[-1] > 40_000
    assert above.nnz > 20 * len(ids)


def test_the_whole_release_of_2014():
    ontology = read_ontology(excerpt("hpo") / "whole_2014" / "hp.obo", "HP")
    assert ontology.version == "2014-03-18"
    assert (len(ontology.terms), int(ontology.terms["obsolete"].sum())) == (10_396, 44)
    assert len(ontology.below("HP:0000118")) == 10_286
    assert ontology.notes() == []
    text = (excerpt("hpo") / "whole_2014" / "hp.obo").read_text()
    assert len(ontology.parents) == text.count("\nis_a: ")


def test_the_release_with_terms_cut_out():
    ontology = read_ontology(excerpt("hpo") / "hp.obo", "HP")
    assert (len(ontology.terms), int(ontology.terms["obsolete"].sum())) == (2_120, 18)
    assert (len(ontology.dangling), len(ontology.dangling) + len(ontology.parents)) == (1_564, 2_608)
    assert len(ontology.below("HP:0000118")) == 122
    assert "1,564 of 2,608 parents are not in the file" in ontology.notes()[0]


def test_the_extract_of_the_nucleus_leaves_other_ontologies_out():
    path = excerpt("go") / "go-nucleus.obo"
    ontology = read_ontology(path, "GO", ("is_a", "part_of"))
    ids = [line[4:] for line in path.read_text().splitlines() if line.startswith("id: ")]
    assert len(ontology.terms) == sum(term.startswith("GO:") for term in ids) == 78
    assert ontology.parents["parent_id"].str.startswith("GO:").all()
    assert ontology.notes() == []


def test_the_slim_has_its_part_of():
    ontology = read_ontology(excerpt("go") / "goslim_generic.obo", "GO", ("is_a", "part_of"))
    assert (ontology.version, len(ontology.terms)) == ("", 149)
    assert int((ontology.parents["relation"] == "part_of").sum()) == 68
