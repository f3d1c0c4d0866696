"""Gene sets of downloaded databases: one collection per database in paths.databases, read from disk alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sae_genomics.errors import UserError
from sae_genomics.file_keys import database_terms
from sae_genomics.validation.gene_sets import Collection, GeneSet
from sae_genomics.validation.normal_form.schema import EDGES_FILE, SOURCE_FILE, read_source, read_table

_COLUMNS = ["term_id", "term_name", "gene_symbol", "negative"]
_FACTS = ("title", "version", "licence", "citation")


def load(wanted: Sequence[str] | str, folder: Path) -> list[Collection]:
    """The databases that are named, or `all` that are in the folder.

    Raises UserError for one that is named and not there or that has no gene sets, and for one that cannot be read.
    """
    found = [_collection(path, named=wanted != "all") for path in database_terms(wanted, folder)]
    return [collection for collection in found if collection.sets]


def _collection(terms: Path, named: bool) -> Collection:
    folder = terms.parent
    if named and not (folder / SOURCE_FILE).exists():
        raise UserError(
            f"validation.databases: {folder.name} is not in {folder.parent}; run scripts/download_databases.py --only {folder.name} "
            f"--to {folder.parent}"
        )
    if named and not terms.exists() and (folder / EDGES_FILE).exists():
        raise UserError(f"validation.databases: {folder.name} has a network and no gene sets; leave it out")
    said = read_source(folder)
    facts = {"database": folder.name, **{name: str(said[name]) for name in _FACTS if said.get(name)}}
    sets = _sets(read_table(terms, _COLUMNS).to_pandas())
    if named and not sets:
        raise UserError(f"validation.databases: {folder.name} has no gene sets; leave it out")
    return Collection(folder.name, sets, facts)


def _sets(rows: pd.DataFrame) -> tuple[GeneSet, ...]:
    """One set per term, in the table's order, of the genes with a symbol that are said to belong to it.

    A statement that a gene does not belong to a term adds nothing. It takes nothing away either, where another statement disagrees.
    """
    symbol = rows["gene_symbol"].fillna("")
    rows = rows[~rows["negative"].fillna(False).astype(bool) & (symbol != "")]
    rows = rows.drop_duplicates(["term_id", "gene_symbol"])
    number, ids = pd.factorize(rows["term_id"])
    order = np.argsort(number, kind="stable")
    genes = rows["gene_symbol"].to_numpy(object)[order]
    bounds = np.concatenate([[0], np.cumsum(np.bincount(number, minlength=len(ids)))]).astype(np.int64)
    names = rows["term_name"].fillna("").to_numpy(object)[order][bounds[:-1]]
    return tuple(
        GeneSet(_label(str(term), str(name)), str(term), tuple(genes[start:end]))
        for term, name, start, end in zip(ids, names, bounds[:-1], bounds[1:], strict=True)
    )


def _label(term: str, name: str) -> str:
    """Two terms may have one name; with its id each is one."""
    return f"{name} ({term})" if name and name != term else term
