"""Matching an input's genes to the model's vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_matrix

from sae_genomics.data.units import Units
from sae_genomics.errors import UserError
from sae_genomics.tokens import pointers

# ENSG00000141510.17, ENSMUST00000000001.4, ENSG00000182378.14_PAR_Y; never a clone name such as AC012345.1
_VERSIONED = r"^(ENS[A-Z]{0,6}\d{6,})\.\d+(?:_PAR_Y)?$"
_ENSEMBL = r"^ENS[A-Z]{0,6}\d{6,}(?:\.\d+)?"
_SYMBOL_COLUMNS = (
    "gene_symbol", "gene_symbols", "symbol", "symbols", "feature_name", "gene_name", "gene_names", "gene_short_name",
    "hgnc_symbol", "external_gene_name",
)  # fmt: skip
_FAR_BETTER = 10


@dataclass(frozen=True)
class GeneMatch:
    """Which of the input's genes the model knows.

    names: str [columns], the names looked up, version suffixes stripped.
    symbols: str [columns], for people.
    token: int32 [columns], vocabulary id, -1 where the model does not know the gene.
    gene_index: int32 [columns], position among `tokens`, -1 likewise. Duplicates share an index.
    tokens: int32 [genes], distinct matched ids, ascending.
    gene_key, symbol_key: the var columns used; None for the index.
    notes: sentences for the reader.
    """

    names: npt.NDArray[np.object_]
    symbols: npt.NDArray[np.object_]
    token: npt.NDArray[np.int32]
    gene_index: npt.NDArray[np.int32]
    tokens: npt.NDArray[np.int32]
    gene_key: str | None
    symbol_key: str | None
    notes: tuple[str, ...]

    @property
    def n_matched(self) -> int:
        """Columns of the input that matched; duplicates count each."""
        return int((self.token >= 0).sum())


def match_genes(
    var: pd.DataFrame,
    vocabulary: Mapping[str, int],
    gene_key: str | None,
    symbol_key: str | None,
    source: str,
    known_symbols: Mapping[str, str] | None = None,
) -> GeneMatch:
    """Look the input's genes up in the model's vocabulary.

    var: [columns] annotations of the matrix's genes.
    vocabulary: name -> id of the model's genes.
    gene_key: var column to look up; None for the index, or, where hardly anything of the index matches, for the column
        that matches best (with a note that says so).
    symbol_key: var column of symbols; None to look for one, else the index.
    source: file and matrix, named in errors.
    known_symbols: symbols of ids, for an input that has none.

    Raises UserError when a column is not there, or when nothing matches (with names from both sides).
    """
    for key, setting in ((gene_key, "data.gene_key"), (symbol_key, "data.symbol_key")):
        if key is not None and key not in var.columns:
            columns = ", ".join(map(str, var.columns)) or "none, only the index"
            raise UserError(f"{setting}: {source} has no var column {key!r}; there are: {columns}")
    notes: list[str] = []
    names, token = _look_up(_names(var, gene_key), vocabulary)
    n_matched = int((token >= 0).sum())
    better, best = _best_other_key(var, vocabulary, gene_key)
    if gene_key is None and best > 0 and best >= _FAR_BETTER * n_matched:
        notes.append(
            f"Genes were matched by var column {better} ({best:,} of {len(var):,}), because the index matches {n_matched:,}; "
            f"data.gene_key sets another."
        )
        gene_key, n_matched = better, best
        names, token = _look_up(_names(var, gene_key), vocabulary)
    if not n_matched:
        raise UserError(_nothing_matched(names, vocabulary, source, gene_key, better, best))
    if best > 2 * n_matched:
        label = "the index" if better is None else f"var column {better}"
        notes.append(f"More genes would match by {label}: {best:,} instead of {n_matched:,}; see data.gene_key.")
    tokens, index = gene_index(token)
    if len(tokens) < n_matched:
        notes.append(
            f"{n_matched - len(tokens):,} genes stand more than once in the input under one vocabulary id; "
            f"their counts were summed."
        )
    symbols, used = _symbols(var, symbol_key, names)
    if used is None and known_symbols:
        named = np.array([known_symbols.get(name, "") for name in names], dtype=object)
        lacking = (symbols == names) | pd.Series(symbols, dtype=object).str.match(_ENSEMBL).to_numpy(bool)
        symbols = np.where(lacking & (named != ""), named, symbols)
        if (lacking & (named != "")).any():
            notes.append(
                "Gene symbols are those of the model's own table of names, because the input has none; see data.symbol_key."
            )
    return GeneMatch(names, symbols, token, index, tokens, gene_key, used, tuple(notes))


def gene_index(token: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """The distinct matched ids, ascending: int32 [genes]; the position of each column's id among them: int32 [columns].

    token: int32 [columns], vocabulary id, -1 where the model does not know the gene; there the position is -1 too.
    """
    tokens, inverse = np.unique(token[token >= 0], return_inverse=True)
    index = np.full(len(token), -1, dtype=np.int32)
    index[token >= 0] = inverse
    return tokens.astype(np.int32), index


def sum_by_gene(
    counts: csr_matrix, gene_index: npt.NDArray[np.int32], n_genes: int, dtype: npt.DTypeLike = np.float32
) -> csr_matrix:
    """Counts over distinct matched genes: [cells, columns] to [cells, genes], duplicates summed, columns ascending.

    gene_index: int32 [columns], -1 for columns that are left out. Stored zeros are dropped.
    """
    column = gene_index[counts.indices]
    keep = (column >= 0) & (counts.data != 0)
    if keep.all():
        data, indptr = counts.data, counts.indptr.copy()  # summing duplicates writes to it
    else:
        data, column = counts.data[keep], column[keep]
        indptr = pointers(keep)[counts.indptr]
    result = csr_matrix((data.astype(np.float64), column, indptr), shape=(counts.shape[0], n_genes))
    result.sum_duplicates()
    return result.astype(dtype)


def units_of(genes: pd.DataFrame) -> Units:
    """The distinct matched genes, ascending by token, from rows of genes.parquet.

    Of several columns with one gene, the first gives the names, and counts are summed.
    """
    matched = genes[genes["token"] >= 0].sort_values("token", kind="stable")
    first = matched.drop_duplicates("token")
    return Units(
        first["token"].to_numpy(np.int32),
        first["gene_id"].to_numpy(object),
        first["gene_symbol"].to_numpy(object),
        matched.groupby("token")["counts"].sum().to_numpy(np.float64),
    )


def strip_versions(names: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    """Ensembl ids without their version; other names as they are: str [n]."""
    return pd.Series(names, dtype=object).str.replace(_VERSIONED, r"\1", regex=True).to_numpy(dtype=object)


def _names(var: pd.DataFrame, key: str | None) -> npt.NDArray[np.object_]:
    values = pd.Series(var.index if key is None else var[key].astype(object).to_numpy(), dtype=object)
    return values.where(values.notna(), "").astype(str).str.strip().to_numpy(dtype=object)


def _look_up(
    names: npt.NDArray[np.object_], vocabulary: Mapping[str, int]
) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.int32]]:
    """Names as looked up, and the id of each: as written first, then without a version."""
    known = pd.Index(list(vocabulary), dtype=object)
    ids = np.append(np.fromiter(vocabulary.values(), dtype=np.int32, count=len(vocabulary)), -1).astype(np.int32)
    stripped = strip_versions(names)
    exact = known.get_indexer(names)
    row = np.where(exact >= 0, exact, known.get_indexer(stripped))
    return np.where(exact >= 0, names, stripped), ids[row]


def _best_other_key(var: pd.DataFrame, vocabulary: Mapping[str, int], gene_key: str | None) -> tuple[str | None, int]:
    """The column of text (or the index) other than the chosen one that matches most genes, and how many."""
    best: tuple[str | None, int] = (None, 0)
    keys = [str(key) for key in var.columns if var[key].dtype.kind not in "biufcmM"]
    for key in [*([None] if gene_key is not None else []), *keys]:
        if key != gene_key:
            matched = int((_look_up(_names(var, key), vocabulary)[1] >= 0).sum())
            best = max(best, (key, matched), key=lambda pair: pair[1])
    return best


def _nothing_matched(
    names: npt.NDArray[np.object_],
    vocabulary: Mapping[str, int],
    source: str,
    gene_key: str | None,
    better: str | None,
    best: int,
) -> str:
    here = ", ".join(names[:3]) or "none"
    there = ", ".join(list(vocabulary)[:3])
    key = "the index" if gene_key is None else f"var column {gene_key}"
    if best:
        name = "null (the index)" if better is None else better
        what_next = f"set data.gene_key: {name}, which matches {best:,}"
    else:
        what_next = "set data.gene_key to a var column with names of that kind"
    return f"no genes matched: {source} has {here} ... in {key}, the model knows {there} ...; {what_next}"


def _symbols(
    var: pd.DataFrame, symbol_key: str | None, names: npt.NDArray[np.object_]
) -> tuple[npt.NDArray[np.object_], str | None]:
    """Symbols and the column they come from: the one asked for, a known one, else the index."""
    by_name = {str(column).lower(): column for column in var.columns}
    for known in _SYMBOL_COLUMNS if symbol_key is None else ():
        column = by_name.get(known)
        if column is not None and _mostly_symbols(_names(var, column)):
            symbol_key = column
            break
    symbols = _names(var, symbol_key)
    return np.where(symbols == "", names, symbols), symbol_key


def _mostly_symbols(names: npt.NDArray[np.object_]) -> bool:
    series = pd.Series(names, dtype=object)
    return bool(((series != "") & ~series.str.match(_ENSEMBL)).mean() > 0.5)
