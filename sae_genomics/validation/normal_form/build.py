"""From a database's statements to its files of the normal form, all together or none."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sae_genomics.atomic import put_in_place, remove_leftovers, temporary_folder
from sae_genomics.errors import UserError
from sae_genomics.progress import say
from sae_genomics.validation.normal_form import schema
from sae_genomics.validation.normal_form.catalogue import Entry
from sae_genomics.validation.normal_form.hgnc import Genes, Identified, identify, refuse_unmapped
from sae_genomics.validation.normal_form.statements import GENE_IDS, Statements

_IDENTITY = ["gene_symbol", "ensembl_id", "hgnc_id"]
_ENDS = ("source_", "target_")


@dataclass(frozen=True)
class SourceFile:
    """A file that a source was read from. url: as the catalogue has it, without keys; empty where it was fetched elsewhere."""

    name: str
    url: str
    bytes: int
    sha256: str
    modified: str = ""


def source_file(path: Path, name: str = "", url: str = "") -> SourceFile:
    """What is recorded of a file that is there. name: default: its own."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
    return SourceFile(name or path.name, url, path.stat().st_size, sha256.hexdigest())


def build(
    name: str, statements: Statements, entry: Entry, genes: Genes, files: Sequence[SourceFile], folder: Path
) -> dict[str, Any]:
    """Leave the normal form of a source in `folder`; returns what source.json says.

    Raises UserError where more genes are unknown than the catalogue allows.
    """
    terms, edges, found = _with_genes(statements, genes)
    sentence = refuse_unmapped(name, found, genes, entry.unmapped_limit)
    tables: dict[str, pd.DataFrame] = {schema.TERMS_FILE: _terms(terms, statements)}
    if statements.parents is not None:
        tables[schema.PARENTS_FILE] = statements.parents[["term_id", "parent_id"]].drop_duplicates()
    if edges is not None:
        tables[schema.EDGES_FILE] = _edges(edges, statements)
    notes = [*statements.notes, *([sentence] if sentence else [])]
    counts = _counts(statements, tables, found)
    if not counts["kept"]:
        notes.append(f"none of the {statements.rows_read:,} rows is kept: {_reasons(statements)}")
    for note in notes:
        say(f"{name}: {note}")
    facts = {
        "name": name, "title": entry.title, "version": statements.version or _version(entry, files), "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "licence": entry.licence, "citation": entry.citation, "contains": entry.contains, "propagated": statements.propagated,
        "directed": statements.directed, "files": [asdict(file) for file in files], "counts": counts, "notes": notes,
        "gene_table": {"genes": len(genes.table), "sha256": genes.sha256}, "catalogue_version": entry.version,
    }  # fmt: skip
    _write(name, tables, facts, folder)
    return facts


def _version(entry: Entry, files: Sequence[SourceFile]) -> str:
    """Where the files do not tell: the catalogue's for fetched ones, for a moving address with the day of the newest."""
    if not any(file.url for file in files):
        return ""
    newest = max((file.modified for file in files), default="")
    return newest or entry.version if entry.version in ("current", "latest") else entry.version


def _reasons(statements: Statements) -> str:
    return ", ".join(f"{rows:,} {reason}" for reason, rows in statements.dropped.items()) or "no statement in them"


def _with_genes(
    statements: Statements, genes: Genes
) -> tuple[pd.DataFrame | None, pd.DataFrame | None, Identified]:
    """The terms, and both ends of the edges, with the genes' identity in place of their names; all looked up at once."""
    terms, edges = statements.terms, statements.edges
    named = [] if terms is None else [terms[[name for name in GENE_IDS if name in terms]]]
    if edges is not None:
        for end in _ENDS:
            columns = {end + name: name for name in GENE_IDS if end + name in edges}
            named.append(edges[list(columns)].rename(columns=columns))
    if not named:
        raise ValueError("a reader gave neither terms nor edges")
    found = identify(pd.concat(named, ignore_index=True), genes)
    start = 0
    if terms is not None:
        start = len(terms)
        terms = _kept(terms, [_part(found, slice(0, start))], [""], statements)
    if edges is not None:
        n = len(edges)
        ends = [_part(found, slice(at, at + n)) for at in (start, start + n)]
        edges = _kept(edges, ends, list(_ENDS), statements)
    return terms, edges, found


def _part(found: Identified, rows: slice) -> Identified:
    return Identified(found.genes.iloc[rows].reset_index(drop=True), found.is_kept[rows], found.is_ambiguous[rows])


def _kept(table: pd.DataFrame, ends: list[Identified], prefixes: list[str], statements: Statements) -> pd.DataFrame:
    """The rows whose genes are known, with their identity; the others are counted."""
    keep = np.logical_and.reduce([end.is_kept for end in ends])
    ambiguous = np.logical_or.reduce([end.is_ambiguous for end in ends]) & ~keep
    statements.drop("ambiguous gene", int(ambiguous.sum()))
    statements.drop("unmapped gene", int((~keep & ~ambiguous).sum()))
    names = {prefix + name for prefix in prefixes for name in (*GENE_IDS, *_IDENTITY)}
    rest = table.drop(columns=[name for name in table if name in names]).reset_index(drop=True)
    genes = [end.genes.add_prefix(prefix) for end, prefix in zip(ends, prefixes, strict=True)]
    return pd.concat([rest, *genes], axis=1)[keep].reset_index(drop=True)


