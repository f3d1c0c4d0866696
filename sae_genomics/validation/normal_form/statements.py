"""What a reader in `validation/databases/` gives: a database's statements, before its genes are looked up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

# A gene by any of these, as the database writes it; empty text where it is not given.
GENE_IDS = ("hgnc_id", "ensembl_id", "entrez_id", "uniprot_id", "gene_symbol")


@dataclass
class Statements:
    """One database.

    terms: one row per statement that a gene belongs to a term: term_id, term_name, at least one column of GENE_IDS, and, where
    the database has them, score (float64, NaN where not given), evidence, category (text) and negative (bool: a statement that
    the gene does not belong to it). Text may be categorical, which spares memory where millions of rows repeat a few. A row may name several genes of one kind in one cell only if `gene_separator` is set.
    parents: term_id, parent_id and, where the source tells it, parent_name; None where the terms have no hierarchy. propagated: whether a
    term's genes already hold those of the terms below it.
    says_little: term_id -> why its terms tell nothing of a feature, such as `mode of inheritance`. Statements on them are kept, and
    `validate` tests them only where that is asked for. It may name terms that nothing is stated on.
    edges: one row per pair: columns of GENE_IDS with the prefixes source_ and target_, score, evidence, category, sign
    (1 activation, -1 repression, 0 unknown); None where there is no network. directed: a regulon and not a network.
    version: as the database names its release; empty where it does not say. rows_read: data rows of all files. split: statements that
    rows give beyond their first one, where a row names several genes or terms; rows_read + split = statements + dropped.
    dropped: reason -> rows that were left out. notes: sentences for a person, for example on a broken hierarchy.
    """

    terms: pd.DataFrame | None = None
    parents: pd.DataFrame | None = None
    propagated: bool = False
    says_little: dict[str, str] = field(default_factory=dict)
    edges: pd.DataFrame | None = None
    directed: bool = False
    version: str = ""
    rows_read: int = 0
    split: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def drop(self, reason: str, rows: int) -> None:
        """Count rows that are left out. Nothing is counted for none."""
        if rows:
            self.dropped[reason] = self.dropped.get(reason, 0) + int(rows)


# A module `sae_genomics.validation.databases.NAME` has `read`: the folder with the database's files, under their official
# names -> statements. It raises UserError, in one line, for files that are not there, damaged, or of a layout it does not know.
Read = Callable[[Path], Statements]
