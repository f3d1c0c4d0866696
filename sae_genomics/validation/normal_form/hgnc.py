"""Gene identity: what a database calls a gene -> HGNC id, Ensembl id and current symbol, by one table of HGNC.

Ids come before symbols: HGNC, Ensembl, Entrez, UniProt; then the current symbol, a previous one, an alias, each as it is written and
then in capitals. What fits several genes of the table is ambiguous: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.statements import GENE_IDS
from sae_genomics.validation.normal_form.text_tables import find, read_text_table

NAMES = ("hgnc_complete_set.txt", "hgnc_complete_set.tsv")
MONTHLY = "hgnc_complete_set_*.t[sx][vt]"
WHOLE_TABLE = 10_000  # a table of fewer genes is an excerpt
_NEEDED = ("hgnc_id", "symbol", "status", "alias_symbol", "prev_symbol", "entrez_id", "ensembl_gene_id", "uniprot_ids")
_GROUP_NAMES = {"gene_group": "gene_family", "gene_group_id": "gene_family_id"}  # new name -> old name
_NONE, _AMBIGUOUS = -1, -2
# How symbols of the mouse are written; those of man are in capitals.
_MOUSE = r"[A-Z][a-z][A-Za-z0-9]*(?:[-.][A-Za-z0-9]+)?|H2-[A-Z][a-z]*[0-9]*|[0-9]{7}[A-Z][0-9]{2}Rik"
_ENSEMBL = r"ENSG\d{11}(?:_PAR_Y)?"


def find_table(folder: Path) -> Path:
    """HGNC's complete set in a folder; of several monthly ones the newest. Raises UserError where there is none."""
    monthly = sorted(folder.glob(MONTHLY)) if folder.is_dir() else []
    return find(folder, [*NAMES, *(path.name for path in monthly[-1:])], "hgnc")


def read_hgnc(path: Path) -> pd.DataFrame:
    """One row per entry of HGNC's complete set, withdrawn ones too; all text. Both the 52 and the 53 columns are known.

    Columns: hgnc_id, symbol, status, alias_symbol, prev_symbol, entrez_id, ensembl_gene_id, uniprot_ids, locus_group, gene_group and
    gene_group_id; several values in a cell stand between bars. Raises UserError for anything else.
    """
    groups = [*_GROUP_NAMES, *_GROUP_NAMES.values()]
    table = read_text_table(path, _NEEDED, optional=["locus_group", *groups], quoted=True, short_rows=True)
    if table.empty:
        raise UserError(f"{path} has a header and no genes; fetch it again")
    wrong = ~table["hgnc_id"].str.fullmatch(r"HGNC:\d+")
    if wrong.any():
        raise UserError(
            f"{path}: {table.loc[wrong, 'hgnc_id'].iloc[0]!r} is no HGNC id; its layout has changed, or it is another file"
        )
    for new, old in _GROUP_NAMES.items():
        table[new] = table[new].where(table[new] != "", table[old])
    return table.drop(columns=list(_GROUP_NAMES.values()))


def is_withdrawn(table: pd.DataFrame) -> pd.Series:
    """Which entries of `read_hgnc` are no genes any more. Raises UserError where no entry is approved."""
    withdrawn = table["status"].str.contains("withdrawn", case=False)
    if withdrawn.all():
        raise UserError("hgnc: every entry of the table is withdrawn; fetch it again")
    return withdrawn


@dataclass
class Genes:
    """The genes that names are looked up in.

    table: hgnc_id, symbol, ensembl_id; one row per approved gene. keys: for each kind of GENE_IDS the lookups in their order, each
    from a key to a row of `table`, or to _AMBIGUOUS. sha256: of the file; empty where there is none.
    """

    table: pd.DataFrame
    keys: dict[str, list[pd.Series]]
    sha256: str = ""

    @property
    def is_excerpt(self) -> bool:
        """Whether genes may be missing that exist: then names that are not found say nothing about the database."""
        return len(self.table) < WHOLE_TABLE


def no_genes() -> Genes:
    """What stands for the table where there is none."""
    return Genes(pd.DataFrame({"hgnc_id": [], "symbol": [], "ensembl_id": []}, dtype=object), {})


