"""OMIM: genes and the phenotypes that they underlie (genemap2.txt, or without it morbidmap.txt, which has a row per phenotype).

A cell of phenotypes holds them apart by `;`. Each is `NAME, NUMBER (KEY), INHERITANCE`, or without a number of its own
`NAME (KEY), INHERITANCE`. Around the name, `[ ]` says a non-disease, `{ }` a susceptibility or resistance, `?` a provisional claim.
Keys: 1 association, 2 linkage, 3 the molecular basis is known, 4 a deletion or duplication of several genes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.statements import Statements
from sae_genomics.validation.normal_form.text_tables import find, opened

NAME = "omim"
FILE, BY_PHENOTYPE, NUMBERS = "genemap2.txt", "morbidmap.txt", "mim2gene.txt"
FIRST_COLUMNS = {FILE: "Chromosome", BY_PHENOTYPE: "Phenotype", NUMBERS: "MIM Number"}
MENDELIAN, SUSCEPTIBILITY = "MENDELIAN", "SUSCEPTIBILITY"
_KEYS = {
    "1": "key 1 (association)",
    "2": "key 2 (linkage)",
    "4": "key 4 (deletion or duplication of several genes)",
}
# Names of the columns since October 2023, and before.
_NAMES = {
    "mim": ("MIM Number", "Mim Number"),
    "gene_symbol": ("Approved Gene Symbol", "Approved Symbol"),
    "entrez_id": ("Entrez Gene ID",),
    "ensembl_id": ("Ensembl Gene ID",),
    "phenotypes": ("Phenotypes",),
}
_NAMES_BY_PHENOTYPE = {
    "phenotypes": ("Phenotype",),
    "symbols": ("Gene Symbols", "Gene/Locus And Other Related Symbols"),
    "mim": ("MIM Number", "Mim Number"),
}
_NAMES_OF_NUMBERS = {
    "mim": ("MIM Number", "Mim Number"),
    "gene_symbol": ("Approved Gene Symbol (HGNC)", "Approved Gene Symbol"),
    "entrez_id": ("Entrez Gene ID (NCBI)", "Entrez Gene ID"),
    "ensembl_id": ("Ensembl Gene ID (Ensembl)", "Ensembl Gene ID"),
}
_OWN_NUMBER = r"^(.*),\s(\d{6})\s\((\d)\)(?:|, .*)$"
_NO_NUMBER = r"^(.*)\((\d)\)(?:|, .*)$"
_GENERATED = "# Generated: "


def read(folder: Path) -> Statements:
    """One row per gene and phenotype. A row of the file is counted as dropped where none of its phenotypes is taken. Raises UserError."""
    path = find(folder, (FILE, BY_PHENOTYPE), NAME)
    if path.name == FILE:
        rows, version = _rows(path, _NAMES)
        rows["ensembl_id"] = rows["ensembl_id"].str.split(",").str[0]  # old files add transcripts
    else:
        rows, version = _rows(path, _NAMES_BY_PHENOTYPE)
        rows = _with_genes(rows, folder)
    statements = Statements(version=version, rows_read=len(rows))
    if path.name != FILE:
        statements.notes.append(f"read {path.name}: {FILE} is not there, which gives genes by their ids")
    gene = (rows[["gene_symbol", "entrez_id", "ensembl_id"]] != "").any(axis=1)
    has_phenotype = rows["phenotypes"] != ""
    statements.drop("no gene", (~gene).sum())
    statements.drop("no phenotype", (gene & ~has_phenotype).sum())
    rows = rows[gene & has_phenotype]
    phenotypes = _phenotypes(rows["phenotypes"], several=path.name == FILE)
    if len(phenotypes) and not (phenotypes["key"] != "").any():
        raise UserError(f"{path}: no phenotype has the form NAME, NUMBER (KEY): its layout has changed; fetch it again")
    taken = phenotypes["reason"] == ""
    # A row of which no phenotype is taken is counted under the reason of its first one.
    lost = phenotypes[~phenotypes.index.isin(phenotypes.index[taken])]
    for reason, count in lost.groupby(level=0)["reason"].first().value_counts().items():
        statements.drop(f"phenotype: {reason}", count)
    for reason, count in phenotypes.loc[~taken, "reason"].value_counts().items():
        statements.notes.append(f"phenotypes left out, {reason}: {count:,} of {len(phenotypes):,}")
    table = phenotypes[taken].join(rows[["mim", "gene_symbol", "entrez_id", "ensembl_id"]])
    statements.split = len(table) - table.index.nunique()
    numbered = table["number"] != ""
    if not numbered.all():
        statements.notes.append(
            f"{(~numbered).sum():,} phenotypes have no number of their own and stand under their gene's"
        )
    statements.terms = pd.DataFrame({
        "term_id": "OMIM:" + table["number"].where(numbered, table["mim"]),
        "term_name": table["name"],
        "gene_symbol": table["gene_symbol"],
        "entrez_id": table["entrez_id"],
        "ensembl_id": table["ensembl_id"],
        "score": np.nan,
        "evidence": "key " + table["key"],
        "category": table["category"],
        "negative": False,
    }).reset_index(drop=True)  # fmt: skip
    return statements


def _with_genes(rows: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Rows of morbidmap with the columns of a gene. The first of its symbols is the approved one, the others are older names.

    mim2gene.txt, where it is there, gives the ids of a gene by its number. The number of a locus without a gene is that of a phenotype.
    """
    rows = rows.assign(gene_symbol=rows["symbols"].str.split(",").str[0].str.strip(), entrez_id="", ensembl_id="")
    if not (folder / NUMBERS).exists():
        return rows
    table, _ = _rows(folder / NUMBERS, _NAMES_OF_NUMBERS)
    ids = table.drop_duplicates("mim").set_index("mim").reindex(rows["mim"]).set_axis(rows.index).fillna("")
    return rows.assign(
        gene_symbol=ids["gene_symbol"].where(ids["gene_symbol"] != "", rows["gene_symbol"]),
        entrez_id=ids["entrez_id"], ensembl_id=ids["ensembl_id"].str.split(",").str[0],
    )  # fmt: skip


