"""Hierarchies of diseases and phenotypes beside GenCC and Monarch, and terms that say little."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sae_genomics.config import ValidationConfig
from sae_genomics.validation.databases import gencc, load_collections, monarch
from sae_genomics.validation.databases.ontologies import little_said
from sae_genomics.validation.normal_form.build import build
from sae_genomics.validation.normal_form.catalogue import read_catalogue
from sae_genomics.validation.normal_form.hgnc import no_genes
from tests.validation.databases.counts import check
from tests.validation.databases.test_gencc import NEW
from tests.validation.databases.test_gencc import written as write_gencc
from tests.validation.databases.test_monarch import CAUSAL, PHENOTYPE
from tests.validation.databases.test_monarch import written as write_monarch

MONDO = """format-version: 1.2
data-version: releases/2026-09-01
ontology: mondo

[Term]
id: MONDO:0000001
name: disease

[Term]
id: MONDO:0700096
name: human disease
is_a: MONDO:0000001 ! disease

[Term]
id: MONDO:0000010
name: nail disease
is_a: MONDO:0700096 ! human disease

[Term]
id: MONDO:0000011
name: blue nails
alt_id: MONDO:0000099
is_a: MONDO:0000010 ! nail disease

[Term]
id: MONDO:0000012
name: not named by anybody
is_a: MONDO:0000010 ! nail disease
"""
HPO = """format-version: 1.2
data-version: hp/releases/2026-09-01
ontology: hp

[Term]
id: HP:0000001
name: All

[Term]
id: HP:0000118
name: Phenotypic abnormality
is_a: HP:0000001 ! All

[Term]
id: HP:0000005
name: Mode of inheritance
is_a: HP:0000001 ! All

[Term]
id: HP:0000007
name: Autosomal recessive inheritance
is_a: HP:0000005 ! Mode of inheritance

[Term]
id: HP:0001250
name: Seizure
is_a: HP:0000118 ! Phenotypic abnormality
"""
ROWS = [
    {"disease_curie": "MONDO:0000099", "disease_title": "blue nails", "gene_curie": "HGNC:5", "gene_symbol": "A1BG"},
    {"disease_curie": "MONDO:0000010", "disease_title": "nail disease", "gene_curie": "HGNC:7", "gene_symbol": "A2M"},
]


def test_diseases_of_gencc_stand_in_the_hierarchy_of_mondo(tmp_path: Path) -> None:
    write_gencc(tmp_path, ROWS, "gencc-submissions.tsv", NEW)
    (tmp_path / "mondo.obo").write_text(MONDO)
    statements = gencc.read(tmp_path)
    check(statements, rows_read=2)
    assert statements.terms["term_id"].tolist() == ["MONDO:0000011", "MONDO:0000010"]  # an old id is replaced
    assert statements.parents is not None
    assert set(statements.parents.itertuples(index=False, name=None)) == {
        ("MONDO:0000011", "MONDO:0000010", "nail disease"),
        ("MONDO:0000010", "MONDO:0700096", "human disease"),
        ("MONDO:0700096", "MONDO:0000001", "disease"),
    }
    assert "the hierarchy of MONDO is that of mondo.obo 2026-09-01" in statements.notes
    to = tmp_path / "to"
    facts = build("gencc", statements, read_catalogue()["gencc"], no_genes(), [], to / "gencc")
    assert facts["counts"]["left_out_terms"] == {"too general": 2}
    sets = {each.term: set(each.genes) for each in load_collections(ValidationConfig(builtin=False), to)[0].sets}
    assert sets == {"blue nails (MONDO:0000011)": {"A1BG"}, "nail disease (MONDO:0000010)": {"A1BG", "A2M"}}
    everything = load_collections(ValidationConfig(builtin=False, all_terms=True), to)[0].sets
    assert {each.term_id for each in everything} == {"MONDO:0000011", "MONDO:0000010", "MONDO:0700096", "MONDO:0000001"}


def test_monarch_has_diseases_and_phenotypes(tmp_path: Path) -> None:
    write_monarch(tmp_path, CAUSAL, [{"object": "MONDO:0000011", "object_label": "blue nails"}])
    phenotypes = [
        {"object": "HP:0001250", "object_label": "Seizure"},
        {"object": "HP:0000007", "object_label": "Autosomal recessive inheritance"},
    ]
    write_monarch(tmp_path, PHENOTYPE, phenotypes)
    without = monarch.read(tmp_path)
    assert without.parents is None
    assert without.says_little["HP:0000007"] == "mode of inheritance"  # known by its name
    assert "HP:0001250" not in without.says_little
    (tmp_path / "mondo.obo").write_text(MONDO)
    (tmp_path / "hp.obo").write_text(HPO)
    statements = monarch.read(tmp_path)
    check(statements, rows_read=3)
    assert statements.parents is not None
    assert {prefix.split(":")[0] for prefix in statements.parents["term_id"]} == {"MONDO", "HP"}
    assert statements.says_little["HP:0000007"] == statements.says_little["HP:0000005"] == "mode of inheritance"
    assert statements.says_little["HP:0000118"] == "too general"
    assert "HP:0001250" not in statements.says_little


def test_an_id_that_means_something_else_is_not_too_general() -> None:
    terms = pd.DataFrame({"term_id": ["MONDO:0000001", "EFO:0000408"], "term_name": ["blue nails", "Disease"]})
    marked = little_said(None, terms)
    assert "MONDO:0000001" not in marked
    assert marked["EFO:0000408"] == "too general"
