"""KEGG pathways, by the answers of its REST service: list/pathway/hsa and link/hsa/pathway, saved as files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.statements import Statements
from sae_genomics.validation.normal_form.text_tables import find, opened, read_text_table

LIST = ("list_pathway_hsa.txt", "list_pathway_hsa", "list/pathway/hsa")
LINK = ("link_hsa_pathway.txt", "link_hsa_pathway", "link/hsa/pathway", "link_pathway_hsa.txt", "link/pathway/hsa")
INFO = ("info_pathway.txt", "info_pathway", "info/pathway")
SPECIES = " - Homo sapiens (human)"
OVERVIEW = r"hsa01[12]\d\d"  # global and overview maps: the genes of ordinary maps once more
OVERVIEW_MAP = "overview map"
PATHWAY, GENE = r"hsa\d{5}", r"hsa:\d+"


def read(folder: Path) -> Statements:
    """Statements of all maps, the overview maps among them marked. Raises UserError."""
    names_path, path = find(folder, LIST, "kegg"), find(folder, LINK, "kegg")
    names = read_text_table(names_path, ("id", "name"), names=("id", "name"))
    # Since 2023 the list has ids without `path:`, and the links have them with it.
    names["id"] = names["id"].str.removeprefix("path:")
    _check(names_path, names["id"], PATHWAY)
    rows = _links(path)
    statements = Statements(version=_version(folder), rows_read=len(rows))
    twice = rows.duplicated()
    statements.drop("duplicate", int(twice.sum()))
    rows = rows[~twice]
    named = rows["pathway"].map(names.drop_duplicates("id").set_index("id")["name"].str.removesuffix(SPECIES))
    if named.isna().all():
        raise UserError(f"kegg: no pathway of {path} is in {names_path}; fetch both again")
    if named.isna().any():
        count = rows.loc[named.isna(), "pathway"].nunique()
        statements.notes.append(f"{count:,} pathways are not in {names_path.name}; their id stands for their name")
    overview = rows["pathway"].str.fullmatch(OVERVIEW)
    statements.says_little = dict.fromkeys(rows.loc[overview, "pathway"].unique(), OVERVIEW_MAP)
    statements.terms = pd.DataFrame({
        "term_id": rows["pathway"], "term_name": named.fillna(rows["pathway"]), "entrez_id": rows["gene"].str.removeprefix("hsa:"),
        "score": np.nan, "evidence": "", "category": np.where(overview, OVERVIEW_MAP, "pathway"), "negative": False,
    }).reset_index(drop=True)  # fmt: skip
    return statements


def _links(path: Path) -> pd.DataFrame:
    """pathway and gene of each pair; link/pathway/hsa gives them in the other order."""
    rows = read_text_table(path, ("pathway", "gene"), names=("pathway", "gene"))
    if rows["pathway"].str.fullmatch(GENE).all():
        rows = rows.rename(columns={"pathway": "gene", "gene": "pathway"})
    rows["pathway"] = rows["pathway"].str.removeprefix("path:")
    _check(path, rows["pathway"], PATHWAY)
    _check(path, rows["gene"], GENE)
    return rows


def _check(path: Path, ids: pd.Series, pattern: str) -> None:
    wrong = ~ids.str.fullmatch(pattern)
    if wrong.any():
        example = "hsa00010" if pattern == PATHWAY else "hsa:10327"
        raise UserError(
            f"{path} holds {ids[wrong].iloc[0][:40]!r} where an id like {example} is expected; it is cut off, or its layout has changed"
        )


def _version(folder: Path) -> str:
    """The release that info/pathway tells; empty where that answer was not saved."""
    path = next((folder / name for name in INFO if (folder / name).is_file()), None)
    if path is None:
        return ""
    with opened(path) as raw:
        told = re.search(r"Release\s+([^\s,]+)", raw.read(10_000).decode("utf-8", errors="replace"))
    return told[1] if told else ""
