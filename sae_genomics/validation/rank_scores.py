"""From each unit's values of genes to Savage scores of their ranks: what a test over the whole ranking adds up.

The gene at rank r of N, counted from the highest value, has the score

    a_r = 1/r + 1/(r + 1) + ... + 1/N,    mean 1 over all N  (Savage 1956, Ann. Math. Stat. 27:590)

It is the expected value of the r-th largest of N exponential variables, about log(N / r). So the sum over a set is Fisher's way
to combine the genes' empirical p-values r / N. Tied genes share the mean of their scores. Genes without a value are tied below all others.

Why not the ranks themselves (Wilcoxon)? A programme is seldom all of a set: 30 of 100 genes at the very top, the others anywhere, move the mean
rank by 15 % of its range; each of the 30 has a Savage score of about log(N / 15). Most ranks tell next to nothing: a feature has
no value for most genes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import sparse

from sae_genomics.kernels.arrays import Populations

SINGLE, PER_OCTAVE = 32, 8  # ranks that stand alone in `nodes`; runs of ranks per doubling after them


@dataclass(frozen=True)
class RankScores:
    """Savage scores of every unit's genes."""

    matrix: sparse.csr_matrix
    """float64 [units, background], score - tied, above zero at genes with a value; from the highest within a unit, not by gene"""

    tied: npt.NDArray[np.float64]
    """[units], the score of every gene without a value"""

    n_genes: int
    """N, genes that are ranked; all of the background, or those `among` which the scores are"""

    @cached_property
    def variance(self) -> npt.NDArray[np.float64]:
        """Of a unit's scores over all genes (mean 1, divided by N): float64 [units]."""
        n_units = len(self.tied)
        row = np.repeat(np.arange(n_units), np.diff(self.matrix.indptr))
        above = self.matrix.data
        squares = np.bincount(row, np.square(above) + 2 * above * self.tied[row], n_units)
        variance: npt.NDArray[np.float64] = squares / self.n_genes + self.tied**2 - 1.0
        return np.where(variance > 1e-12, variance, 0.0)

    def of(self, units: npt.NDArray[np.int64]) -> RankScores:
        """The same for some units."""
        return RankScores(self.matrix[units], self.tied[units], self.n_genes)

    def among(self, genes: npt.NDArray[np.bool_]) -> RankScores:
        """Scores of the ranks among some genes alone; the others have none. genes: bool [background]."""
        n_genes = int(genes.sum())
        if n_genes == self.n_genes:
            return self
        kept = genes[self.matrix.indices]
        ptr = np.append(0, np.cumsum(kept))[self.matrix.indptr]
        return _scored(ptr, self.matrix.indices[kept], self.matrix.data[kept], n_genes, self.matrix.shape)

    def nodes(self) -> Populations:
        """The scores of every unit, neighbours in rank put together: the null of a sum needs no more.

        The first 32 ranks stand alone. After them a run of ranks is 9 % wide, so what is left out of the variance is less than 0.1 %.
        """
        ptr = self.matrix.indptr.astype(np.int64)
        n = np.diff(ptr)
        summed = np.append(0.0, np.cumsum(self.matrix.data))
        cut = np.minimum(_edges(self.n_genes)[None, :], n[:, None])
        count = np.column_stack([np.diff(cut, axis=1), self.n_genes - n]).astype(np.float64)
        total = np.column_stack([np.diff(summed[ptr[:-1, None] + cut], axis=1), np.zeros(len(n))])
        used = count > 0
        score = total[used] / count[used] + np.repeat(self.tied, used.sum(axis=1))
        return Populations(np.append(0, np.cumsum(used.sum(axis=1))), score, count[used])

    def nodes_by_bin(self, size: npt.NDArray[np.int64], bins: npt.NDArray[np.int64]) -> Populations:
        """The scores of every unit, one stratum per bin: every gene with a value alone, the others of the bin together.

        size: int64 [bins], genes that are ranked. bins: int64 [background].
        """
        n_units, n_bins = len(self.tied), len(size)
        row = np.repeat(np.arange(n_units), np.diff(self.matrix.indptr))
        stratum = row * n_bins + bins[self.matrix.indices]
        others = np.tile(size, n_units) - np.bincount(stratum, minlength=n_units * n_bins)
        with_others = np.flatnonzero(others)
        where = np.append(stratum, with_others)
        score = np.append(self.matrix.data + self.tied[row], np.repeat(self.tied, n_bins)[with_others])
        count = np.append(np.ones(len(stratum)), others[with_others])
        order = np.argsort(where, kind="stable")  # scores fall within a unit, and the tied genes come last
        ptr = np.append(0, np.cumsum(np.bincount(where, minlength=n_units * n_bins)))
        return Populations(ptr, score[order], count[order])


def savage_scores(values: sparse.csr_matrix) -> RankScores:
    """Scores of values.

    values: csr [units, background]; stored values are above zero, and genes without one are tied below them.
    """
    ptr = values.indptr.astype(np.int64)
    order = np.empty(values.nnz, dtype=np.int64)
    for start, stop in pairwise(ptr.tolist()):  # sorting all units at once takes ten times as long
        order[start:stop] = start + np.argsort(-values.data[start:stop], kind="stable")
    return _scored(ptr, values.indices[order], values.data[order], values.shape[1], values.shape)


def _scored(
    ptr: npt.NDArray[np.int64],
    gene: npt.NDArray[np.integer],
    value: npt.NDArray[np.floating],
    n_genes: int,
    shape: tuple[int, int],
) -> RankScores:
    """Scores of values that fall within each unit, ptr[i] to ptr[i + 1]."""
    n_units, n = shape[0], np.diff(ptr)
    row = np.repeat(np.arange(n_units), n)
    above = np.arange(len(row)) - ptr[row]  # genes with a higher rank
    starts = np.flatnonzero(np.append(True, (np.diff(row) != 0) | (np.diff(value) != 0))[: len(row)])
    stops = np.append(starts[1:], len(row))[: len(starts)]
    total = _top_sums(n_genes)
    first, last = above[starts], above[stops - 1] + 1
    tied = np.divide(n_genes - total[n], n_genes - n, out=np.zeros(n_units), where=n < n_genes)
    score = np.repeat((total[last] - total[first]) / (last - first), stops - starts) - tied[row]
    return RankScores(sparse.csr_matrix((score, gene, ptr), shape=shape), tied, n_genes)


def _top_sums(n: int) -> npt.NDArray[np.float64]:
    """Sum of the scores of the first m of n ranks, m from 0: m + m (H_n - H_m), H the harmonic numbers."""
    harmonic = np.append(0.0, np.cumsum(1.0 / np.arange(1, n + 1)))
    m = np.arange(n + 1)
    sums: npt.NDArray[np.float64] = m + m * (harmonic[n] - harmonic)
    return sums


def _edges(n_genes: int) -> npt.NDArray[np.int64]:
    octaves = np.log2(max(n_genes / SINGLE, 1.0))
    later = SINGLE * 2.0 ** (np.arange(1, np.ceil(octaves * PER_OCTAVE) + 1) / PER_OCTAVE)
    return np.unique(np.minimum(np.append(np.arange(SINGLE + 1), np.rint(later)), n_genes).astype(np.int64))
