"""A ranking of genes as people have it, a table of genes and scores, and the stage's test of whole rankings on it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.annotate.choice_of_background import Listable
from sae_genomics.annotate.enrich import MATCHED_COLUMNS, Answer
from sae_genomics.annotate.gene_files import HEADINGS, read_text
from sae_genomics.annotate.symbols import Symbols
from sae_genomics.config import ValidationConfig
from sae_genomics.errors import UserError
from sae_genomics.validation.enrichment_tests import enrichment_test_named
from sae_genomics.validation.feature_terms import all_terms_of
from sae_genomics.validation.gene_lists import GeneLists
from sae_genomics.validation.gene_sets import Collection, Membership, membership
from sae_genomics.validation.rankings import whole_rankings

RANK_FILE = ".rnk"  # always a ranking; any other file is one where that is said
TEST = "savage"  # where validation.test is a test of lists
MEAN_SCORE, LEADING = "mean_score", "leading_genes"
_MISSING = ("", "na", "nan", "null", "none", "n/a", "#n/a")
_SHAPE = "a ranking has one gene and one score per line, parted by a tab or a comma"


@dataclass(frozen=True)
class Ranking:
    """name: of its file. genes: as written. scores: float64 [genes], never NaN. n_without: genes that have no score."""

    name: str
    genes: list[str]
    scores: npt.NDArray[np.float64]
    n_without: int


def is_ranking(word: str) -> bool:
    """Whether a file is a ranking by its name."""
    return word.lower().removesuffix(".gz").endswith(RANK_FILE)


def read_ranking(path: Path, column: str = "") -> Ranking:
    """Genes and scores of a table with or without a heading. Lines that begin with # are passed over.

    column: the heading of the scores, or their number from 1; empty: the only column beside that of the genes.
    The genes are in the column with a heading such as `gene`, else in the first one. Raises UserError naming file and line.
    """
    lines = [
        (n, line) for n, line in enumerate(read_text(path).splitlines(), start=1) if line.strip() and line[0] != "#"
    ]
    if not lines:
        raise UserError(f"{path} holds no genes; {_SHAPE}")
    separator = next((each for each in "\t,;" if each in lines[0][1]), None)
    table = [(n, _cells(line, separator)) for n, line in lines]
    first = table[0][1]
    # A heading is a first line without a number in any column but that of the genes.
    said = [_number(cell) is not None or cell.strip().lower() in _MISSING for cell in first[1:]]
    heading = [cell.strip() for cell in first] if not any(said) else []
    rows = table[1:] if heading else table
    gene = next((i for i, name in enumerate(heading) if name.lower() in HEADINGS), 0)
    score = _score_column(path, column, heading, len(first), gene)
    genes, scores, n_without = [], [], 0
    for number, cells in rows:
        if max(gene, score) >= len(cells):
            raise UserError(
                f"{path}, line {number}: {len(cells)} columns, and the scores are in column {score + 1}; {_SHAPE}"
            )
        name, value = cells[gene].strip(), _number(cells[score])
        if value is None and cells[score].strip().lower() not in _MISSING:
            raise UserError(f"{path}, line {number}: the score {cells[score].strip()[:40]!r} is no number; {_SHAPE}")
        if not name:
            raise UserError(f"{path}, line {number}: no gene; {_SHAPE}")
        if value is None:
            n_without += 1
            continue
        genes.append(name)
        scores.append(value)
    if len(set(scores)) < 2:
        raise UserError(
            f"{path}: {len(genes):,} genes have {len(set(scores))} different scores, which rank nothing; {_SHAPE}"
        )
    name = path.name.removesuffix(".gz")
    return Ranking(name.rpartition(".")[0] or name, genes, np.array(scores), n_without)


def _cells(line: str, separator: str | None) -> list[str]:
    return next(csv.reader([line], delimiter=separator)) if separator else line.split()


def _number(cell: str) -> float | None:
    """NaN is no number."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return None if value != value else value


def _score_column(path: Path, column: str, heading: Sequence[str], n_columns: int, gene: int) -> int:
    others = [i for i in range(n_columns) if i != gene]
    if column:
        if column in heading:
            return heading.index(column)
        if column.isdigit() and 0 < int(column) <= n_columns:
            return int(column) - 1
        known = f"its columns are {', '.join(heading)}" if heading else f"it has {n_columns} columns and no heading"
        raise UserError(f"--score: {path} has no column {column!r}; {known}")
    if len(others) != 1:
        names = ", ".join(heading[i] for i in others) if heading else f"{n_columns} columns"
        raise UserError(
            f"{path}: which column has the scores? Name one with --score: {names[:120]}"
            if others
            else f"{path}: {_SHAPE}"
        )
    return others[0]