def _rows(path: Path, names: Mapping[str, tuple[str, ...]]) -> tuple[pd.DataFrame, str]:
    """The rows, columns named as the keys of `names`, and the day when the file was generated. The header is a comment, and notes follow
    the last row; rows may end early, after the last cell that is not empty."""
    with opened(path) as raw, io.TextIOWrapper(raw, encoding="utf-8", newline="") as text:
        try:
            lines = pd.Series(text.read().split("\n"), dtype=object).str.removesuffix("\r")
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not utf-8 text ({error.reason}); fetch it again") from None
    comment = lines.str.startswith("#")
    first = FIRST_COLUMNS[path.name]
    headers = lines[comment & lines.str.match(rf"#\s*{first}\t")]
    if headers.empty:
        raise UserError(
            f"{path} has no header line '# {first} …' among its comments: it is cut off or another file; fetch it again"
        )
    header = headers.iloc[0].removeprefix("#").strip().split("\t")
    columns = {column: _column(path, header, known) for column, known in names.items()}
    cells = lines[~comment & (lines.str.strip() != "")].str.split("\t")
    if cells.empty:
        raise UserError(f"{path} has a header and no rows; fetch it again")
    counts = cells.str.len()
    # Rows may end early, after the last cell that is not empty; the columns of genemap2 up to the ids are always there.
    least = columns["ensembl_id"] if path.name == FILE else columns["mim"]
    wrong = (counts > len(header)) | (counts <= least)
    if wrong.any():
        raise UserError(
            f"{path} is damaged or cut off: line {cells.index[wrong][0] + 1} has {counts[wrong].iloc[0]} cells and its header {len(header)}; fetch it again"
        )
    rows = pd.DataFrame({column: cells.str[at].fillna("").str.strip() for column, at in columns.items()})
    generated = lines[comment & lines.str.startswith(_GENERATED)]
    return rows, generated.iloc[0].removeprefix(_GENERATED).strip() if len(generated) else ""


def _column(path: Path, header: list[str], names: tuple[str, ...]) -> int:
    position = next((header.index(name) for name in names if name in header), None)
    if position is None:
        raise UserError(
            f"{path} has no column {names[0]!r}; it begins with {', '.join(header)[:120]}: its layout has changed, or it is another file"
        )
    return position


def _phenotypes(cells: pd.Series, several: bool) -> pd.DataFrame:
    """name, number, key, category and reason (why it is left out; empty: it is taken) by row, one per phenotype.

    several: whether `;` parts the phenotypes of a cell.
    """
    text = (cells.str.split(";").explode() if several else cells).str.strip()
    text = text[text != ""]
    own = text.str.extract(_OWN_NUMBER)
    short = text.str.extract(_NO_NUMBER)
    name = own[0].fillna(short[0]).fillna(text).str.strip()
    key = own[2].fillna(short[1]).fillna("")
    marks = name.str.extract(r"^([\[\]{}?:\s]*)")[0]
    reason = np.select(
        [key == "", marks.str.contains("?", regex=False), marks.str.contains("[", regex=False), key != "3"],
        ["not of a known form", "provisional (?)", "non-disease ([ ])", key.map(_KEYS).fillna("unknown key")],
        "",
    )
    susceptibility = name.str.contains("{", regex=False)
    return pd.DataFrame({
        "name": name.str.strip(" []{}?,:"),
        "number": own[1].fillna(""),
        "key": key,
        "category": np.where(susceptibility, SUSCEPTIBILITY, MENDELIAN),
        "reason": reason,
    }, index=text.index)  # fmt: skip
