"""What holds for every reader's result."""

from __future__ import annotations

from sae_genomics.validation.normal_form.statements import GENE_IDS, Statements


def dropped(statements: Statements) -> int:
    return sum(statements.dropped.values())


def check(statements: Statements, rows_read: int) -> None:
    """Columns and kinds of the terms; at least one gene id per row; ids are CURIEs. rows_read: as counted otherwise."""
    terms = statements.terms
    assert terms is not None
    assert statements.rows_read == rows_read
    assert rows_read + statements.split == len(terms) + dropped(statements)
    ids = [name for name in GENE_IDS if name in terms]
    assert (terms[ids] != "").any(axis=1).all()
    assert terms["term_id"].str.fullmatch(r"[A-Za-z]+:\S+").all()
    assert (terms["term_name"] != "").all()
    assert terms["negative"].dtype == bool
    assert terms["score"].dtype == float
    texts = [*ids, "term_id", "term_name", "evidence", "category"]
    assert all(terms[name].map(type).eq(str).all() for name in texts)