def make_genes(entries: pd.DataFrame, sha256: str = "") -> Genes:
    """From what `read_hgnc` gives. Withdrawn entries name no gene."""
    entries = entries[~is_withdrawn(entries)].reset_index(drop=True)
    current, previous, alias = (_split(entries[name]) for name in ("symbol", "prev_symbol", "alias_symbol"))
    exact = [_lookup(symbols) for symbols in (current, previous, alias)]
    capitals = [_lookup(symbols.str.upper()) for symbols in (current, previous, alias)]
    keys = {
        "hgnc_id": [_lookup(entries["hgnc_id"])],
        "ensembl_id": [_lookup(_split(entries["ensembl_gene_id"]))],
        "entrez_id": [_lookup(_split(entries["entrez_id"]))],
        "uniprot_id": [_lookup(_split(entries["uniprot_ids"]))],
        "gene_symbol": exact + capitals,
    }
    table = entries[["hgnc_id", "symbol"]].assign(ensembl_id=entries["ensembl_gene_id"].str.split("|").str[0])
    return Genes(table, keys, sha256)


def _split(cells: pd.Series) -> pd.Series:
    """One row per value of cells such as `A|B`, under the index of its cell; empty cells have none."""
    values = cells[cells != ""].str.split("|").explode().str.strip()
    return values[values != ""]


def _lookup(values: pd.Series) -> pd.Series:
    """Key -> row of the gene table that has it, _AMBIGUOUS where several rows have it."""
    pairs = pd.DataFrame({"key": values.to_numpy(dtype=object), "row": values.index.to_numpy()}).drop_duplicates()
    rows: pd.Series = pairs.drop_duplicates("key").set_index("key")["row"].astype(np.int64)
    rows[pairs.loc[pairs.duplicated("key"), "key"].unique()] = _AMBIGUOUS
    return rows


@dataclass
class Identified:
    """Genes that were looked up.

    genes: gene_symbol, ensembl_id, hgnc_id of every distinct gene, None where not known. gene: its row for each row that was asked
    for, -1 where that names no gene that can be used. is_ambiguous: whether it was left out for fitting several. The counts are of
    distinct names.
    """

    genes: pd.DataFrame
    gene: np.ndarray
    is_ambiguous: np.ndarray
    n_genes: int = 0
    n_unmapped: int = 0
    n_ambiguous: int = 0
    examples: list[str] = field(default_factory=list)
    like_mouse: float = 0.0
    """share of the names that are symbols alone, and written as those of the mouse are"""
    mouse_example: str = ""

    @property
    def unmapped_share(self) -> float:
        return self.n_unmapped / self.n_genes if self.n_genes else 0.0

    def facts(self) -> dict[str, Any]:
        """For source.json."""
        return {
            "distinct_genes_named": self.n_genes,
            "unmapped_genes": self.n_unmapped,
            "unmapped_share": round(self.unmapped_share, 6),
            "ambiguous_genes": self.n_ambiguous,
        }


def identify(names: pd.DataFrame, genes: Genes) -> Identified:
    """Look up every row of `names`, which has columns of GENE_IDS; empty text or None where a kind of id is not given.

    Where `genes` is an excerpt, what it does not know keeps its own symbol and Ensembl id.
    """
    columns = [name for name in GENE_IDS if name in names]
    if not columns:
        raise ValueError(f"a reader gave no column of {', '.join(GENE_IDS)}")
    codes, first = _distinct([names[name] for name in columns])
    distinct = names[columns].iloc[first].astype(object).fillna("").astype(str).reset_index(drop=True)
    distinct = _normal(distinct.apply(lambda column: column.str.strip()))
    row = np.full(len(distinct), _NONE, dtype=np.int64)
    ambiguous = np.zeros(len(distinct), dtype=bool)
    for keys, lookup in _lookups(distinct, genes):
        # A symbol that fits several genes is not looked for among weaker symbols; an id may still be followed by a clear one.
        found = np.where(row >= 0, row, keys.map(lookup).fillna(_NONE).to_numpy(dtype=np.int64))
        is_symbol = keys.name == "gene_symbol"
        row = np.where((row == _AMBIGUOUS) & is_symbol, row, found)
        ambiguous |= row == _AMBIGUOUS
        if not is_symbol:
            row[row == _AMBIGUOUS] = _NONE
    return _identified(distinct, row, ambiguous, genes, codes)


def _lookups(distinct: pd.DataFrame, genes: Genes) -> Iterator[tuple[pd.Series, pd.Series]]:
    """Names, and where to look them up, in the order that counts."""
    for kind in GENE_IDS:
        if kind not in distinct:
            continue
        for i, lookup in enumerate(genes.keys.get(kind, [])):
            capitals = kind == "gene_symbol" and i >= 3
            yield (distinct[kind].str.upper() if capitals else distinct[kind]), lookup


