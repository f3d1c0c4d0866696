"""TRRUST: transcription factors, their targets and the sign, from papers. One file without a header."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.batches import read_all
from sae_genomics.validation.normal_form.statements import Statements
from sae_genomics.validation.normal_form.text_tables import find

FILES = ("trrust_rawdata.human.tsv",)
_COLUMNS = ("factor", "target", "mode", "papers")
_SIGNS = {"Activation": 1, "Repression": -1, "Unknown": 0}


def read(folder: Path) -> Statements:
    """One edge and one term row per pair of factor and target; a term is a factor's targets.

    A pair that is named as activation and as repression has the sign 0. One that is named as unknown as well has the sign that is known.
    """
    path = find(folder, FILES, "trrust")
    rows = read_all(path, _COLUMNS, "trrust", names=_COLUMNS).to_pandas()
    rows[["factor", "target"]] = rows[["factor", "target"]].apply(lambda column: column.str.strip())
    other = rows.loc[~rows["mode"].isin(list(_SIGNS)), "mode"]
    if len(other):
        raise UserError(
            f"{path}: the mode in its third column is {other.iloc[0]!r} and should be one of {', '.join(_SIGNS)}: its layout has changed, "
            "or it is another file"
        )
    found = Statements(rows_read=len(rows), directed=True)
    nameless = (rows["factor"] == "") | (rows["target"] == "")
    found.drop("no gene", int(nameless.sum()))
    rows = rows[~nameless].assign(sign=rows["mode"].map(_SIGNS).astype(np.int8))
    by_pair = rows.groupby(["factor", "target"], sort=True)
    pairs = by_pair.agg(low=("sign", "min"), high=("sign", "max"), rows=("sign", "size"))
    both = (pairs["low"] < 0) & (pairs["high"] > 0)
    pairs["sign"] = np.where(both, 0, pairs["low"] + pairs["high"]).clip(-1, 1).astype(np.int8)
    papers = rows.assign(papers=rows["papers"].str.split(";")).explode("papers")
    papers = papers.drop_duplicates(["factor", "target", "papers"]).groupby(["factor", "target"], sort=True)["papers"]
    pairs = pairs.assign(evidence=papers.agg(";".join)).reset_index()
    repeats = pairs["rows"].to_numpy() - 1
    found.drop("contradictory mode", int(repeats[both.to_numpy()].sum()))
    found.drop("duplicate", int(repeats[~both.to_numpy()].sum()))
    if both.any():
        found.notes.append(
            f"{int(both.sum()):,} pairs are named as activation and as repression; their sign is 0, unknown"
        )
    shared = {"score": np.nan, "evidence": pairs["evidence"], "category": "regulon"}
    found.edges = pd.DataFrame(
        {
            "source_gene_symbol": pairs["factor"], "target_gene_symbol": pairs["target"], **shared, "sign": pairs["sign"],
        }
    )  # fmt: skip
    found.terms = pd.DataFrame(
        {"term_id": pairs["factor"], "term_name": pairs["factor"], "gene_symbol": pairs["target"], **shared, "negative": False}
    )  # fmt: skip
    found.split = len(pairs)  # a row gives an edge and a member of a regulon
    return found
