"""HGNC: gene groups as terms. The same table gives every other source its gene identity (normal_form/hgnc.py)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sae_genomics.validation.normal_form.hgnc import find_table, is_withdrawn, read_hgnc
from sae_genomics.validation.normal_form.statements import Statements

_SPLIT = ["gene_group", "gene_group_id"]


def read(folder: Path) -> Statements:
    """One statement per gene and group. A gene of several groups counts as several rows read."""
    table = read_hgnc(find_table(folder))
    withdrawn = is_withdrawn(table)
    statements = Statements(rows_read=len(table))
    statements.drop("withdrawn", int(withdrawn.sum()))
    genes = table[~withdrawn]
    in_group = genes["gene_group_id"] != ""
    statements.drop("in no gene group", int((~in_group).sum()))
    grouped = genes[in_group]
    names, ids = (grouped[name].str.split("|") for name in _SPLIT)
    fitting = names.str.len() == ids.str.len()
    statements.drop("as many names as ids of groups are not given", int((~fitting).sum()))
    terms = grouped[fitting].assign(gene_group=names, gene_group_id=ids).explode(_SPLIT, ignore_index=True)
    statements.rows_read += len(terms) - int(fitting.sum())
    statements.terms = pd.DataFrame({
        "term_id": "HGNC.GROUP:" + terms["gene_group_id"].astype(str), "term_name": terms["gene_group"].astype(str),
        "hgnc_id": terms["hgnc_id"], "gene_symbol": terms["symbol"],
    })  # fmt: skip
    return statements
