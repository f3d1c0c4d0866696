"""Markers of cell types: canonical ones of human cells, their sensitivity, and what is counted."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from sae_genomics.errors import UserError
from sae_genomics.validation.databases.panglaodb import read

NAME = "PanglaoDB_markers_27_Mar_2020.tsv"
HEADER = (
    "species\tofficial gene symbol\tcell type\tnicknames\tubiquitousness index\tproduct description\tgene type\tcanonical marker\t"
    "germ layer\torgan\tsensitivity_human\tsensitivity_mouse\tspecificity_human\tspecificity_mouse"
)
ROWS = [
    'Mm Hs\tGENE1\tAcinar cells\tG1|"x\t0.017\ta "quoted\tprotein-coding gene\t1\tEndoderm\tPancreas\t1.0\t0.95\t0.0006\t0.01',
    "Hs\tC15ORF48\tAcinar cells\tNA\t0.1\tb\tprotein-coding gene\t1\tEndoderm\tPancreas\tNA\tNA\tNA\tNA",
    "Mm\tGENE2\tAcinar cells\tNA\t0.1\tb\tprotein-coding gene\t1\tEndoderm\tPancreas\t0.5\t0.5\t0\t0",
    "Mm Hs\tGENE3\tB cells\tNA\t0.1\tb\tprotein-coding gene\tNA\tMesoderm\tImmune system\t0.5\t0.5\t0\t0",
    "Mm Hs\tGENE3\tPlasma cells\tNA\t0.1\tb\tprotein-coding gene\t1\tMesoderm\tImmune system\t0.25\t0.5\t0\t0",
    "Hs Mm\tGENE3\tPlasma cells\tNA\t0.1\tb\tprotein-coding gene\t1\tMesoderm\tImmune system\t0.25\t0.5\t0\t0",
    "Hs\t\tPlasma cells\tNA\t0.1\tb\tprotein-coding gene\t1\tMesoderm\tNA\t0.25\t0.5\t0\t0",
]


def content(rows: list[str], header: str = HEADER) -> bytes:
    return ("\n".join([header, *rows]) + "\n").encode()


@pytest.mark.parametrize("zipped", [True, False])
def test_canonical_markers_of_human_cells(tmp_path: Path, zipped: bool) -> None:
    raw = content(ROWS)
    (tmp_path / (f"{NAME}.gz" if zipped else NAME)).write_bytes(gzip.compress(raw) if zipped else raw)
    found = read(tmp_path)
    plain = list(csv.DictReader(raw.decode().splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    wanted = {
        (row["cell type"], row["official gene symbol"]): row["sensitivity_human"]
        for row in plain
        if "Hs" in row["species"] and row["canonical marker"] == "1" and row["official gene symbol"]
    }
    terms = found.terms
    assert terms is not None
    got = {(row.term_id, row.gene_symbol.upper()): row.score for row in terms.itertuples()}
    assert set(got) == set(wanted)
    for key, text in wanted.items():
        assert np.isnan(got[key]) if text == "NA" else got[key] == float(text)
    assert "C15orf48" in set(terms["gene_symbol"])
    assert found.version == "27 Mar 2020"
    assert found.dropped == {"not human": 1, "not a canonical marker": 1, "no gene or no cell type": 1, "duplicate": 1}
    assert found.rows_read == len(ROWS) == len(terms) + sum(found.dropped.values())
    assert dict(zip(terms["term_id"], terms["category"], strict=True)) == {
        "Acinar cells": "Pancreas",
        "Plasma cells": "Immune system",
    }


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (content([]), "has no rows"),
        (content([ROWS[0]], HEADER.replace("canonical marker", "canonical")), "has no column 'canonical marker'"),
        (content([ROWS[0], ROWS[1][:30]]), "damaged or cut off"),
        (content([ROWS[0].replace("gene\t1\t", "gene\tyes\t")]), "is 'yes' and should be 1 or NA"),
        (content([ROWS[0].replace("\t1.0\t", "\thigh\t")]), "sensitivity_human is not a number"),
        (gzip.compress(content(ROWS * 500))[:-20], "damaged or cut off"),
        (b"<html><body>moved</body></html>", "is a web page"),
    ],
)
def test_another_layout_is_refused_in_one_line(tmp_path: Path, raw: bytes, says: str) -> None:
    (tmp_path / f"{NAME}.gz").write_bytes(raw)
    with pytest.raises(UserError, match=says) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)
