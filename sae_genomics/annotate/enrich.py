"""The test itself: every list against every set, by the code of the stage validate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from sae_genomics.annotate.choice_of_background import Listable
from sae_genomics.config import ValidationConfig
from sae_genomics.errors import UserError
from sae_genomics.validation.enrichment_test import EnrichmentTest
from sae_genomics.validation.enrichment_tests import enrichment_test_named
from sae_genomics.validation.feature_terms import all_terms_of
from sae_genomics.validation.gene_lists import GeneLists
from sae_genomics.validation.gene_sets import Collection, Membership, membership

MATCHED_COLUMNS = ["p_matched", "q_matched", "q_source_matched"]


@dataclass(frozen=True)
class Answer:
    """rows: as in feature_terms.parquet, with `list` in place of `feature`; by list, then p. lists: of each list what was tested."""

    rows: pd.DataFrame
    lists: list[dict[str, object]]
    members: Membership
    test: EnrichmentTest


def enrich(
    lists: Mapping[str, Sequence[str]],
    background: Listable,
    collections: Sequence[Collection],
    settings: ValidationConfig,
    best: int,
) -> Answer:
    """Test lists of genes. lists: name -> current symbols. best: rows of each list that are there whatever their p.

    Raises UserError where no list has a gene of the background, or no set fits.
    """
    test = enrichment_test_named(settings.test)
    if test.reads != "lists":
        raise UserError(
            f"validation.test: {test.name} reads the order of all genes, and this is a list; set validation.test to fisher, or give a table "
            "of genes and scores with --ranking"
        )
    of_source = settings.background == "source"
    members = membership(collections, background.symbols, settings.min_set_size, settings.max_set_size, of_source)
    listed, facts = _lists(lists, members)
    rows = all_terms_of(test, listed, background.within(members), collections, settings.fdr, best)
    names = np.array([str(each["list"]) for each in facts], dtype=object)
    rows.insert(0, "list", names[rows.pop("feature").to_numpy()])
    return Answer(rows if background.bins is not None else rows.drop(columns=MATCHED_COLUMNS), facts, members, test)


def _lists(lists: Mapping[str, Sequence[str]], members: Membership) -> tuple[GeneLists, list[dict[str, object]]]:
    """The lists as positions, and of each its genes in the background and those that are not."""
    facts: list[dict[str, object]] = []
    rows: list[np.ndarray] = []
    for name, genes in lists.items():
        positions = members.positions(list(genes)) if genes else np.empty(0, dtype=np.int64)
        known = np.unique(positions[positions >= 0])
        unknown = [gene for gene, position in zip(genes, positions, strict=True) if position < 0]
        facts.append({"list": name, "n_genes": len(genes), "n_tested": len(known), "not_in_background": unknown})
        rows.append(known)
    if not any(len(each) for each in rows):
        example = ", ".join([gene for genes in lists.values() for gene in genes][:3])
        raise UserError(
            f"none of the genes ({example}) is in the background of {len(members.background):,} genes, which names them like "
            f"{', '.join(map(str, members.symbols[:3]))}; give symbols, fetch HGNC's table with scripts/download_databases.py --only hgnc, "
            "or name another --background"
        )
    pointer = np.concatenate([[0], np.cumsum([len(each) for each in rows])])
    columns = np.concatenate(rows)
    matrix = sparse.csr_matrix(
        (np.ones(len(columns), dtype=np.int32), columns, pointer), shape=(len(rows), len(members.background))
    )
    return GeneLists(np.arange(len(rows), dtype=np.int64), matrix), facts