def _distinct(columns: list[pd.Series]) -> tuple[np.ndarray, np.ndarray]:
    """A number for every row, the same for the same values, and the first row of each number."""
    codes = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        values, distinct = pd.factorize(column)
        codes = pd.factorize(codes * (len(distinct) + 1) + values + 1)[0].astype(np.int64)
    return codes, np.unique(codes, return_index=True)[1]


def _normal(names: pd.DataFrame) -> pd.DataFrame:
    """Two habits that are no error: an HGNC id as a bare number, and an Ensembl id with its version."""
    if "hgnc_id" in names:
        names["hgnc_id"] = names["hgnc_id"].str.replace(r"^(\d+)$", r"HGNC:\1", regex=True)
    if "ensembl_id" in names:
        names["ensembl_id"] = names["ensembl_id"].str.replace(rf"^({_ENSEMBL})\.\d+$", r"\1", regex=True)
    return names


def _identified(
    distinct: pd.DataFrame, row: np.ndarray, ambiguous: np.ndarray, genes: Genes, codes: np.ndarray
) -> Identified:
    mapped, empty = row >= 0, pd.Series("", index=distinct.index)
    ambiguous = ambiguous & ~mapped
    own_symbol = distinct.get("gene_symbol", empty)
    own_ensembl = distinct.get("ensembl_id", empty)
    own_ensembl = own_ensembl.where(own_ensembl.str.fullmatch(_ENSEMBL), "")
    named = (distinct != "").any(axis=1).to_numpy()
    unmapped = named & ~mapped & ~ambiguous
    own = unmapped & ((own_symbol != "") | (own_ensembl != "")).to_numpy() & genes.is_excerpt
    known = genes.table.reindex(np.where(mapped, row, _NONE)).reset_index(drop=True).fillna("")
    ensembl = known["ensembl_id"].where(known["ensembl_id"] != "", own_ensembl)
    result = pd.DataFrame({
        "gene_symbol": known["symbol"].where(mapped, own_symbol), "ensembl_id": ensembl, "hgnc_id": known["hgnc_id"],
    })  # fmt: skip
    result = result.astype(object).where(result != "", None)
    # One row per gene, so that many rows that name it are told apart by a number.
    key = result["hgnc_id"].combine_first(result["ensembl_id"]).combine_first(result["gene_symbol"])
    number = pd.factorize(key.where(mapped | own), sort=True)[0]
    used = np.flatnonzero(number >= 0)
    first = used[np.unique(number[used], return_index=True)[1]]
    alone = named & (distinct.drop(columns="gene_symbol", errors="ignore") == "").all(axis=1).to_numpy()
    exact = genes.keys["gene_symbol"][0].index if "gene_symbol" in genes.keys else pd.Index([])
    mouse = own_symbol[alone & own_symbol.str.fullmatch(_MOUSE).to_numpy() & ~own_symbol.isin(exact).to_numpy()]
    examples = distinct[unmapped].head(3).agg(lambda cells: next(cell for cell in cells if cell), axis=1)
    return Identified(
        result.iloc[first].reset_index(drop=True), number[codes], ambiguous[codes],
        int(named.sum()), int(unmapped.sum()), int(ambiguous.sum()), examples.tolist() if unmapped.any() else [],
        len(mouse) / max(1, int(named.sum())), str(mouse.iloc[0]) if len(mouse) else "",
    )  # fmt: skip


def refuse_unmapped(source: str, found: Identified, genes: Genes, limit: float) -> str:
    """A sentence on the share of genes that the table does not know; empty where it is none.

    Raises UserError where it is above `limit` and the table is whole: then ids are read wrong. So it does where more symbols than that
    are written as those of the mouse are: in capitals most of them would be human ones, without a word.
    """
    if found.like_mouse > limit:
        raise UserError(
            f"{source}: {found.like_mouse:.0%} of the genes are written as those of the mouse are, for example {found.mouse_example}; "
            "take the file of human genes"
        )
    if not found.n_unmapped:
        return ""
    of = f"{found.n_unmapped:,} of {found.n_genes:,} genes ({found.unmapped_share:.1%})"
    examples = ", ".join(found.examples)
    if genes.is_excerpt:
        table = f"an excerpt of {len(genes.table):,} genes" if len(genes.table) else "not there"
        return f"the HGNC table is {table}: {of} keep the symbol and the Ensembl id of {source}, for example {examples}"
    if found.unmapped_share > limit:
        raise UserError(
            f"{source}: the HGNC table does not know {of}, for example {examples}; more than {limit:.0%} says that a prefix is read wrong "
            f"or that these are not human genes: look at the files, or raise unmapped_limit of {source} in configs/databases.yaml"
        )
    return f"the HGNC table does not know {of}, for example {examples}; they are left out"
