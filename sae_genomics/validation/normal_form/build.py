"""From a database's statements to its files of the normal form, all together or none."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from sae_genomics.atomic import put_in_place, remove_leftovers, temporary_folder
from sae_genomics.errors import UserError
from sae_genomics.progress import say
from sae_genomics.validation.normal_form import schema
from sae_genomics.validation.normal_form.catalogue import Entry
from sae_genomics.validation.normal_form.hgnc import Genes, Identified, identify, refuse_unmapped
from sae_genomics.validation.normal_form.hierarchy import closes_circle
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
        tables[schema.PARENTS_FILE] = _parents(statements.parents, terms, statements)
    if statements.says_little:
        tables[schema.LEFT_OUT_FILE] = _left_out(statements, tables)
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
        "form": schema.FORM, "gene_table": {"genes": len(genes.table), "sha256": genes.sha256}, "catalogue_version": entry.version,
    }  # fmt: skip
    _write(name, tables, found.genes, facts, folder)
    return facts


def _version(entry: Entry, files: Sequence[SourceFile]) -> str:
    """Where the files do not tell: the catalogue's for fetched ones, for a moving address with the day of the newest."""
    if not any(file.url for file in files):
        return ""
    newest = max((file.modified for file in files), default="")
    return newest or entry.version if entry.version in ("current", "latest") else entry.version


def _reasons(statements: Statements) -> str:
    return ", ".join(f"{rows:,} {reason}" for reason, rows in statements.dropped.items()) or "no statement in them"


def _with_genes(statements: Statements, genes: Genes) -> tuple[pd.DataFrame | None, pd.DataFrame | None, Identified]:
    """The terms, and both ends of the edges, with a gene's number in place of its names; all looked up at once."""
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
        terms = _kept(terms, [slice(0, start)], [""], found, statements)
    if edges is not None:
        n = len(edges)
        ends = [slice(start, start + n), slice(start + n, start + 2 * n)]
        edges = _kept(edges, ends, list(_ENDS), found, statements)
    return terms, edges, found


def _kept(
    table: pd.DataFrame, parts: list[slice], prefixes: list[str], found: Identified, statements: Statements
) -> pd.DataFrame:
    """The rows whose genes are known, with the columns gene, or source_gene and target_gene; the others are counted."""
    numbers = [found.gene[part] for part in parts]
    keep = np.logical_and.reduce([number >= 0 for number in numbers])
    ambiguous = np.logical_or.reduce([found.is_ambiguous[part] for part in parts]) & ~keep
    statements.drop("ambiguous gene", int(ambiguous.sum()))
    statements.drop("unmapped gene", int((~keep & ~ambiguous).sum()))
    names = {prefix + name for prefix in prefixes for name in GENE_IDS}
    rest = table[[name for name in table if name not in names]][keep].reset_index(drop=True)
    return rest.assign(**{f"{prefix}gene": number[keep] for prefix, number in zip(prefixes, numbers, strict=True)})


def _filled(table: pd.DataFrame, values: dict[str, Any]) -> pd.DataFrame:
    for name, value in values.items():
        if name not in table:
            table[name] = value
        elif table[name].isna().any():
            column = table[name].astype(object)
            table[name] = column.where(column.notna(), value)
    table["score"] = pd.to_numeric(table["score"]).astype(np.float64)
    return table


def _terms(terms: pd.DataFrame | None, statements: Statements) -> pd.DataFrame:
    """One row per term, gene, category and sign: that with the highest score."""
    if terms is None:
        terms = pd.DataFrame({"term_id": [], "term_name": [], "gene": np.array([], dtype=np.int64)})
    terms = _filled(terms, {"score": np.nan, "evidence": "", "category": "", "negative": False})
    terms["negative"] = terms["negative"].astype(bool)
    return _highest(terms, ["term_id", "gene", "category", "negative"], statements)


def _parents(parents: pd.DataFrame, terms: pd.DataFrame | None, statements: Statements) -> pd.DataFrame:
    """Each pair once, without circles. A parent that the source does not name has the name that its statements give."""
    parents = parents.drop_duplicates(["term_id", "parent_id"], ignore_index=True)
    circular = closes_circle(parents)
    if circular.any():
        statements.notes.append(f"{int(circular.sum()):,} parents that close a circle were left out")
    parents = parents[~circular]
    name = parents["parent_name"] if "parent_name" in parents else pd.Series("", index=parents.index)
    if terms is not None:
        known = (
            terms[["term_id", "term_name"]].drop_duplicates("term_id").astype(object).set_index("term_id")["term_name"]
        )
        name = name.where(name != "", parents["parent_id"].map(known))
    return parents[["term_id", "parent_id"]].assign(parent_name=name.fillna(""))


