"""Orphanet: genes of rare diseases (en_product6.xml) and, where it is there, the diseases' phenotypes (en_product4.xml)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
import pandas as pd

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.statements import Statements
from sae_genomics.validation.normal_form.text_tables import find, opened

GENES, PHENOTYPES = "en_product6.xml", "en_product4.xml"
LEFT_OUT = ("Candidate gene tested in", "Biomarker tested in")  # no claim that the gene causes the disease
ASSOCIATION = "DisorderGeneAssociation"
# Share of patients: the middle of each range.
BANDS = {
    "Obligate": 1.0, "Very frequent": 0.895, "Frequent": 0.545, "Occasional": 0.17, "Very rare": 0.025, "Excluded": 0.0,
}  # fmt: skip
Row = tuple[str, ...]
_GENE_COLUMNS = ["hgnc_id", "ensembl_id", "uniprot_id", "gene_symbol"]


def read(folder: Path) -> Statements:
    """Diseases as terms; with product 4 also phenotypes, through the disease. Raises UserError."""
    path = find(folder, (GENES,), "orphanet")
    version, rows = _table(path, _associations, ["orpha", "name", "group", *_GENE_COLUMNS, "type", "status"])
    statements = Statements(version=version, rows_read=len(rows))
    for kind in LEFT_OUT:
        statements.drop(kind, int((rows["type"] == kind).sum()))
    rows = rows[~rows["type"].isin(LEFT_OUT)]
    groups = int((~rows["group"].isin(["Disorder", ""])).sum())  # old files do not say it
    if groups:
        statements.notes.append(
            f"{groups:,} associations are of groups of disorders or subtypes of one, beside the disorders"
        )
    statements.terms = pd.DataFrame({
        "term_id": "ORPHA:" + rows["orpha"], "term_name": rows["name"], **{name: rows[name] for name in _GENE_COLUMNS},
        "score": np.nan, "evidence": rows["type"], "category": rows["status"], "negative": False,
    }).reset_index(drop=True)  # fmt: skip
    if (folder / PHENOTYPES).exists():
        _add_phenotypes(statements, folder / PHENOTYPES)
    return statements


def _add_phenotypes(statements: Statements, path: Path) -> None:
    """A gene gets the phenotypes of its diseases, and those that a disease excludes as negative statements."""
    _, rows = _table(path, _phenotypes, ["orpha", "hpo_id", "hpo_name", "frequency"])
    assert statements.terms is not None
    genes = statements.terms[["term_id", *_GENE_COLUMNS]].drop_duplicates()
    both = rows.assign(disease="ORPHA:" + rows["orpha"]).merge(genes, how="left", left_on="disease", right_on="term_id")
    statements.rows_read += len(both)
    alone = both["term_id"].isna()
    statements.drop("phenotype of a disease without a gene", int(alone.sum()))
    both = both[~alone]
    share = both["frequency"].str.split("(").str[0].str.strip().map(BANDS).astype(float)
    added = pd.DataFrame({
        "term_id": both["hpo_id"], "term_name": both["hpo_name"], **{name: both[name] for name in _GENE_COLUMNS},
        "score": share, "evidence": both["disease"], "category": "phenotype", "negative": share == 0.0,
    })  # fmt: skip
    statements.terms = pd.concat([statements.terms, added], ignore_index=True)
    statements.notes.append(
        f"phenotypes are those of a gene's diseases in {path.name}; HPO's files hold the same: do not count them beside that source"
    )


def _table(
    path: Path, rows_of: Callable[[ElementTree.Element], list[Row]], columns: list[str]
) -> tuple[str, pd.DataFrame]:
    """The date of the release, and a row for each association. Raises UserError for damaged XML, and for none."""
    _refuse_document_types(path)
    rows: list[Row] = []
    version = ""
    with opened(path) as raw:
        try:
            for element in _disorders(raw):
                if element.tag == "JDBOR":
                    version = element.get("date", "")[:10]
                else:
                    rows += rows_of(element)
        except ElementTree.ParseError as error:
            raise UserError(f"{path} is damaged or cut off ({error}); fetch it again") from None
    if not version:
        raise UserError(f"{path} is not a file of Orphanet: its root is not JDBOR with a date; fetch it again")
    if not rows:
        raise UserError(f"{path} holds no associations: its layout has changed, or it is another product of Orphanet")
    return version, pd.DataFrame(rows, columns=columns, dtype=object)


def _disorders(raw: IO[bytes]) -> Iterator[ElementTree.Element]:
    """The root when it begins, then each disorder when it is whole; the parser decodes as the file declares."""
    events = ElementTree.iterparse(raw, events=("start", "end"))
    root = next(events)[1]
    yield root
    for event, element in events:
        if event == "end" and element.tag == "Disorder":
            yield element
            element.clear()


def _refuse_document_types(path: Path) -> None:
    """Raise UserError for a document type: entities could name other files, or grow without end. Orphanet has none."""

    def refuse(*_: object) -> None:
        raise UserError(f"{path} declares a document type, which the files of Orphanet do not; fetch it again")

    def stop(*_: object) -> None:
        raise StopIteration

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = stop
    with opened(path) as raw:
        try:
            while part := raw.read(1 << 16):
                parser.Parse(part, False)
        except StopIteration:  # the root begins: a document type can no longer follow
            return
        except expat.ExpatError as error:
            raise UserError(f"{path} is not XML ({error}); fetch it again") from None


def _associations(disorder: ElementTree.Element) -> list[Row]:
    """One row for each gene of a disorder. Paths are whole, since Name stands at five levels."""
    facts = (_code(disorder), _text(disorder, "Name"), _text(disorder, "DisorderGroup/Name"))
    rows: list[Row] = []
    for each in disorder.iterfind(f"{ASSOCIATION}List/{ASSOCIATION}"):
        references: dict[str, str] = {}
        for reference in each.iterfind("Gene/ExternalReferenceList/ExternalReference"):
            references.setdefault(_text(reference, "Source"), _text(reference, "Reference"))
        hgnc = references.get("HGNC", "").removeprefix("HGNC:")
        rows.append((
            *facts, f"HGNC:{hgnc}" if hgnc else "", references.get("Ensembl", ""), references.get("SwissProt", ""),
            _text(each, "Gene/Symbol"), _text(each, f"{ASSOCIATION}Type/Name"), _text(each, f"{ASSOCIATION}Status/Name"),
        ))  # fmt: skip
    return rows


def _phenotypes(disorder: ElementTree.Element) -> list[Row]:
    code = _code(disorder)
    return [
        (code, _text(each, "HPO/HPOId"), _text(each, "HPO/HPOTerm"), _text(each, "HPOFrequency/Name"))
        for each in disorder.iterfind("HPODisorderAssociationList/HPODisorderAssociation")
    ]


def _code(disorder: ElementTree.Element) -> str:
    """The number of a disorder; files of before 2020 call it OrphaNumber."""
    return _text(disorder, "OrphaCode") or _text(disorder, "OrphaNumber")


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()
