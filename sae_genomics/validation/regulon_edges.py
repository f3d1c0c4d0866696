"""Do genes that the same units read belong together as a transcription factor and its target?

A gene's row holds one number per unit, of the tables of top genes: zero where the gene is none of a unit's. With r_a and r_x the rows of
a factor and of a gene, the strength of the pair is the cosine r_a . r_x / (|r_a| |r_x|), and zero where a row is empty.

AUROC: the chance that a known pair is stronger than another pair, ties half. Early precision ratio: of the R strongest pairs, with R the
number of known pairs, the share that is known, divided by the share among all pairs (Pratapa et al. 2020, Nat. Methods 17:147). Pairs of
equal strength at the border count in proportion.

What a row is made of is chosen on half of the factors (`tuning`), and measured on the other half (`held_out`). The halves
depend on the factors' symbols alone, so all runs have the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse
from scipy.stats import rankdata

from sae_genomics.hashes import hash_values

Numbers = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]
STRENGTHS = ("score", "log_score", "specificity")
TUNING, HELD_OUT = "tuning", "held_out"


@dataclass(frozen=True)
class Candidates:
    """Pairs of factors and genes, each factor with every target of any factor.

    factors, targets: positions in the background. factor, target: int64 [known pairs], positions in these two.
    own: int64 [factors], position in targets of the factor itself, -1 where it is none.
    """

    factors: Positions
    targets: Positions
    factor: Positions
    target: Positions
    own: Positions

    @property
    def n_pairs(self) -> int:
        """All pairs but those of a factor with itself."""
        return len(self.factors) * len(self.targets) - int((self.own >= 0).sum())


def candidates(factor: Positions, target: Positions) -> Candidates:
    """factor, target: int64 [known pairs], positions in the background. Pairs of a gene with itself are left out, and repeats."""
    pairs = np.unique(np.stack([factor, target], axis=1)[factor != target], axis=0)
    factors, of_factor = np.unique(pairs[:, 0], return_inverse=True)
    targets, of_target = np.unique(pairs[:, 1], return_inverse=True)
    at = np.minimum(np.searchsorted(targets, factors), max(len(targets) - 1, 0))
    own = np.where(targets[at] == factors, at, -1) if len(targets) else np.full(len(factors), -1)
    return Candidates(factors, targets, of_factor.astype(np.int64), of_target.astype(np.int64), own.astype(np.int64))


def half_of(symbols: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    """TUNING or HELD_OUT for each factor, by its symbol alone."""
    distinct, back = np.unique([str(symbol).upper() for symbol in symbols], return_inverse=True)
    odd = np.array([hash_values(str(symbol))[-1] in "13579bdf" for symbol in distinct], dtype=np.bool_)[back]
    return np.where(odd, HELD_OUT, TUNING).astype(object)


def gene_rows(genes: pd.DataFrame, place: Positions, n_genes: int, strength: str) -> sparse.csr_matrix:
    """float64 [genes, units], rows of length one or empty.

    genes: columns feature, score, specificity. place: int64 [rows of genes], position in the background, -1 for none.
    """
    column = "specificity" if strength == "specificity" else "score"
    value = np.maximum(np.nan_to_num(genes[column].to_numpy(np.float64)), 0.0)
    value = np.log1p(value) if strength == "log_score" else value
    kept = (place >= 0) & (value > 0)
    unit = genes["feature"].to_numpy(np.int64)
    matrix = sparse.csr_matrix((value[kept], (place[kept], unit[kept])), shape=(n_genes, int(unit.max(initial=0)) + 1))
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return sparse.csr_matrix(sparse.diags(1 / np.where(length > 0, length, 1.0)) @ matrix)


@dataclass(frozen=True)
class Recovery:
    """All pairs in the order of their strength, ready for any set of known ones.

    rank: float64 [factors, targets], from 1, ties their mean; NaN for a factor itself. top: share of each pair that is among the R strongest.
    """

    rank: Numbers
    top: Numbers
    n_pairs: int
    n_known: int

    def auroc(self, factor: Positions, target: Positions) -> float:
        """Of these known pairs against all others."""
        n, rest = len(factor), self.n_pairs - len(factor)
        above = self.rank[factor, target].sum() - n * (n + 1) / 2
        return float(above / (n * rest)) if n and rest else float("nan")

    def early_precision_ratio(self, factor: Positions, target: Positions) -> float:
        """Share of known pairs among the R strongest, divided by the share among all."""
        if not self.n_known:
            return float("nan")
        return float(self.top[factor, target].sum() / self.n_known / (self.n_known / self.n_pairs))


def recovery(rows: sparse.csr_matrix, pairs: Candidates) -> Recovery:
    """rows: of `gene_rows`."""
    strength = (rows[pairs.factors] @ rows[pairs.targets].T).toarray()
    has_own = np.flatnonzero(pairs.own >= 0)
    strength[has_own, pairs.own[has_own]] = np.nan
    used = ~np.isnan(strength)
    values = np.round(strength[used], 12)  # equal but for rounding is equal
    rank, top = np.full(strength.shape, np.nan), np.zeros(strength.shape)
    rank[used] = rankdata(values)
    n_known = len(pairs.factor)
    border = np.partition(values, len(values) - n_known)[len(values) - n_known] if n_known else np.inf
    above, at = values > border, values == border
    top[used] = above + at * ((n_known - above.sum()) / max(at.sum(), 1))
    return Recovery(rank, top, len(values), n_known)
