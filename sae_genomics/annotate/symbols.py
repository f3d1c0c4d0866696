"""From what people call a gene to its current symbol: Ensembl, HGNC and Entrez ids, old symbols and aliases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.hgnc import Genes, find_table, identify, is_withdrawn, make_genes, read_hgnc

_FILES = ("hgnc", "files")  # where scripts/download_databases.py leaves the table, in the folder of databases
_CODING = "protein-coding gene"


@dataclass(frozen=True)
class Symbols:
    """A table of genes, as HGNC publishes it; without one, names stay as they are."""

    genes: Genes | None = None
    coding: tuple[str, ...] = field(default=())
    """symbols of all genes that make proteins; none where the table is an excerpt"""

    def current(self, names: Sequence[str]) -> list[str]:
        """The current symbol of each name. A name that the table does not know, or knows of several genes, stays as it is."""
        if self.genes is None or not names:
            return list(names)
        text = pd.Series(list(names), dtype=object)
        as_ids = {
            "hgnc_id": text.where(text.str.fullmatch(r"HGNC:\d+"), ""),
            "ensembl_id": text.where(text.str.fullmatch(r"ENSG\d+(?:\.\d+)?"), ""),
            "entrez_id": text.where(text.str.fullmatch(r"\d+"), ""),
            "gene_symbol": text,
        }
        found = identify(pd.DataFrame(as_ids), self.genes)
        symbols = found.genes["gene_symbol"].to_numpy(object)
        return [
            str(symbols[row]) if row >= 0 and symbols[row] else name
            for row, name in zip(found.gene, names, strict=True)
        ]


def read_symbols(databases: Path) -> Symbols:
    """From HGNC's table in the folder of databases, where it is."""
    try:
        entries = read_hgnc(find_table(databases.joinpath(*_FILES)))
    except UserError:
        return Symbols()
    genes = make_genes(entries)
    of_proteins = entries[(entries["locus_group"] == _CODING) & ~is_withdrawn(entries)]
    return Symbols(genes, () if genes.is_excerpt else tuple(of_proteins["symbol"]))
