"""Names of features from hand-made rows: which term gives the name, and which sources it rests on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sae_genomics.artifacts import FEATURE_NAMES, FEATURE_TERMS
from sae_genomics.validation.names import LONGEST, feature_names

CONTAINS = {"reactome": (), "open_targets": ("reactome", "clinvar"), "clinvar": (), "go": ()}


def row(feature: int, collection: str, term: str, p: float, n_term: int, genes: str, **more) -> dict:
    filled = {column.name: "" if column.type == "string" else np.nan for column in FEATURE_TERMS.columns}
    return {
        **filled, "feature": feature, "collection": collection, "term": term, "term_id": term, "p_value": p, "p_matched": p,
        "q_value": 100 * p, "q_matched": 100 * p, "n_term": n_term, "genes": genes, "n_overlap": len(genes.split(",")), **more,
    }  # fmt: skip


def named(rows: list[dict], n_features: int = 1, fdr: float = 0.05) -> pd.DataFrame:
    terms = pd.DataFrame(rows, columns=[column.name for column in FEATURE_TERMS.columns])
    found = feature_names(terms, np.arange(n_features), CONTAINS, fdr)
    assert list(found.columns) == [column.name for column in FEATURE_NAMES.columns]
    assert list(found["feature"]) == list(range(n_features))
    return found.set_index("feature")


def test_the_strongest_term_gives_the_name() -> None:
    found = named([row(0, "go", "weak", 1e-6, 10, "A,B,C"), row(0, "go", "strong", 1e-9, 80, "A,B,C,D")])
    assert dict(found.loc[0, ["name", "collection", "term_id", "n_overlap", "sources"]]) == {
        "name": "strong", "collection": "go", "term_id": "strong", "n_overlap": 4, "sources": "go",
    }  # fmt: skip
    assert found.loc[0, "q_matched"] == pytest.approx(1e-7)


def test_of_terms_as_strong_the_smallest_gives_the_name() -> None:
    large, small = row(0, "go", "Metabolism", 1e-9, 900, "A,B,C,D"), row(0, "go", "TCA cycle", 9e-9, 20, "A,B,C")
    assert named([large, small]).loc[0, "name"] == "TCA cycle"
    assert named([large, {**small, "p_matched": 1.1e-8}]).loc[0, "name"] == "Metabolism"  # the larger p counts
    assert named([large, {**small, "p_value": 1.1e-8}]).loc[0, "name"] == "Metabolism"


def test_a_term_that_a_more_specific_one_explains_gives_no_name() -> None:
    parent = row(0, "go", "parent", 1e-12, 200, "A,B,C,D", explained_by="child")
    child = row(0, "go", "child", 1e-9, 30, "A,B,C")
    assert named([parent, child]).loc[0, "name"] == "child"
    assert named([parent]).loc[0, "name"] == "parent"  # its explanation does not pass, so it is all there is


def test_what_does_not_pass_the_matched_null_gives_no_name() -> None:
    tracks_expression = row(0, "go", "ribosome", 1e-12, 80, "A,B,C", p_matched=0.2, q_matched=0.6)
    found = named([tracks_expression, row(1, "go", "real", 1e-6, 10, "A,B")], n_features=3)
    assert list(found["name"]) == ["unnamed", "real", "unnamed"]
    assert tuple(found.loc[0, ["collection", "term", "term_id", "sources"]]) == ("", "", "", "")
    assert np.isnan(found.loc[0, "q_matched"])
    assert list(found["n_overlap"]) == [0, 2, 0]


def test_sources_agree_on_the_same_genes_and_count_once() -> None:
    own = row(0, "reactome", "ribosome (R-HSA-1)", 1e-12, 80, "A,B,C,D", term_id="R-HSA-1")
    same = row(0, "open_targets", "anaemia", 1e-6, 50, "A,B")
    assert named([own, row(0, "go", "other", 1e-6, 50, "A,X,Y")]).loc[0, "sources"] == "reactome"
    assert named([own, row(0, "go", "translation", 1e-6, 50, "A,B")]).loc[0, "sources"] == "reactome,go"
    assert named([own, same]).loc[0, "sources"] == "reactome"  # Open Targets contains Reactome
    assert named([{**same, "p_value": 1e-20, "p_matched": 1e-20}, own]).loc[0, ["name", "sources"]].tolist() == [
        "anaemia",
        "reactome",
    ]
    not_passing = row(0, "go", "translation", 1e-6, 50, "A,B", q_matched=0.3)
    assert named([own, not_passing]).loc[0, "sources"] == "reactome"
    of_another_feature = row(1, "go", "translation", 1e-6, 50, "A,B")
    assert list(named([own, of_another_feature], n_features=2)["sources"]) == ["reactome", "go"]


def test_names_are_short_and_without_their_id() -> None:
    assert named([row(0, "go", "ribosome (GO:1)", 1e-9, 9, "A", term_id="GO:1")]).loc[0, "name"] == "ribosome"
    long = "regulation of " * 8 + "nothing"
    name = named([row(0, "go", long, 1e-9, 9, "A")]).loc[0, "name"]
    assert len(name) <= LONGEST
    assert name.endswith("regulation of…")


def test_without_a_row_every_feature_is_unnamed(tmp_path) -> None:
    found = named([], n_features=3)
    assert set(found["name"]) == {"unnamed"}
    FEATURE_NAMES.write(tmp_path / "x.parquet", found.reset_index())
    assert len(FEATURE_NAMES.read(tmp_path / "x.parquet")) == 3


def test_a_sources_name_that_is_not_known_still_counts() -> None:
    assert named([row(0, "mine", "set", 1e-9, 9, "A,B")]).loc[0, "sources"] == "mine"
