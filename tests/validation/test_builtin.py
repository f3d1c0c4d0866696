"""The gene sets that come with the package."""

import re
from collections import Counter

import numpy as np
import scanpy as sc

from sae_genomics.config import ValidationConfig
from sae_genomics.validation.databases import load_collections
from sae_genomics.validation.databases.builtin import FOLDER, load
from sae_genomics.validation.gene_sets import membership
from sae_genomics.validation.independence import counted_once

COLLECTIONS = load(ValidationConfig())


def test_they_are_found_without_being_asked_for_and_can_be_left_out():
    assert [collection.name for collection in load_collections(ValidationConfig())] == [
        "cell_programs",
        "cell_types",
        "core_machinery",
    ]
    assert load(ValidationConfig(builtin=False)) == []


def test_every_set_has_a_source_and_well_formed_symbols():
    terms = Counter(gene_set.term for collection in COLLECTIONS for gene_set in collection.sets)
    assert len(terms) >= 60
    assert max(terms.values()) == 1
    for collection in COLLECTIONS:
        for gene_set in collection.sets:
            assert len(gene_set.description) > 10, gene_set.term
            assert len(gene_set.genes) >= 9, gene_set.term
            for gene in gene_set.genes:
                assert re.fullmatch(r"[A-Z0-9][A-Za-z0-9.-]*", gene), (gene_set.term, gene)
                assert gene == gene.upper() or re.fullmatch(r"C\d+orf\d+", gene), (gene_set.term, gene)


def test_the_bundled_blood_cells_have_what_they_need():
    raw = sc.datasets.pbmc68k_reduced().raw.var_names.to_numpy(object)
    members = membership(COLLECTIONS, raw, 3, 2000)
    needed = {
        "B cell", "Natural killer cell", "Classical monocyte", "Non-classical monocyte", "T cell", "Cytotoxic effector T cell",
        "Conventional dendritic cell type 2", "Plasmacytoid dendritic cell", "Regulatory T cell",
        "Haematopoietic stem and progenitor cell", "Type I interferon response", "MHC class II antigen presentation",
        "Ribosome and translation", "Oxidative phosphorylation", "Proteasome", "Cytolytic granules",
    }  # fmt: skip
    assert needed <= set(members.term)
    assert len(members.term) >= 60


def test_they_are_one_source_for_a_name():
    contains = {collection.name: collection.contains for collection in COLLECTIONS} | {"reactome": ()}
    all_agree = np.ones((1, len(contains)), dtype=bool)
    assert counted_once(all_agree, contains).sum() == 2  # reactome, and one of the files that one hand wrote


def test_the_sources_are_told():
    text = (FOLDER / "README.md").read_text()
    for collection in COLLECTIONS:
        assert f"`{collection.name}.gmt` | {len(collection.sets)} |" in text
    for doi in {doi for c in COLLECTIONS for s in c.sets for doi in re.findall(r"doi:(\S+?)(?:,|$)", s.description)}:
        assert doi in text
