"""Reactome: its pathways as gene sets, all levels, and which pathway stands above which.

In this GMT the first column is the name and the second the id, the reverse of other GMT files. Without it, a table of genes and pathways
is read, such as Ensembl2Reactome.txt: those with `_All_Levels` in their name hold the pathways above, too, the others the lowest alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.gmt import read_gmt_rows
from sae_genomics.validation.normal_form.statements import Statements
from sae_genomics.validation.normal_form.text_tables import find, read_text_table

SETS = ("ReactomePathways.gmt.zip", "ReactomePathways.gmt")
# Of each kind of id the tables, the one with all levels first.
TABLES = {
    f"{ids}2Reactome{levels}.txt": (column, levels != "")
    for ids, column in (("Ensembl", "ensembl_id"), ("NCBI", "entrez_id"), ("UniProt", "uniprot_id"))
    for levels in ("_All_Levels", "")
}
_TABLE_COLUMNS = ("id", "term_id", "url", "term_name", "evidence", "species")
_GENE = r"ENSG\d+(?:\.\d+)?"
RELATION = "ReactomePathwaysRelation.txt"
PAIR = ("parent_id", "term_id")
HUMAN = "R-HSA-"


def read(folder: Path) -> Statements:
    """Statements of the gene sets; parents where the relations are there. Raises UserError."""
    path = find(folder, (*SETS, *TABLES), "reactome")
    statements = _sets(path) if path.name in SETS else _table(path)
    if (folder / RELATION).exists():
        statements.parents = _parents(folder / RELATION)
    else:
        statements.notes.append(f"{RELATION} is not there: the pathways have no hierarchy")
    return statements


def _sets(path: Path) -> Statements:
    rows, notes = read_gmt_rows(path)
    if not rows["description"].str.match(r"R-[A-Z]{3}-\d").any():
        raise UserError(
            f"{path}: its second column holds no ids like {HUMAN}1234 but {rows['description'][0][:40]!r}; it is not the GMT file of Reactome"
        )
    statements = Statements(propagated=True, rows_read=len(rows), notes=notes)
    statements.notes.append(
        "the gene sets hold the genes of the pathways below them already; they must not be propagated again"
    )
    human = rows["description"].str.startswith(HUMAN)
    statements.drop("not a human pathway", int((~human).sum()))
    rows = rows[human]
    twice = rows.duplicated(["description", "gene"])
    statements.drop("duplicate", int(twice.sum()))
    rows = rows[~twice]
    statements.terms = pd.DataFrame({
        "term_id": rows["description"], "term_name": rows["name"], "gene_symbol": rows["gene"], "score": np.nan, "evidence": "",
        "category": "pathway", "negative": False,
    }).reset_index(drop=True)  # fmt: skip
    return statements


def _table(path: Path) -> Statements:
    """Ids and pathways of all species, without a header. Ensembl's table repeats a gene by its proteins and transcripts."""
    column, propagated = TABLES[path.name]
    rows = read_text_table(path, ("id", "term_id", "term_name", "evidence"), names=_TABLE_COLUMNS)
    if not rows["term_id"].str.fullmatch(r"R-[A-Z]{3}-\d+(?:\.\d+)?").any():
        example = "".join(rows["term_id"].head(1))
        raise UserError(
            f"{path}: its second column holds no ids like {HUMAN}1234 but {example[:40]!r}; it is not a table of Reactome"
        )
    statements = Statements(propagated=propagated, rows_read=len(rows))
    statements.notes.append(f"read {path.name}: {SETS[0]} is not there")
    human = rows["term_id"].str.startswith(HUMAN)
    statements.drop("not a human pathway", int((~human).sum()))
    rows = rows[human]
    if column == "ensembl_id":
        gene = rows["id"].str.fullmatch(_GENE)
        statements.drop("a protein or transcript, whose gene has a row of its own", int((~gene).sum()))
        rows = rows[gene]
    # A gene may be in a pathway by a curator's statement and by an electronic one: the first counts.
    rows = rows.sort_values("evidence", key=lambda evidence: evidence == "IEA", kind="stable")
    twice = rows.duplicated(["term_id", "id"])
    statements.drop("duplicate", int(twice.sum()))
    rows = rows[~twice].sort_index()
    statements.terms = pd.DataFrame({
        "term_id": rows["term_id"], "term_name": rows["term_name"], column: rows["id"], "score": np.nan, "evidence": rows["evidence"],
        "category": "pathway", "negative": False,
    }).reset_index(drop=True)  # fmt: skip
    return statements


def _parents(path: Path) -> pd.DataFrame:
    """Parent and child of human pathways; the file has no header and holds all species."""
    rows = read_text_table(path, PAIR, names=PAIR)
    human = rows["parent_id"].str.startswith(HUMAN) & rows["term_id"].str.startswith(HUMAN)
    if not human.any():
        raise UserError(f"{path} has no pair of {HUMAN} ids; fetch it again")
    return rows.loc[human, ["term_id", "parent_id"]].drop_duplicates(ignore_index=True)
