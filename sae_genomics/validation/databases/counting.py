"""Which statements of a downloaded database count as members of its gene sets, and which terms are tested.

A test of features that were learned from expression is circular where the gene sets rest on expression too. So such statements are out,
unless `validation.expression_evidence` brings them back. The same holds for terms that a reader marked as saying little
(`validation.all_terms`), and for statements with a score below `validation.min_score`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sae_genomics.config import ValidationConfig

EXPRESSION = "expression"  # category of statements that rest on expression data
OVERALL = "overall"  # category of a score that sums up all kinds of evidence, expression among them


def counted_noun(count: int, noun: str, what: str) -> str:
    """`1 term`, `2 terms`, and what they are."""
    return f"{count:,} {noun}{'' if count == 1 else 's'} {what}"


@dataclass
class Counted:
    """keeps: bool [rows]. left_out: sentences on what was left out, for the report."""

    keeps: npt.NDArray[np.bool_]
    left_out: list[str] = field(default_factory=list)

    def leave_out(self, which: npt.NDArray[np.bool_], what: str) -> None:
        """Leave out rows, and say how many were still there."""
        rows = int((self.keeps & which).sum())
        if rows:
            self.keeps = self.keeps & ~which
            self.left_out.append(counted_noun(rows, "statement", what))


def counted(name: str, rows: pa.Table, settings: ValidationConfig) -> Counted:
    """The statements of a database that count. rows: of terms.parquet, with gene_symbol, score, category and negative."""
    negative = pc.fill_null(rows["negative"], False).to_numpy()
    named = pc.not_equal(pc.fill_null(rows["gene_symbol"], ""), "").to_numpy()
    result = Counted(~negative & named)
    category = pc.fill_null(rows["category"], "")
    if not settings.expression_evidence:
        result.leave_out(pc.equal(category, EXPRESSION).to_numpy(), "from expression data")
        overall = pc.equal(category, OVERALL).to_numpy()
        # Where nothing but the sum is there, it counts: without it the database would have no gene sets.
        if not overall[result.keeps].all():
            result.leave_out(overall, "that sum up all kinds of evidence, expression among them")
        elif result.keeps.any():
            result.left_out.append("no statement: the scores sum up all kinds of evidence, expression among them")
    least = settings.min_score.get(name)
    if least is not None:
        score = rows["score"].to_numpy()  # NaN where the source gives none: nothing speaks against such a statement
        result.leave_out(score < least, f"with a score below {least:g}")
    return result
