"""P(X >= k) for a sum X of independent hypergeometric numbers, one per bin: the exact test of a stratified 2 x 2 table.

In bin b are N_b genes of the background, K_b of the set and n_b of the list. When list and set are independent within every bin, and all
these counts are given, the shared genes of bin b are hypergeometric,

    P(x in bin b) = C(K_b, x) C(N_b - K_b, n_b - x) / C(N_b, n_b),

and X is their sum. Its distribution follows bin by bin. With D_s = P(s shared in the bins so far) for s < k and T = P(k or more):

    T   <- T + sum_s D_s P(x >= k - s)
    D_s <- sum_x D_(s - x) P(x)

Every term is positive, so no digits are lost, however small T is. Summing x >= k - s by itself, and not as 1 - P(x < k - s), is what keeps it so.
One bin gives Fisher's exact test. (Birch 1964, J. R. Stat. Soc. B 26:313; the conditional test of Cochran, Mantel and Haenszel.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from sae_genomics.kernels.arrays import Floats, Ints, Strata

PAIRS_AT_ONCE = 1 << 14


def stratified_tail(strata: Strata, row: Ints, term: Ints, k: Ints) -> Floats:
    """p of pairs of a list and a set.

    row, term, k: int64 [pairs], the list, the set and the number of genes that they share.
    """
    p = np.empty(len(k))
    for start in range(0, len(k), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        p[part] = _tails(strata, row[part], term[part], k[part])
    return p


def _tails(strata: Strata, row: Ints, term: Ints, k: Ints) -> Floats:
    source, n_pairs, most = strata.source[term], len(k), int(k.max(initial=0))
    below = np.zeros((n_pairs, most + 1))  # D_s; nothing stands at s >= k
    below[:, 0] = k > 0
    tail = (k <= 0).astype(np.float64)
    for number in range(strata.named.shape[1]):
        genes, of_set = strata.named[source, number], strata.members[term, number]
        listed = strata.listed[row, source, number]
        p = _shared(genes, of_set, listed, most)
        at_least = np.cumsum(p[:, ::-1], axis=1)[:, ::-1]
        for s in range(most):
            tail += below[:, s] * np.take_along_axis(at_least, np.maximum(k - s, 0)[:, None], axis=1)[:, 0]
        for s in range(most, -1, -1):
            below[:, s] = (below[:, : s + 1] * p[:, s::-1]).sum(axis=1) * (s < k)
    return np.minimum(tail, 1.0)


def _shared(
    genes: npt.NDArray[np.integer], of_set: npt.NDArray[np.integer], listed: npt.NDArray[np.integer], most: int
) -> Floats:
    """P(x shared genes) of one bin: float64 [pairs, most + 1]; the last column has all x >= most."""
    x = np.arange(max(most, int(np.minimum(of_set, listed).max(initial=0))) + 1)
    big_n, big_k, n = (each.astype(np.float64)[:, None] for each in (genes, of_set, listed))
    possible = (x <= np.minimum(big_k, n)) & (x >= n + big_k - big_n)
    with np.errstate(invalid="ignore"):
        log_p = _log_choose(big_k, x) + _log_choose(big_n - big_k, n - x) - _log_choose(big_n, n)
    p = np.where(possible, np.exp(np.where(possible, log_p, 0.0)), 0.0)
    p[:, most] = p[:, most:].sum(axis=1)
    return p[:, : most + 1]


def _log_choose(n: Floats, k: npt.NDArray[Any]) -> Floats:
    logarithm: Floats = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return logarithm
