"""One-sided Fisher's exact test: does a list share more genes with a set than a random draw would?

A list of n genes out of a background of N shares k with a set of K. If the list were a random draw, k would be
hypergeometric, and

    p = P(X >= k) = sum_{x >= k} C(K, x) C(N - K, n - x) / C(N, n)

p comes from log-gamma at k and the ratio of neighbouring terms from there on, so all terms are positive and no digits are
lost however small p is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import gammaln

from sae_genomics.artifacts import Inference
from sae_genomics.validation.enrichment import Counts, Enrichment, of_overlaps
from sae_genomics.validation.enrichment_test import EnrichmentTest
from sae_genomics.validation.gene_lists import GeneLists


def hypergeometric_tail(k: Counts, set_size: Counts, n: Counts, n_background: int) -> npt.NDArray[np.float64]:
    """P(X >= k) for X hypergeometric, elementwise; all arrays [tests].

    The loop runs over the at most min(K, n) further terms of the sum, never over tests.
    """
    big_n, big_k, draws = float(n_background), set_size.astype(np.float64), n.astype(np.float64)
    least = np.maximum(draws + big_k - big_n, 0.0)
    x = np.maximum(k.astype(np.float64), least)
    log_first = _log_choose(big_k, x) + _log_choose(big_n - big_k, draws - x) - _log_choose(big_n, draws)
    first, last = x, np.minimum(big_k, draws)
    sums, factor = np.ones_like(x), np.ones_like(x)
    while bool((active := (x < last) & (factor > 1e-18 * sums)).any()):
        ratio = (big_k - x) * (draws - x) / ((x + 1) * (big_n - big_k - draws + x + 1))
        factor = np.where(active, factor * ratio, 0.0)
        sums += factor
        x = x + 1
    tail = np.where(first <= least, 1.0, np.minimum(np.exp(log_first) * sums, 1.0))
    tail[first > last] = 0.0
    return tail


def _log_choose(n: npt.NDArray[np.float64] | float, k: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    logarithm: npt.NDArray[np.float64] = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return logarithm


def run(lists: GeneLists, sets: sparse.csr_matrix) -> Enrichment:
    """Every list against every set, exact."""
    return of_overlaps(lists, sets, hypergeometric_tail)


FISHER = EnrichmentTest(
    name="fisher",
    description="exact hypergeometric test",
    inference=Inference(
        "one gene of the background",
        "the feature's top genes (n_top) among all genes of the background (n_background)",
        "the feature's genes are drawn at random from the background (hypergeometric)",
    ),
    run=run,
)