def _left_out(statements: Statements, tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The marked terms that could have genes: those of the statements, and those above any."""
    terms, parents = tables[schema.TERMS_FILE], tables.get(schema.PARENTS_FILE)
    names = terms[["term_id", "term_name"]].drop_duplicates("term_id").astype(object)
    if parents is not None:
        above = parents[["parent_id", "parent_name"]].set_axis(["term_id", "term_name"], axis=1)
        names = pd.concat([names, above]).drop_duplicates("term_id")
    marked = names[names["term_id"].isin(statements.says_little)].sort_values("term_id", ignore_index=True)
    return marked.assign(reason=marked["term_id"].map(statements.says_little))


def _by_reason(tables: dict[str, pd.DataFrame]) -> dict[str, int]:
    table = tables.get(schema.LEFT_OUT_FILE)
    return {} if table is None else {str(reason): int(n) for reason, n in table["reason"].value_counts().items()}


def _edges(edges: pd.DataFrame, statements: Statements) -> pd.DataFrame:
    """One row per pair and category, of a regulon per pair, category and sign: that with the highest score.

    A pair of a network without directions stands once, whichever gene comes first in the database, and never of a gene with itself.
    """
    edges = _filled(edges, {"score": np.nan, "evidence": "", "category": "", "sign": 0})
    edges["sign"] = edges["sign"].astype(np.int8)
    if statements.directed:
        return _highest(edges, ["source_gene", "target_gene", "category", "sign"], statements)
    itself = (edges["source_gene"] == edges["target_gene"]).to_numpy()
    statements.drop("a gene with itself", int(itself.sum()))
    edges = edges[~itself]
    low, high = np.sort(edges[["source_gene", "target_gene"]].to_numpy(), axis=1).T
    return _highest(
        edges.assign(source_gene=low, target_gene=high), ["source_gene", "target_gene", "category"], statements
    )


def _highest(table: pd.DataFrame, names: list[str], statements: Statements) -> pd.DataFrame:
    """Of rows that agree in all these columns the first with the highest score, in the order of the table."""
    key = np.zeros(len(table), dtype=np.int64)
    for name in names:
        codes, distinct = pd.factorize(table[name])
        key = key * (len(distinct) + 1) + codes + 1
        if key.max(initial=0) > 1 << 40:  # far from what 64 bits hold, whatever the next column has
            key = pd.factorize(key)[0]
    order = np.lexsort((-table["score"].fillna(-np.inf).to_numpy(), key))
    first = np.sort(order[np.diff(key[order], prepend=-1) != 0])
    statements.drop("duplicate", len(table) - len(first))
    return table.iloc[first]


def _counts(statements: Statements, tables: dict[str, pd.DataFrame], found: Identified) -> dict[str, Any]:
    """Of rows and genes; rows_read + split = kept + the sum of dropped."""
    terms = tables[schema.TERMS_FILE]
    edges = tables.get(schema.EDGES_FILE)
    return {
        "rows_read": statements.rows_read, "split": statements.split, "kept": len(terms) + (0 if edges is None else len(edges)),
        "dropped": statements.dropped, **found.facts(), "negative": int(terms["negative"].sum()), "statements": len(terms),
        "terms": int(terms["term_id"].nunique()), "genes": int(terms["gene"].nunique()),
        "parents": len(tables.get(schema.PARENTS_FILE, ())), "left_out_terms": _by_reason(tables), "edges": 0 if edges is None else len(edges),
    }  # fmt: skip


def _arrow(name: str, file: str, table: pd.DataFrame, genes: pa.Table) -> pa.Table:
    """A table with the columns of its file, genes by their names again. Where rows repeat a few texts, they hold numbers of them."""
    columns = {}
    for column in schema.SCHEMAS[file]:
        end = next(
            (end for end in ("", *_ENDS) if column.name.removeprefix(end) in _IDENTITY and column.name.startswith(end)),
            None,
        )
        if column.name == "source":
            columns[column.name] = _repeated(np.zeros(len(table), dtype=np.int32), pa.array([name], pa.string()))
        elif end is not None:
            values = genes[column.name.removeprefix(end)].combine_chunks()
            columns[column.name] = _repeated(table[f"{end}gene"].to_numpy(np.int32), values)
        elif isinstance(table[column.name].dtype, pd.CategoricalDtype):
            columns[column.name] = pa.array(table[column.name])
        else:
            try:
                columns[column.name] = pa.array(table[column.name], column.type, from_pandas=True)
            except pa.ArrowException as error:
                raise ValueError(f"the reader of {name} gave {column.name} of another type: {error}") from None
    return pa.table(columns)


def _repeated(codes: npt.NDArray[np.int32], values: pa.Array) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes), values)


def _write(
    name: str, tables: dict[str, pd.DataFrame], genes: pd.DataFrame, facts: dict[str, Any], folder: Path
) -> None:
    """source.json comes last and goes first, so that a folder which has it is whole."""
    remove_leftovers(folder.parent)
    names = pa.table({column: pa.array(genes[column], pa.string()) for column in _IDENTITY})
    with temporary_folder(folder.parent, name) as temporary:
        arrow = {file: _arrow(name, file, table, names) for file, table in tables.items()}
        others = [arrow[file] for file in (schema.PARENTS_FILE, schema.LEFT_OUT_FILE) if file in arrow]
        beside = schema.content_of(facts["propagated"], *others) if others else ""
        for file, content in arrow.items():
            schema.write_table(temporary / file, content, beside if file == schema.TERMS_FILE else "")
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
