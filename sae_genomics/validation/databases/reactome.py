"""Reactome: its pathways as gene sets, all levels, and which pathway stands above which.

In this GMT the first column is the name and the second the id, the reverse of other GMT files.
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
RELATION = "ReactomePathwaysRelation.txt"
PAIR = ("parent_id", "term_id")
HUMAN = "R-HSA-"


def read(folder: Path) -> Statements:
    """Statements of the gene sets; parents where the relations are there. Raises UserError."""
    path = find(folder, SETS, "reactome")
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
    if (folder / RELATION).exists():
        statements.parents = _parents(folder / RELATION)
    else:
        statements.notes.append(f"{RELATION} is not there: the pathways have no hierarchy")
    return statements


def _parents(path: Path) -> pd.DataFrame:
    """Parent and child of human pathways; the file has no header and holds all species."""
    rows = read_text_table(path, PAIR, names=PAIR)
    human = rows["parent_id"].str.startswith(HUMAN) & rows["term_id"].str.startswith(HUMAN)
    if not human.any():
        raise UserError(f"{path} has no pair of {HUMAN} ids; fetch it again")
    return rows.loc[human, ["term_id", "parent_id"]].drop_duplicates(ignore_index=True)
