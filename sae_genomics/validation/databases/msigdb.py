"""MSigDB, and any other gene sets as GMT files: every *.gmt of the folder, one collection for each file; MSigDB's JSON, too."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.gmt import read_gmt_rows
from sae_genomics.validation.normal_form.statements import Statements
from sae_genomics.validation.normal_form.text_tables import opened

# <collection>.v<version>[.<species>].<symbols or entrez>.gmt; the species stands there since version 2022.1.
OFFICIAL = re.compile(r"(?P<collection>.+?)\.v(?P<version>\d[\d.]*?)(?:\.(?P<species>Hs|Mm))?\.(?P<ids>symbols|entrez)")
SUFFIXES = (".gz", ".zip", ".gmt")
OFFICIAL_JSON = re.compile(r"(?P<collection>.+?)\.v(?P<version>\d[\d.]*?)(?:\.(?P<species>Hs|Mm))?(?P<ids>\.json)")
PATTERNS = ("*.gmt", "*.gmt.gz", "*.gmt.zip", "*.json", "*.json.gz", "*.json.zip")
REPEATS = ("c2", "c5", "msigdb")
EXPRESSION = ("c8", "c7", "c2.cgp", "c4")


def read(folder: Path) -> Statements:
    """Statements of all files; the category is the collection. Raises UserError."""
    paths = sorted({path for pattern in PATTERNS for path in folder.glob(pattern)})
    if not paths:
        raise UserError(
            f"msigdb: no *.gmt or *.json file is in {folder}; run scripts/download_databases.py --only msigdb"
        )
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
    official = OFFICIAL.fullmatch(name) or OFFICIAL_JSON.fullmatch(name)
    if official is None:
        return name.removesuffix(".json"), "", "json" if name.endswith(".json") else "symbols"
    if official["species"] == "Mm":
        raise UserError(f"{path} holds genes of the mouse; take the file with .Hs. in its name")
    version = ".".join(part for part in (official["version"], official["species"]) if part)
    return official["collection"], version, official["ids"].removeprefix(".")


def _once(statements: Statements, paths: list[Path]) -> list[Path]:
    """Each collection by one file: by NCBI ids, which are safer than symbols, before symbols, and GMT before JSON."""
    order = ("entrez", "symbols", "json")
    best: dict[tuple[str, str], str] = {}
    for path in sorted(paths, key=lambda path: order.index(_parts(path)[2])):
        best.setdefault(_parts(path)[:2], _parts(path)[2])
    left_out = [path for path in paths if _parts(path)[2] != best[_parts(path)[:2]]]
    ids = {"entrez": "with NCBI gene ids", "symbols": "as GMT"}
    statements.notes += [
        f"{path.name} was not read: the same collection is there {ids[best[_parts(path)[:2]]]}" for path in left_out
    ]
    return [path for path in paths if path not in left_out]


def _one_file(statements: Statements, path: Path) -> pd.DataFrame:
    collection, version, ids = _parts(path)
    if ids == "json":
        return _of_json(path).assign(version=version)
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


def _of_json(path: Path) -> pd.DataFrame:
    """One object, the sets by their names. Each says its collection, such as C2:CP:REACTOME, which is written c2.cp.reactome here."""
    shape = 'one object such as {"HALLMARK_HYPOXIA": {"collection": "H", "geneSymbols": ["ADM"]}}'
    with opened(path) as raw:
        try:
            sets = json.loads(raw.read())
        except ValueError as error:
            raise UserError(f"{path} is damaged or cut off: {error}; fetch it again") from None
    if not isinstance(sets, dict) or not sets:
        raise UserError(f"{path} holds no gene sets; JSON of MSigDB is {shape}")
    rows = []
    for name, said in sets.items():
        genes = said.get("geneSymbols") if isinstance(said, dict) else None
        if not isinstance(genes, list):
            raise UserError(f"{path}: the set {name[:60]!r} has no list geneSymbols; JSON of MSigDB is {shape}")
        if str(said.get("systematicName", "")).startswith("MM"):
            raise UserError(f"{path} holds genes of the mouse ({name[:60]}); take the file with .Hs. in its name")
        rows.append((name, str(said.get("collection") or _parts(path)[0]).replace(":", ".").lower(), genes))
    table = pd.DataFrame(rows, columns=["name", "category", "gene_symbol"]).explode("gene_symbol", ignore_index=True)
    symbol = table["gene_symbol"].fillna("").astype(str).str.strip()
    return table.assign(description="", gene_symbol=symbol, entrez_id="")[symbol != ""]


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