def ranked_genes(ranking: Ranking, symbols: Symbols, background: Listable | None) -> tuple[Listable, pd.DataFrame]:
    """The genes that are compared, and of each gene of the ranking its symbol, upper, score and whether it is one of them (ranked).

    background: genes that the ranking is narrowed to; None: all of the ranking. Raises UserError where none is left.
    """
    table = pd.DataFrame({"symbol": symbols.current(ranking.genes), "score": ranking.scores})
    table["upper"] = table["symbol"].str.upper()
    distinct = table.drop_duplicates("upper")
    if background is None:
        table["ranked"] = True
        return Listable(distinct["symbol"].to_numpy(object), None, f"the genes of the ranking {ranking.name}"), table
    upper = pd.Series(background.symbols, dtype=object).str.upper()
    here = upper.isin(distinct["upper"]).to_numpy()
    if not here.any():
        raise UserError(
            f"none of the genes of {ranking.name} ({', '.join(ranking.genes[:3])}) is in --background; do both name genes alike?"
        )
    table["ranked"] = table["upper"].isin(upper)
    bins = (
        None if background.bins is None else np.unique(background.bins[here], return_inverse=True)[1].astype(np.int64)
    )
    return Listable(
        background.symbols[here], bins, f"{background.said}, of them those in the ranking {ranking.name}"
    ), table


def enrich_ranking(
    name: str,
    table: pd.DataFrame,
    background: Listable,
    collections: Sequence[Collection],
    settings: ValidationConfig,
    best: int,
) -> Answer:
    """The test of a whole ranking for every set: do its genes stand higher than a random draw of as many?

    table: of `ranked_genes`; the highest score stands first, and equal scores are tied. Of several rows of one gene the highest
    counts. best: rows that are there whatever their p. A row says as `mean_score` the mean Savage score of the set's genes, 1 by chance,
    and as `leading_genes` those of them that are above 1.

    Raises UserError where no set fits.
    """
    test = enrichment_test_named(settings.test)
    if test.reads != "ranking":
        test = enrichment_test_named(TEST)
    members = membership(
        collections, background.symbols, settings.min_set_size, settings.max_set_size, settings.background == "source"
    )
    known = table[table["ranked"]]
    # The rank among all scores stands for the score, from 1 at the lowest: the test reads values above zero, as float32.
    value = known["score"].rank(method="dense").to_numpy()
    values = pd.DataFrame({"feature": 0, "gene": np.arange(len(known)), "value": value})
    lists = whole_rankings(values, known["symbol"].to_numpy(object), members, settings.top_genes)
    rows = all_terms_of(test, lists, background.within(members), collections, settings.fdr, best)
    rows["feature"] = name
    rows = rows.rename(columns={"feature": "list"})
    means, leading = _leading(lists, members, rows)
    rows.insert(rows.columns.get_loc("p_value"), MEAN_SCORE, means)
    rows[LEADING] = leading
    facts = {
        "list": name, "n_genes": len(table), "n_tested": int(known["upper"].nunique()),
        "not_in_background": table.loc[~table["ranked"], "symbol"].drop_duplicates().tolist(),
    }  # fmt: skip
    return Answer(rows if background.bins is not None else rows.drop(columns=MATCHED_COLUMNS), [facts], members, test)


def _leading(lists: GeneLists, members: Membership, rows: pd.DataFrame) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Of each row's set, among the genes that its source could have named: the mean score, float64 [rows], and the symbols of the
    genes with a score above 1, which is the mean of all genes, from the highest, comma-separated."""
    means, leading = np.empty(len(members.term)), np.full(len(members.term), "", dtype=object)
    for number, universe in enumerate(members.universe.T):
        scores = lists.ranking.among(universe)
        dense = scores.matrix.toarray()[0] + scores.tied[0]
        terms = np.flatnonzero(members.source == number)
        sets = members.matrix[:, terms].tocoo()
        means[terms] = np.bincount(sets.col, dense[sets.row], len(terms)) / np.maximum(
            np.bincount(sets.col, minlength=len(terms)), 1
        )
        above = pd.DataFrame({"term": sets.col, "gene": sets.row, "score": dense[sets.row]})
        above = above[above["score"] > 1].sort_values(["term", "score", "gene"], ascending=[True, False, True])
        named = above.assign(symbol=members.symbols[above["gene"]]).groupby("term")["symbol"].agg(",".join)
        leading[terms[named.index]] = named.to_numpy(object)
    keys = pd.MultiIndex.from_arrays([members.collection, members.term])
    term = keys.get_indexer(pd.MultiIndex.from_frame(rows[["collection", "term"]]))
    return means[term], leading[term].tolist()
