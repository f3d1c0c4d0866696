"""Monarch: genes with diseases, causal and correlated, and with phenotypes. It collects OMIM, Orphanet, ClinVar and HPO."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from sae_genomics.errors import UserError
from sae_genomics.validation.databases.ontologies import HPO, MONDO, add_hierarchies
from sae_genomics.validation.normal_form.curies import curies
from sae_genomics.validation.normal_form.statements import Statements
from sae_genomics.validation.normal_form.text_tables import opened, read_text_table

NAME = "monarch"
# Of each category the names of its file; the second holds all species.
FILES = {
    "causal": "gene_disease.9606.tsv.gz",
    "noncausal": "gene_disease.noncausal.tsv.gz",
    "phenotype": "gene_phenotype.9606.tsv.gz",
}
# `negated` is filled where a row is negative, and may be empty, hold false elsewhere, or not be there.
_COLUMNS = ("subject", "subject_label", "object", "object_label")
_NEW, _OLD = (
    ("predicate", "primary_knowledge_source"),
    ("relation_label", "source"),
)  # the second in exports of 2019 to 2023
_CAUSAL = r"(?i)\bcaus|pathogenic"  # in those exports one file holds both kinds


def read(folder: Path) -> Statements:
    """One row per statement of a source of Monarch. Raises UserError."""
    paths = {category: path for category, name in FILES.items() if (path := _existing(folder, name)) is not None}
    if not paths:
        raise UserError(
            f"{NAME}: none of {', '.join(FILES.values())} is in {folder}; run scripts/download_databases.py --only {NAME}"
        )
    statements = Statements()
    tables = [_statements(path, category, statements) for category, path in paths.items()]
    statements.terms = pd.concat(tables, ignore_index=True)
    add_hierarchies(statements, folder, MONDO, HPO)
    for category in FILES.keys() - paths.keys():
        statements.notes.append(f"{FILES[category]} is not there: no statements of category {category}")
    return statements


def _existing(folder: Path, name: str) -> Path | None:
    return next((folder / each for each in (name, name.removesuffix(".gz")) if (folder / each).exists()), None)


def _statements(path: Path, category: str, statements: Statements) -> pd.DataFrame:
    rows = _rows(path, statements)
    if not len(rows):
        raise UserError(f"{path} has a header and no rows; fetch it again")
    statements.rows_read += len(rows)
    gene, term = rows["subject"].str.strip(), curies(rows["object"])
    no_human_gene = ~gene.str.fullmatch(r"HGNC:\d+")
    no_term = ~no_human_gene & ~term.str.fullmatch(r"[A-Za-z]+:\S+")
    statements.drop("no human gene", no_human_gene.sum())
    statements.drop("no disease or phenotype", no_term.sum())
    predicate = rows["predicate"].str.removeprefix("biolink:")
    return pd.DataFrame({
        "term_id": term,
        "term_name": rows["object_label"],
        "hgnc_id": gene,
        "gene_symbol": rows["subject_label"],
        "score": np.nan,
        "evidence": (predicate + " " + rows["primary_knowledge_source"]).str.strip(),
        "category": _category(predicate, category, path, rows),
        "negative": rows["negated"].str.strip().str.lower().isin(["true", "t", "1"]),
    })[~(no_human_gene | no_term)]  # fmt: skip


def _rows(path: Path, statements: Statements) -> pd.DataFrame:
    """The columns of today, whichever layout the file has."""
    rows = read_text_table(path, _COLUMNS, optional=(*_NEW, *_OLD, "relation", "negated"), quoted=True)
    with opened(path) as raw:
        header = raw.readline().decode("utf-8", "replace").rstrip("\r\n").replace('"', "").split("\t")
    if set(_NEW) & set(header):
        return rows.assign(is_old=False)
    if _OLD[0] not in header and "relation" not in header:
        raise UserError(f"{path} has no column {_NEW[0]!r}: its layout has changed, or it is another file")
    statements.notes.append(f"{path.name} has the layout of 2019 to 2023, which marks no row as negative")
    label = rows[_OLD[0]].where(rows[_OLD[0]] != "", rows["relation"])
    return rows.assign(predicate=label, primary_knowledge_source=rows[_OLD[1]], negated="", is_old=True)


def _category(predicate: pd.Series, category: str, path: Path, rows: pd.DataFrame) -> pd.Series:
    """That of the file; of an old file of diseases that of the relation."""
    both = rows["is_old"] & path.name.startswith("gene_disease")
    causal = predicate.str.contains(_CAUSAL)
    return pd.Series(category, index=rows.index).mask(both & causal, "causal").mask(both & ~causal, "noncausal")
