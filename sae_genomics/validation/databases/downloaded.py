"""Gene sets of downloaded databases: one collection per database in paths.databases, read from disk alone.

Where the terms have a hierarchy and the database lists only the most specific ones, the genes of a term are also those of every term above
it. `propagated` of source.json says whether the database did so itself; it is never done twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from sae_genomics.config import ValidationConfig
from sae_genomics.errors import UserError
from sae_genomics.file_keys import database_terms
from sae_genomics.validation.databases.counting import counted, counted_noun
from sae_genomics.validation.gene_sets import Collection, GeneSet
from sae_genomics.validation.normal_form.hierarchy import propagated
from sae_genomics.validation.normal_form.schema import (
    EDGES_FILE,
    LEFT_OUT_FILE,
    PARENTS_FILE,
    SOURCE_FILE,
    read_source,
    read_table,
)

_COLUMNS = ["term_id", "term_name", "gene_symbol", "score", "category", "negative"]
_FACTS = ("title", "version", "licence", "citation")
LEFT_OUT = "left_out"  # the fact of a collection that says what of its database is not tested


def load(settings: ValidationConfig, folder: Path) -> list[Collection]:
    """The databases that the settings name, or all that are in the folder.

    Raises UserError for one that is named and not there or that has no gene sets, and for one that cannot be read.
    """
    wanted = settings.databases
    found = [_collection(path, settings, named=wanted != "all") for path in database_terms(wanted, folder)]
    return [collection for collection in found if collection.sets]


def check_presence(wanted: Sequence[str] | str, folder: Path) -> list[str]:
    """The names of the databases that `load` would read. No table is opened. Raises UserError for one that is named and not there."""
    paths = database_terms(wanted, folder)
    for path in paths:
        _check(path, named=wanted != "all")
    return [path.parent.name for path in paths]


def _check(terms: Path, named: bool) -> None:
    folder = terms.parent
    if named and not (folder / SOURCE_FILE).exists():
        raise UserError(
            f"validation.databases: {folder.name} is not in {folder.parent}; run scripts/download_databases.py --only {folder.name} "
            f"--to {folder.parent}"
        )
    if named and not terms.exists() and (folder / EDGES_FILE).exists():
        raise UserError(f"validation.databases: {folder.name} has a network and no gene sets; leave it out")


def _collection(terms: Path, settings: ValidationConfig, named: bool) -> Collection:
    _check(terms, named)
    folder = terms.parent
    said = read_source(folder)
    rows = read_table(terms, _COLUMNS)
    counts = counted(folder.name, rows, settings)
    parents = read_table(folder / PARENTS_FILE).to_pandas() if (folder / PARENTS_FILE).exists() else None
    ids, names, genes, members = _members(rows, counts.keeps, None if said.get("propagated") else parents)
    if parents is not None:
        names |= {term: name for term, name in zip(parents["parent_id"], parents["parent_name"], strict=True) if name}
    tested = np.diff(members.indptr) > 0
    left_out = counts.left_out
    if not settings.all_terms and (folder / LEFT_OUT_FILE).exists():
        marked = read_table(folder / LEFT_OUT_FILE).to_pandas()
        out = ids.isin(marked["term_id"]) & tested
        reasons = marked[marked["term_id"].isin(ids[out])]["reason"].value_counts()
        left_out = [*left_out, *(counted_noun(int(count), "term", f"({reason})") for reason, count in reasons.items())]
        tested &= ~out
    sets = _sets(ids, names, genes, members, tested)
    if named and not sets:
        why = f" ({'; '.join(left_out)})" if left_out else ""
        raise UserError(f"validation.databases: {folder.name} has no gene sets{why}; leave it out")
    return Collection(
        folder.name, sets, _facts(folder.name, said, left_out),
        universe=frozenset(str(gene).upper() for gene in pc.unique(rows["gene_symbol"]).to_pylist() if gene),
        parents=_by_term(parents), contains=tuple(said.get("contains") or ()),
    )  # fmt: skip


def _facts(name: str, said: Mapping[str, Any], left_out: Sequence[str]) -> dict[str, str]:
    facts = {"database": name, **{fact: str(said[fact]) for fact in _FACTS if said.get(fact)}}
    return facts | ({LEFT_OUT: "; ".join(left_out)} if left_out else {})


def _members(
    rows: pa.Table, keeps: npt.NDArray[np.bool_], parents: pd.DataFrame | None
) -> tuple[pd.Index, dict[str, str], npt.NDArray[np.object_], sparse.csr_matrix]:
    """Ids of the terms, their names, the genes, and bool [terms, genes]; in the table's order, terms without a statement last.

    A statement that a gene does not belong to a term adds nothing. It takes away what a term below would add, but nothing that
    another statement says. parents: None where nothing is to be added to what the source says.
    """
    term, ids = _coded(rows["term_id"])
    gene, genes = _coded(rows["gene_symbol"])
    shape = (len(ids), len(genes))
    said = _matrix(term[keeps], gene[keeps], shape)
    first = np.zeros(len(ids), dtype=np.int64)
    first[term[::-1]] = np.arange(len(term))[::-1]
    written = pc.fill_null(rows["term_name"], "").take(pa.array(first)).to_pylist()
    names = dict(zip(ids.tolist(), written, strict=True))
    if parents is None or not len(parents):
        return ids, names, genes, said
    negative = pc.fill_null(rows["negative"], False).to_numpy()
    ids, said = propagated(said, _matrix(term[negative], gene[negative], shape), ids, parents)
    return ids, names, genes, said


def _coded(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int32], Any]:
    """A number for each row, and what each number stands for."""
    codes = pc.fill_null(column, "").combine_chunks().dictionary_encode()
    return codes.indices.to_numpy(zero_copy_only=False), pd.Index(codes.dictionary.to_pylist(), dtype=object)


def _matrix(row: npt.NDArray[np.int32], column: npt.NDArray[np.int32], shape: tuple[int, int]) -> sparse.csr_matrix:
    return sparse.coo_matrix((np.ones(len(row), dtype=bool), (row, column)), shape=shape).tocsr()


def _sets(
    ids: pd.Index,
    names: Mapping[str, str],
    genes: npt.NDArray[np.object_],
    members: sparse.csr_matrix,
    tested: npt.NDArray[np.bool_],
) -> tuple[GeneSet, ...]:
    symbols = np.asarray(genes, dtype=object)[members.indices]
    bounds = members.indptr
    return tuple(
        GeneSet(
            _label(ids[i], names.get(ids[i], "")), str(ids[i]), tuple(symbols[bounds[i] : bounds[i + 1]]), str(ids[i])
        )
        for i in np.flatnonzero(tested)
    )


def _label(term: str, name: str) -> str:
    """Two terms may have one name; with its id each is one."""
    return f"{name} ({term})" if name and name != term else term


def _by_term(parents: pd.DataFrame | None) -> dict[str, tuple[str, ...]]:
    if parents is None:
        return {}
    return {term: tuple(ids) for term, ids in parents.groupby("term_id", sort=False)["parent_id"]}
