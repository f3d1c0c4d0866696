"""DisGeNET: saved answers of its REST interface (gda_pages.jsonl), and the tables that it gave out up to version 7."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.statements import Statements
from sae_genomics.validation.normal_form.text_tables import find, opened, read_text_table

NAME = "disgenet"
PAGES = "gda_pages.jsonl"  # one JSON answer per line, all pages of all requests
TABLES = tuple(
    f"{tier}_gene_disease_associations.tsv{ending}" for tier in ("curated", "all", "befree") for ending in (".gz", "")
)
_PAYLOAD = ("geneNcbiID", "symbolOfGene", "diseaseUMLSCUI", "diseaseName", "diseaseType", "score", "el")


def read(folder: Path) -> Statements:
    """One row per gene and disease. Raises UserError."""
    saved = sorted(path.name for pattern in ("*.json", "*.jsonl") for path in folder.glob(pattern))
    path = find(folder, (PAGES, *saved[:1], *TABLES), NAME)
    return _table(path) if path.name in TABLES else _pages(path)


def _pages(path: Path) -> Statements:
    answers = _answers(path)
    _check_totals(path, answers)
    payload = [row for answer in answers for row in answer["payload"]]
    rows = pd.DataFrame(payload, dtype=object)
    missing = [name for name in _PAYLOAD[:4] if name not in rows]
    if missing:
        raise UserError(
            f"{path}: its associations have no field {missing[0]!r}: the interface has changed, or nothing was found"
        )
    statements = Statements(rows_read=len(rows))
    texts = {name: _text(rows[name]) if name in rows else "" for name in _PAYLOAD if name != "score"}
    again = rows["assocID"].notna() & rows.duplicated("assocID") if "assocID" in rows else rows.index < 0
    table = pd.DataFrame({
        "cui": texts["diseaseUMLSCUI"],
        "term_name": texts["diseaseName"],
        "entrez_id": texts["geneNcbiID"],
        "gene_symbol": texts["symbolOfGene"],
        "score": pd.to_numeric(rows["score"], errors="coerce") if "score" in rows else np.nan,
        "evidence": texts["el"],
        "category": texts["diseaseType"],
    })  # fmt: skip
    statements.drop("duplicate", np.sum(again))
    statements.terms = _terms(table[~np.asarray(again, dtype=bool)], statements)
    warnings = {str(warning).strip() for answer in answers for warning in answer.get("warnings") or []}
    statements.notes += [f"DisGeNET warned: {warning}" for warning in sorted(warnings - {""})]
    return statements


def _answers(path: Path) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = []
    with opened(path) as raw:
        lines: list[bytes] = list(raw)
    if lines[0].strip() in (b"{", b"["):  # one answer, or a list of them, that was saved over several lines
        lines = [b"".join(lines)]
    for number, line in enumerate(lines, start=1):  # a line holds a page of a hundred associations
        if not line.strip():
            continue
        try:
            said = json.loads(line)
        except ValueError:
            raise UserError(f"{path} is damaged or cut off: line {number} is not JSON; fetch it again") from None
        for answer in said if isinstance(said, list) and said else [said]:
            if not isinstance(answer, dict) or not isinstance(answer.get("payload"), list):
                status = answer.get("status", "no status") if isinstance(answer, dict) else "no answer"
                raise UserError(
                    f"{path}: line {number} holds no associations ({status}): check DISGENET_API_KEY and fetch it again"
                )
            answers.append(answer)
    if not answers:
        raise UserError(f"{path} holds no answers; fetch it again")
    return answers


def _check_totals(path: Path, answers: list[dict[str, Any]]) -> None:
    """Compare the associations of each request with the number that the server says it has. A request's pages follow each other,
    and the next request begins when they are whole."""
    rows, announced = 0, None
    for number, answer in enumerate(answers, start=1):
        total = (answer.get("paging") or {}).get("totalElements")
        if not isinstance(total, int):
            raise UserError(f"{path}: answer {number} has no paging.totalElements: the interface has changed")
        if announced not in (None, total):
            break
        rows, announced = rows + len(answer["payload"]), total
        if rows == total:
            rows, announced = 0, None
    if announced is not None:
        raise UserError(
            f"{path} holds {rows:,} of {announced:,} associations of a request: pages are missing or repeated; fetch it again"
        )


def _table(path: Path) -> Statements:
    """The layouts with 16 and, before, 8 columns."""
    needed = ("geneId", "geneSymbol", "diseaseId", "diseaseName", "score", "source")
    try:
        rows = read_text_table(path, needed, optional=("diseaseType",), skip="#")
    except UserError as error:
        if "UTF" not in str(error).upper():
            raise
        rows = read_text_table(path, needed, optional=("diseaseType",), skip="#", encoding="latin-1")
    if not len(rows):
        raise UserError(f"{path} has a header and no rows; fetch it again")
    statements = Statements(rows_read=len(rows), version="7 or before")
    table = pd.DataFrame({
        "cui": rows["diseaseId"].str.replace(r"(?i)^umls:", "", regex=True),
        "term_name": rows["diseaseName"],
        "entrez_id": rows["geneId"],
        "gene_symbol": rows["geneSymbol"],
        "score": pd.to_numeric(rows["score"], errors="coerce"),
        "evidence": rows["source"],
        "category": rows["diseaseType"],
    })  # fmt: skip
    statements.terms = _terms(table, statements)
    return statements


def _terms(table: pd.DataFrame, statements: Statements) -> pd.DataFrame:
    """The rows with a gene and a disease."""
    gene = table["entrez_id"].str.fullmatch(r"\d+")
    disease = table["cui"].str.fullmatch(r"C\d{7}")
    statements.drop("no gene", (~gene).sum())
    statements.drop("no disease", (gene & ~disease).sum())
    rows = table[gene & disease]
    return rows.assign(term_id="UMLS:" + rows["cui"], negative=False).drop(columns="cui").reset_index(drop=True)


def _text(values: pd.Series) -> pd.Series:
    """Values of JSON as text, and nothing for null; a column with a null may have turned whole numbers into 1.0."""
    return values.fillna("").astype(str).str.strip().str.removesuffix(".0")
