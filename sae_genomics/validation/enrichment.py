"""What every enrichment test is given of gene sets and gives of them, and the false discovery rate over all that was tested.

Three p-values stand behind a row: `p_value`, of the test itself; `p_matched`, what is left of it among genes of similar detection and
expression; and the larger of the two, which has to be small before a list counts as annotated.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
from scipy import sparse

from sae_genomics.associations.multiple_testing import benjamini_hochberg

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_NORMAL_975 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution


@dataclass(frozen=True)
class Keep:
    """Which tests have a row; all that were made count for the false discovery rate."""

    p: float
    """those with a p up to here"""

    best: int = 0
    """and so many of each list, by p"""


@dataclass(frozen=True)
class Sets:
    """Gene sets as a test is given them. Genes are positions in the background, terms and sources are numbers."""

    matrix: sparse.csr_matrix
    """int32 [background, terms], 1 for a member"""

    source: Counts
    """int64 [terms], the term's source"""

    universe: npt.NDArray[np.bool_]
    """[background, sources], whether the source could have named the gene; true for every member"""

    bins: Counts
    """int64 [background], from 0: genes of similar detection and expression share a bin. See `background.matched_bins`"""

    @property
    def sizes(self) -> Counts:
        """K, genes of each set: int64 [terms]."""
        return np.bincount(self.matrix.indices, minlength=len(self.source)).astype(np.int64)

    def shuffled(self, permutation: Counts) -> Sets:
        """The same sets with the genes' names exchanged; a gene stays in its bin, and its name takes sets and universes along."""
        return Sets(self.matrix[permutation], self.source, self.universe[permutation], self.bins)


@dataclass(frozen=True)
class Enrichment:
    """The tests that have a row. Arrays [rows]; each pair of a list and a set stands here once at most."""

    row: Counts
    """index of the list"""

    term: Counts
    """index of the set"""

    n_overlap: Counts
    """k, genes that list and set share"""

    n_term: Counts
    """K, genes of the set"""

    n_top: Counts
    """n, genes of the list that the set's source could have named"""

    n_background: Counts
    """N, genes that could have entered the list and that the source could have named"""

    p_value: Floats

    q_value: Floats
    """over all lists x sets"""

    q_source: Floats
    """over all lists x sets of the set's source"""

    n_tests: int
    """tests made, lists x sets; those without a row have a p above `Keep.p`"""

    def only(self, rows: npt.NDArray[np.bool_]) -> Enrichment:
        """Some of the rows. rows: bool [rows]."""
        arrays = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "n_tests"}
        return replace(self, **{name: array[rows] for name, array in arrays.items()})

    def odds_ratio(self) -> tuple[Floats, Floats, Floats]:
        """Sample odds ratio, and the two ends of its 95 % interval.

        With a, b, c, d the cells of the table, each with 0.5 added, the odds ratio is a d / (b c). Its logarithm has the standard error
        sqrt(1/a + 1/b + 1/c + 1/d) (Woolf 1955; 0.5 added: Gart and Zweifel 1967), which gives the interval.
        """
        k, big_k, n = self.n_overlap, self.n_term, self.n_top
        a, b, c, d = k + 0.5, n - k + 0.5, big_k - k + 0.5, self.n_background - n - big_k + k + 0.5
        odds, error = a * d / (b * c), np.exp(_NORMAL_975 * np.sqrt(1 / a + 1 / b + 1 / c + 1 / d))
        return odds, odds / error, odds * error


@dataclass(frozen=True)
class Matched:
    """What is left of tests among genes of similar detection and expression: float64 [rows of the Enrichment]."""

    p: Floats
    """NaN where it was not computed"""

    q: Floats
    """over all lists x sets, of the larger of p_value and p; 1 where p was not computed"""

    q_source: Floats
    """the same over all lists x sets of the set's source"""


def matched_q(tests: Enrichment, p_matched: Floats, sets: Sets, n_lists: int) -> Matched:
    """False discovery rates of the larger of both p-values.

    p_matched: float64 [rows], NaN where it was not computed. Such a test counts with p = 1. That changes no q below f, if p_matched is there
    wherever q_value < f or q_source < f: the larger of two p-values is not the smaller one, and so is its q.
    """
    worse = np.where(np.isnan(p_matched), np.nan, np.maximum(tests.p_value, p_matched))
    q, q_source = false_discovery(worse, sets.source[tests.term], sets.source, n_lists)
    return Matched(p_matched, np.nan_to_num(q, nan=1.0), np.nan_to_num(q_source, nan=1.0))


def false_discovery(
    p: Floats, source: Counts, source_of_terms: Counts, n_lists: int, counts: Counts | None = None
) -> tuple[Floats, Floats]:
    """Benjamini-Hochberg over every test made, and over every test of the source.

    p, source: [n], of tests; NaN for one whose q is not wanted. counts: int64 [n], tests that share the p; default: one.
    source_of_terms: int64 [terms]. Tests that do not stand in p count as well, as if their p were 1.
    """
    n_terms = np.bincount(source_of_terms, minlength=int(source.max(initial=-1)) + 1)
    by_source = np.full(len(p), np.nan)
    for number, n_of_source in enumerate(n_terms.tolist()):
        here = np.flatnonzero(source == number)
        by_source[here] = benjamini_hochberg(p[here], n_lists * n_of_source, None if counts is None else counts[here])
    return benjamini_hochberg(p, n_lists * len(source_of_terms), counts), by_source
