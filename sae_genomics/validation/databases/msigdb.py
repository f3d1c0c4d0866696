"""MSigDB, and any other gene sets as GMT files: every *.gmt of the folder, one collection for each file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.gmt import read_gmt_rows
from sae_genomics.validation.normal_form.statements import Statements

# <collection>.v<version>[.<species>].<symbols or entrez>.gmt; the species stands there since version 2022.1.
OFFICIAL = re.compile(r"(?P<collection>.+?)\.v(?P<version>\d[\d.]*?)(?:\.(?P<species>Hs|Mm))?\.(?P<ids>symbols|entrez)")
SUFFIXES = (".gz", ".zip", ".gmt")
PATTERNS = ("*.gmt", "*.gmt.gz", "*.gmt.zip")
REPEATS = ("c2", "c5", "msigdb")
EXPRESSION = ("c8", "c7", "c2.cgp", "c4")


def read(folder: Path) -> Statements:
    """Statements of all files; the category is the collection. Raises UserError."""
    paths = sorted({path for pattern in PATTERNS for path in folder.glob(pattern)})
    if not paths:
        raise UserError(f"msigdb: no *.gmt file is in {folder}; run scripts/download_databases.py --only msigdb")
    statements = Statements()
    tables = [_one_file(statements, path) for path in _once(statements, paths)]
    rows = pd.concat(tables, ignore_index=True)
    statements.rows_read = len(rows)
    twice = rows.duplicated(["category", "name", "description", "gene_symbol", "entrez_id"])
    statements.drop("duplicate", int(twice.sum()))
    rows = rows[~twice].reset_index(drop=True)
    statements.version = ", ".join(dict.fromkeys(rows["version"][rows["version"] != ""]))
    statements.notes += _overlaps(list(dict.fromkeys(rows["category"])))
    statements.terms = pd.DataFrame({
        "term_id": _ids(statements, rows), "term_name": rows["name"], "gene_symbol": rows["gene_symbol"],
        "entrez_id": rows["entrez_id"], "score": np.nan, "evidence": "", "category": rows["category"], "negative": False,
    })  # fmt: skip
    return statements


def _parts(path: Path) -> tuple[str, str, str]:
    """Collection, version and kind of ids, by the file's name. Raises UserError for mouse gene sets."""
    name = path.name
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    official = OFFICIAL.fullmatch(name)
    if official is None:
        return name, "", "symbols"
    if official["species"] == "Mm":
        raise UserError(f"{path} holds genes of the mouse; take the file with .Hs. in its name")
    version = ".".join(part for part in (official["version"], official["species"]) if part)
    return official["collection"], version, official["ids"]


def _once(statements: Statements, paths: list[Path]) -> list[Path]:
    """Without the symbols of a collection that is there by NCBI ids too: ids are safer than symbols."""
    by_id = {_parts(path)[:2] for path in paths if _parts(path)[2] == "entrez"}
    left_out = [path for path in paths if _parts(path)[:2] in by_id and _parts(path)[2] != "entrez"]
    statements.notes += [
        f"{path.name} was not read: the same collection is there with NCBI gene ids" for path in left_out
    ]
    return [path for path in paths if path not in left_out]


def _one_file(statements: Statements, path: Path) -> pd.DataFrame:
    collection, version, ids = _parts(path)
    rows, notes = read_gmt_rows(path)
    statements.notes += notes
    genes = rows.pop("gene")
    by_id = ids == "entrez"
    if by_id and not genes.str.fullmatch(r"\d+").all():
        wrong = genes[~genes.str.fullmatch(r"\d+")].iloc[0]
        raise UserError(
            f"{path} holds {wrong[:40]!r} where an NCBI gene id is expected; rename it to .symbols.gmt, or fetch it again"
        )
    empty = pd.Series("", index=rows.index, dtype=object)
    return rows.assign(
        gene_symbol=empty if by_id else genes, entrez_id=genes if by_id else empty, category=collection, version=version
    )


def _ids(statements: Statements, rows: pd.DataFrame) -> pd.Series:
    """A set's name is its id, as in MSigDB; sets of one name in two collections get the collection before it.

    A GMT whose second column holds Reactome's ids is known by those.
    """
    ids = rows["name"].where(~rows["description"].str.fullmatch(r"R-HSA-\d+(\.\d+)?"), rows["description"])
    shared = rows.groupby(ids)["category"].transform("nunique") > 1
    if shared.any():
        statements.notes.append(
            f"{ids[shared].nunique():,} set names stand in more than one collection; their id begins with the collection"
        )
    return ids.where(~shared, rows["category"] + ":" + ids)


def _overlaps(collections: list[str]) -> list[str]:
    """What these collections share with other sources."""
    notes = []
    repeats = [name for name in collections if name.split(".")[0] in REPEATS]
    if repeats:
        notes.append(
            f"{', '.join(repeats)} repeat Reactome, KEGG, WikiPathways, GO and HPO, with near duplicates removed: do not count them beside those sources"
        )
    expression = [name for name in collections if name.startswith(EXPRESSION)]
    if expression:
        notes.append(
            f"{', '.join(expression)} come at least in part from expression studies: agreement with a model of expression is partly circular"
        )
    return notes
