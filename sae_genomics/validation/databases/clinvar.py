"""ClinVar: genes and conditions by claim (gene_condition_source_id), and by classified variants (variant_summary)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.curies import curies
from sae_genomics.validation.normal_form.statements import Statements
from sae_genomics.validation.normal_form.text_batches import text_batches
from sae_genomics.validation.normal_form.text_tables import read_text_table

NAME = "clinvar"
CLAIMS = ("gene_condition_source_id",)
VARIANTS = ("variant_summary.txt.gz", "variant_summary.txt")
ASSOCIATED, RELATED = "associated", "related"
PATHOGENIC, BENIGN, CONFLICTING = "pathogenic", "benign", "conflicting"
# By text: ClinSigSimple is 1 for conflicting classifications, too.
_PATHOGENIC = r"(?i)(?:^|[;,/])\s*(?:likely )?pathogenic\b"
_BENIGN = r"(?i)(?:^|[;,/])\s*(?:likely )?benign\b"
_CONFLICTING = r"(?i)\bconflicting\b"
_STARS = {
    "practice guideline": 4.0,
    "reviewed by expert panel": 3.0,
    "criteria provided, multiple submitters, no conflicts": 2.0,
    "criteria provided, multiple submitters": 2.0,
    "criteria provided, single submitter": 1.0,
}
_NO_CONDITION = r"(?i)^(?:|-|na|not provided|not specified|see cases|\d+ conditions|allhighlypenetrant)$"
_NO_CONCEPT = ("C3661900", "CN517202", "CN169374", "CN221809")  # not provided, not specified
# From the most to the least useful id of a condition; each in both ways of writing its prefix.
_IDS = (
    (r"(?:^|,)(?:MONDO:)?(MONDO:\d+)", ""),
    (r"(?:^|,)OMIM:(\d{6})(?=,|$)", "OMIM:"),
    (r"(?:^|,)Orphanet:(?:ORPHA)?(\d+)", "ORPHA:"),
    (r"(?:^|,)(?:Human Phenotype Ontology:)?(HP:\d+)", ""),
    (r"(?:^|,)MedGen:(CN?\d+|\d+)", "MedGen:"),
)
_VARIANT_COLUMNS = (
    "GeneID", "GeneSymbol", "HGNC_ID", "ClinicalSignificance", "PhenotypeIDS", "PhenotypeList", "Assembly", "ReviewStatus",
)  # fmt: skip
_KEY = ["entrez_id", "term_id", "category"]


def read(folder: Path) -> Statements:
    """Statements of one file or of both. Raises UserError."""
    claims = [folder / name for name in CLAIMS if (folder / name).exists()]
    variants = [folder / name for name in VARIANTS if (folder / name).exists()][:1]
    if not claims and not variants:
        raise UserError(
            f"{NAME}: neither {CLAIMS[0]} nor {VARIANTS[0]} is in {folder}; run scripts/download_databases.py --only {NAME}"
        )
    statements = Statements()
    tables = [_claims(path, statements) for path in claims] + [_variants(path, statements) for path in variants]
    statements.terms = pd.concat(tables, ignore_index=True)
    for name in (*(CLAIMS if not claims else ()), *(VARIANTS[:1] if not variants else ())):
        statements.notes.append(f"{name} is not there")
    return statements


def _claims(path: Path, statements: Statements) -> pd.DataFrame:
    """One row per gene and condition. A condition repeats for each source that names it; the concept keeps them together."""
    needed = ("GeneID", "ConceptID", "DiseaseName", "SourceName", "SourceID", "DiseaseMIM")
    rows = read_text_table(path, needed, optional=("AssociatedGenes", "RelatedGenes", "GeneSymbol"))
    if not len(rows):
        raise UserError(f"{path} has a header and no rows; fetch it again")
    statements.rows_read += len(rows)
    rows = rows.apply(lambda column: column.str.strip())
    related = (rows["AssociatedGenes"] == "") & (rows["RelatedGenes"] != "")
    symbols = rows["AssociatedGenes"] + rows["RelatedGenes"].where(related, "") + rows["GeneSymbol"]
    unnamed = rows["DiseaseName"].str.match(_NO_CONDITION) | rows["ConceptID"].isin(_NO_CONCEPT)
    table = pd.DataFrame({
        "entrez_id": rows["GeneID"],
        "hgnc_id": "",
        "gene_symbol": symbols.mask(symbols.str.contains(r"[,;]"), ""),
        "term_id": _concepts(rows),
        "term_name": rows["DiseaseName"],
        "score": np.nan,
        "evidence": "gene-condition claim",
        "category": np.where(related, RELATED, ASSOCIATED),
        "negative": False,
    })  # fmt: skip
    no_gene = ~rows["GeneID"].str.fullmatch(r"\d+")
    no_id = table["term_id"] == ""
    statements.drop("no gene", no_gene.sum())
    statements.drop("no condition named", (unnamed & ~no_gene).sum())
    statements.drop("condition without an id", (no_id & ~unnamed & ~no_gene).sum())
    table = table[~(no_gene | unnamed | no_id)]
    again = table.duplicated(_KEY)
    statements.drop("duplicate", again.sum())
    return table[~again]


def _concepts(rows: pd.DataFrame) -> pd.Series:
    """One id per MedGen concept: its MONDO id, else its OMIM number, else the first other id, else the concept itself."""
    source = curies(rows["SourceID"])
    mondo = source.where(source.str.startswith("MONDO:"))
    omim = ("OMIM:" + rows["DiseaseMIM"]).where(rows["DiseaseMIM"].str.fullmatch(r"\d{6}"))
    other = source.where(source.str.match(r"(?:OMIM|ORPHA|HP|EFO|MESH):"))
    concept = rows["ConceptID"]
    itself = ("MedGen:" + concept).where(concept.str.fullmatch(r"CN?\d+|\d+"))
    # Rows without a concept are one group each.
    group = concept.where(concept != "", "row " + concept.index.astype(str).to_series(index=concept.index))
    best = pd.Series(np.nan, index=rows.index, dtype=object)
    for candidates in (mondo, omim, other, itself):
        best = best.fillna(candidates.groupby(group).transform("first"))
    return best.fillna("")


def _variants(path: Path, statements: Statements) -> pd.DataFrame:
    """One row per gene, condition, and pathogenic or benign, with the best review of any such variant."""
    parts, kept, first_row = [], 0, 0
    for batch in text_batches(path, _VARIANT_COLUMNS):
        batch.index = batch.index + first_row
        first_row += len(batch)
        table = _of_batch(batch, statements)
        kept += table["row"].nunique()
        parts.append(_best(table))
    if not parts:
        raise UserError(f"{path} has a header and no rows; fetch it again")
    statements.rows_read += first_row
    table = _best(pd.concat(parts, ignore_index=True))
    taken = int(table["row"].nunique())
    statements.drop("duplicate", kept - taken)
    statements.split += len(table) - taken
    return table.drop(columns="row")


def _best(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values([*_KEY, "score"], ascending=[True] * len(_KEY) + [False], kind="stable").drop_duplicates(
        _KEY
    )


def _of_batch(batch: pd.DataFrame, statements: Statements) -> pd.DataFrame:
    other_assembly = batch["Assembly"] != "GRCh38"  # each allele has a row per assembly
    statements.drop("another assembly than GRCh38", other_assembly.sum())
    batch = batch[~other_assembly]
    verdict = _verdicts(batch["ClinicalSignificance"])
    reason = np.select(
        [
            batch["GeneSymbol"].str.contains(r"[;,]") | batch["GeneID"].str.contains(r"[;,]"),
            ~batch["GeneID"].str.fullmatch(r"\d+"),
            verdict == CONFLICTING,
            verdict == "",
        ],
        ["several genes", "no gene", "conflicting classifications", "neither pathogenic nor benign"],
        "",
    )
    for name, rows in pd.Series(reason[reason != ""], dtype=object).value_counts().items():
        statements.drop(str(name), rows)
    batch = batch.assign(category=verdict)[reason == ""]
    conditions = _conditions(batch)
    statements.drop("no condition named, or none with an id", len(batch) - conditions.index.nunique())
    table = conditions.join(batch[["GeneID", "GeneSymbol", "HGNC_ID", "ReviewStatus", "category"]])
    symbol, hgnc = table["GeneSymbol"], table["HGNC_ID"]
    return pd.DataFrame({
        "row": table.index,
        "entrez_id": table["GeneID"],
        "hgnc_id": hgnc.where(hgnc.str.fullmatch(r"HGNC:\d+"), ""),
        "gene_symbol": symbol.mask(symbol == "-", ""),
        "term_id": table["term_id"],
        "term_name": table["term_name"],
        "score": table["ReviewStatus"].map(_STARS).fillna(0.0),
        "evidence": table["ReviewStatus"],
        "category": table["category"],
        "negative": table["category"] == BENIGN,
    }).reset_index(drop=True)  # fmt: skip


def _verdicts(meaning: pd.Series) -> pd.Series:
    """PATHOGENIC, BENIGN, CONFLICTING or empty text, looked up once per text."""
    text = pd.Series(meaning.unique(), dtype=object)
    verdict = np.select(
        [text.str.contains(_CONFLICTING), text.str.contains(_PATHOGENIC), text.str.contains(_BENIGN)],
        [CONFLICTING, PATHOGENIC, BENIGN],
        "",
    )
    return meaning.map(dict(zip(text, verdict.tolist(), strict=True)))


def _conditions(batch: pd.DataFrame) -> pd.DataFrame:
    """term_id and term_name by row, one per condition: `|` parts records, `;` the conditions of one, `,` the ids of a condition."""
    ids = batch["PhenotypeIDS"].str.split(r"[|;]", regex=True)
    names = batch["PhenotypeList"].str.split(r"[|;]", regex=True)
    agree = ids.str.len() == names.str.len()
    paired = pd.DataFrame({"ids": ids[agree], "name": names[agree]}).explode(["ids", "name"])
    alone = pd.DataFrame({"ids": ids[~agree].explode()}).assign(name=None)
    table = pd.concat([paired, alone]).astype(object)
    text = table["ids"].fillna("").astype(str).str.strip()
    best = pd.Series(np.nan, index=range(len(text)), dtype=object)
    for pattern, prefix in _IDS:
        best = best.fillna((prefix + text.str.extract(pattern)[0]).reset_index(drop=True))
    term_id = best.to_numpy()
    name = table["name"].fillna("").astype(str).str.strip()
    stands_for_none = name.str.match(_NO_CONDITION).to_numpy() & table["name"].notna().to_numpy()
    none = text.str.contains(rf"MedGen:(?:{'|'.join(_NO_CONCEPT)})\b").to_numpy()
    found = pd.DataFrame({"term_id": term_id, "term_name": name.to_numpy()}, index=table.index)
    found["term_name"] = found["term_name"].mask(found["term_name"] == "", found["term_id"])
    return found[pd.notna(term_id) & ~none & ~stands_for_none]
