"""The answer for a reader, for a table program and for a program."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from sae_genomics.annotate.enrich import Answer
from sae_genomics.annotate.ranking import LEADING, MEAN_SCORE
from sae_genomics.validation.gene_sets import Collection, described

_WIDEST_TERM, _MOST_NAMES = 60, 8
_GENES = ("genes", LEADING)


def head(answer: Answer, background: str, collections: Sequence[Collection]) -> list[str]:
    """What was compared with what."""
    members = answer.members
    fit = ", ".join(f"{each['name']} {each['n_fit']:,}" for each in described(collections, members) if each["n_fit"])
    lines = [
        f"Background: {background}: {len(members.background):,} genes.",
        f"Gene sets that fit: {fit}. Test: {answer.test.description}.",
    ]
    for each in answer.lists:
        unknown = list(each["not_in_background"])  # type: ignore[call-overload]
        more = f", and {len(unknown) - _MOST_NAMES} more" if len(unknown) > _MOST_NAMES else ""
        left = f"; not in the background: {', '.join(unknown[:_MOST_NAMES])}{more}" if unknown else ""
        done = "ranked" if MEAN_SCORE in answer.rows else "tested"
        lines.append(f"{each['list']}: {each['n_tested']} of {each['n_genes']} genes {done}{left}.")
    return lines


def as_text(answer: Answer, background: str, collections: Sequence[Collection], top: int, fdr: float) -> str:
    """Columns of one width. top: rows of each list; 0 for all."""
    blocks = ["\n".join(head(answer, background, collections))]
    q = _q(answer.rows)
    for name, rows in answer.rows.groupby("list", sort=False):
        shown = rows.head(top) if top else rows
        ranked = MEAN_SCORE in answer.rows
        lines = [["q", "p", "genes", "odds ratio (95 %)", "source", "term", "shared genes"]]
        if ranked:
            n_top = int(rows["n_top"].max())
            lines = [["q", "p", f"in the first {n_top}", "mean score", "source", "term", "leading genes"]]
        lines += [
            [
                f"{getattr(row, q):.2g}", f"{row.p_value:.2g}", f"{row.n_overlap} of {row.n_term}",
                f"{row.mean_score:.3g}" if ranked else f"{row.odds_ratio:.3g} ({row.odds_ratio_low:.2g} to {row.odds_ratio_high:.2g})",
                row.collection, _short(row.term, row.term_id) + (f" <- {row.explained_by}" if row.explained_by else ""), _names(row.leading_genes if ranked else row.genes),
            ]
            for row in shown.itertuples()
        ]  # fmt: skip
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]) - 1)]
        found = int((rows[q] < fdr).sum())
        title = f"{name}: {found} terms with {q} < {fdr:g}" + (
            f", the first {len(shown)} rows" if len(shown) < len(rows) else ""
        )
        table = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]])
            for line in lines
        ]
        blocks.append("\n".join([title, *table]))
    if answer.rows["explained_by"].ne("").any():
        blocks.append("<- ID: the genes of this more specific term explain the term.")
    return "\n\n".join(blocks) + "\n"


def as_tsv(answer: Answer, top: int) -> str:
    """All columns of feature_terms.parquet, `list` in place of `feature`; of a ranking `mean_score` as well."""
    return str(_first(answer.rows, top).to_csv(sep="\t", index=False, lineterminator="\n"))


def as_json(answer: Answer, background: str, collections: Sequence[Collection], top: int) -> str:
    """One object: background, collections, lists, terms."""
    rows = _first(answer.rows, top)
    terms = json.loads(
        rows.assign(**{name: rows[name].map(_split) for name in _GENES if name in rows}).to_json(
            orient="records", double_precision=15
        )
    )
    exact = rows.select_dtypes("float")  # to_json rounds, and a small p would be 0
    for record, values in zip(terms, exact.to_dict("records"), strict=True):
        record |= {name: None if pd.isna(value) else value for name, value in values.items()}
    said = {
        "background": {"genes": len(answer.members.background), "what": background},
        "test": answer.test.name,
        "collections": described(collections, answer.members),
        "lists": answer.lists,
        "terms": terms,
    }
    return json.dumps(said, indent=1, allow_nan=False) + "\n"


def _q(rows: pd.DataFrame) -> str:
    """The q that decides: beside expression where that is known."""
    return "q_matched" if "q_matched" in rows else "q_value"


def _first(rows: pd.DataFrame, top: int) -> pd.DataFrame:
    return rows.groupby("list", sort=False).head(top) if top else rows


def _short(term: str, term_id: str) -> str:
    """The name, cut where it is long, and always the id."""
    end = f" ({term_id})" if term.endswith(f" ({term_id})") else ""
    name = term.removesuffix(end)
    return (name if len(name) <= _WIDEST_TERM else f"{name[: _WIDEST_TERM - 3]}...") + end


def _split(genes: str) -> list[str]:
    return genes.split(",") if genes else []


def _names(genes: str) -> str:
    names = _split(genes)
    more = f" +{len(names) - _MOST_NAMES}" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