def _key(table: pd.DataFrame, prefix: str = "") -> pd.Series:
    """What tells genes apart: the first identity that a row has."""
    key = table[prefix + "hgnc_id"]
    for name in ("ensembl_id", "gene_symbol"):
        key = key.where(key.notna(), table[prefix + name])
    return key


def _filled(table: pd.DataFrame, values: dict[str, Any]) -> pd.DataFrame:
    for name, value in values.items():
        table[name] = table[name].fillna(value) if name in table else value
    table["score"] = pd.to_numeric(table["score"]).astype(np.float64)
    return table


def _terms(terms: pd.DataFrame | None, statements: Statements) -> pd.DataFrame:
    """One row per term, gene, category and sign: that with the highest score."""
    if terms is None:
        terms = pd.DataFrame(columns=["term_id", "term_name", *_IDENTITY], dtype=object)
    terms = _filled(terms, {"score": np.nan, "evidence": "", "category": "", "negative": False})
    terms["negative"] = terms["negative"].astype(bool)
    return _highest(terms, ["term_id", "category", "negative"], [_key(terms)], statements)


def _edges(edges: pd.DataFrame, statements: Statements) -> pd.DataFrame:
    """One row per pair and category, of a regulon per pair, category and sign: that with the highest score.

    A pair of a network without directions stands once, whichever gene comes first in the database, and never of a gene with itself.
    """
    edges = _filled(edges, {"score": np.nan, "evidence": "", "category": "", "sign": 0})
    edges["sign"] = edges["sign"].astype(np.int8)
    source, target = (_key(edges, prefix) for prefix in _ENDS)
    if statements.directed:
        return _highest(edges, ["category", "sign"], [source, target], statements)
    itself = (source == target).to_numpy()
    statements.drop("a gene with itself", int(itself.sum()))
    edges, source, target = edges[~itself], source[~itself], target[~itself]
    turned = (source > target).to_numpy()
    left, right = ([prefix + name for name in _IDENTITY] for prefix in _ENDS)
    edges.loc[turned, [*left, *right]] = edges.loc[turned, [*right, *left]].to_numpy()
    return _highest(edges, ["category"], [source.where(~turned, target), target.where(~turned, source)], statements)


def _highest(table: pd.DataFrame, names: list[str], keys: list[pd.Series], statements: Statements) -> pd.DataFrame:
    codes = pd.DataFrame(
        {i: pd.factorize(column)[0] for i, column in enumerate([*(table[name] for name in names), *keys])}
    )
    order = np.argsort(-table["score"].fillna(-np.inf).to_numpy(), kind="stable")
    first = np.sort(order[~codes.iloc[order].duplicated().to_numpy()])
    statements.drop("duplicate", len(table) - len(first))
    return table.iloc[first]


def _counts(statements: Statements, tables: dict[str, pd.DataFrame], found: Identified) -> dict[str, Any]:
    terms = tables[schema.TERMS_FILE]
    edges = tables.get(schema.EDGES_FILE)
    return {
        "rows_read": statements.rows_read, "kept": len(terms) + (0 if edges is None else len(edges)), "dropped": statements.dropped,
        **found.facts(), "negative": int(terms["negative"].sum()), "statements": len(terms), "terms": int(terms["term_id"].nunique()),
        "genes": int(_key(terms).nunique()), "parents": len(tables.get(schema.PARENTS_FILE, ())), "edges": 0 if edges is None else len(edges),
    }  # fmt: skip


def _write(name: str, tables: dict[str, pd.DataFrame], facts: dict[str, Any], folder: Path) -> None:
    """source.json comes last and goes first, so that a folder which has it is whole."""
    remove_leftovers(folder.parent)
    with temporary_folder(folder.parent, name) as temporary:
        for file, table in tables.items():
            columns = schema.SCHEMAS[file]
            with_source = table.assign(source=name)[columns.names]
            try:
                arrow = pa.Table.from_pandas(
                    with_source, schema=columns, preserve_index=False
                ).replace_schema_metadata()
            except pa.ArrowException as error:
                raise ValueError(f"the reader of {name} gave a column of another type: {error}") from None
            schema.write_table(temporary / file, arrow)
        schema.write_source(temporary, facts)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / schema.SOURCE_FILE).unlink(missing_ok=True)
        for file in schema.SCHEMAS:
            if file in tables:
                put_in_place(temporary / file, folder / file)
            else:
                (folder / file).unlink(missing_ok=True)
        put_in_place(temporary / schema.SOURCE_FILE, folder / schema.SOURCE_FILE)


def built(folder: Path) -> dict[str, Any] | None:
    """What is known of a source whose files are there; None where they are not."""
    try:
        return schema.read_source(folder)
    except UserError:
        return None
