"""The tables of genes that HPO gives out, in the layout of today and in those of before June 2023."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.text_tables import opened, read_text_table

PHENOTYPES, PROPAGATED, DISEASES = "genes_to_phenotype.txt", "phenotype_to_genes.txt", "genes_to_disease.txt"
COLUMNS = {
    PHENOTYPES: ("ncbi_gene_id", "gene_symbol", "hpo_id", "hpo_name", "frequency", "disease_id"),
    PROPAGATED: ("hpo_id", "hpo_name", "ncbi_gene_id", "gene_symbol", "disease_id"),
    DISEASES: ("ncbi_gene_id", "gene_symbol", "association_type", "disease_id", "source"),
}
_FORMAT = "#format:"  # begins the first line of old files, which names their columns
_WITHOUT = ("frequency", "disease_id")  # columns that some old files do not have
_RAW, _BAND = "frequency-raw", "frequency-hpo"


def read_rows(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The columns of COLUMNS, all text, and what a person should know of the layout.

    Raises UserError for a layout that is not known, and for a file without rows.
    """
    with opened(path) as raw:
        first = raw.readline().decode("utf-8-sig", errors="replace").strip()
    if first.lower().startswith(_FORMAT):
        rows, notes = _of_format_line(path, first[len(_FORMAT) :].strip())
    else:
        missing = [name for name in _WITHOUT if name not in first.split("\t")] if path.name != DISEASES else []
        rows = read_text_table(path, [name for name in COLUMNS[path.name] if name not in missing])
        notes = _lacking(path, [name for name in missing if name in COLUMNS[path.name]])
        rows = rows.assign(**dict.fromkeys(missing, ""))
    if rows.empty:
        raise UserError(
            f"{path} has a header and no rows, as in the release of 2026-06-06; fetch {path.name} of another release"
        )
    return rows, notes


def _of_format_line(path: Path, line: str) -> tuple[pd.DataFrame, list[str]]:
    """A file of before 2023. In some releases the line has the id and the name of the term in the wrong order: the cells decide."""
    told = [name.strip() for name in line.replace("<tab>", "\t").split("\t")]
    names = [_today(name) for name in told]
    needed = ("ncbi_gene_id", "gene_symbol", "hpo_id", "hpo_name")
    rows = read_text_table(path, needed, optional=("disease_id", _RAW, _BAND), names=names, skip="#")
    notes = [f"{path.name} has a layout of before 2023 ({len(names)} columns)"]
    is_id = {name: rows[name].str.fullmatch(r"HP:\d{7}") for name in ("hpo_id", "hpo_name")}
    if not is_id["hpo_id"].all() and is_id["hpo_name"].all():
        rows = rows.rename(columns={"hpo_id": "hpo_name", "hpo_name": "hpo_id"})
        notes[0] += ", whose first line names the id and the name of a term in the wrong order"
    elif not is_id["hpo_id"].all():
        wrong = rows.loc[~is_id["hpo_id"], "hpo_id"].iloc[0]
        raise UserError(
            f"{path} holds {wrong[:40]!r} where an id like HP:0000118 is expected; it is cut off, or its layout has changed"
        )
    rows["frequency"] = rows[_RAW].where(rows[_RAW] != "", rows[_BAND])
    lacking = ["disease_id"] * ("disease_id" not in names)
    lacking += ["frequency"] * (_RAW not in names and path.name == PHENOTYPES)
    return rows.drop(columns=[_RAW, _BAND]), [*notes, *_lacking(path, lacking)]


def _today(name: str) -> str:
    """The name of today for a column of an old file: `entrez-gene-id`, `HPO-Term-Name`, `HPO label`, `disease-ID for link`."""
    low = name.lower()
    if low in (_RAW, _BAND):
        return low
    if low.startswith("disease-id"):
        return "disease_id"
    if "gene" in low:
        return "ncbi_gene_id" if low.endswith("id") else "gene_symbol"
    if low.startswith("hpo"):
        return "hpo_id" if low.endswith("id") else "hpo_name"
    return name


def _lacking(path: Path, columns: list[str]) -> list[str]:
    notes = []
    if "disease_id" in columns:
        notes.append(f"{path.name} does not say of which disease a phenotype is")
    if "frequency" in columns:
        notes.append(
            f"{path.name} gives no frequencies: phenotypes that a disease excludes cannot be told apart; a release since June 2023 has them"
        )
    return notes
