"""One-sided Fisher's exact test: does a list share more genes with a set than a random draw would?

A list of n genes out of a background of N shares k with a set of K. If the list were a random draw, k would be
hypergeometric, and

    p = P(X >= k) = sum_{x >= k} C(K, x) C(N - K, n - x) / C(N, n)

p comes from logarithms of factorials at k and the ratio of neighbouring terms from there on, so all terms are positive and no digits are
lost however small p is. The logarithms are extended numbers: N! of 20,000 genes has a logarithm of 180,000, and half of the digits of
a float64 would go into that.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sae_genomics.artifacts import Inference
from sae_genomics.validation.enrichment import Counts, Enrichment, Floats, Keep, Sets
from sae_genomics.validation.enrichment_test import EnrichmentTest
from sae_genomics.validation.gene_lists import GeneLists


def hypergeometric_tail(k: Counts, set_size: Counts, n: Counts, n_background: Counts) -> Floats:
    """P(X >= k) for X hypergeometric, elementwise; all int64 [tests].

    The loop runs over the at most min(K, n) further terms of the sum, never over tests.
    """
    least, last = np.maximum(n + set_size - n_background, 0), np.minimum(set_size, n)
    first = np.clip(k, least, last)
    log = _log_factorials(1 << int(n_background.max(initial=1)).bit_length())
    log_first = _log_choose(log, set_size, first) + _log_choose(log, n_background - set_size, n - first)
    log_first -= _log_choose(log, n_background, n)
    x, end, big_k, draws, rest = (
        each.astype(np.float64) for each in (first, last, set_size, n, n_background - set_size - n)
    )
    sums, factor = np.ones_like(x), np.ones_like(x)
    while bool((active := (x < end) & (factor > 1e-18 * sums)).any()):
        ratio = (big_k - x) * (draws - x) / ((x + 1) * (rest + x + 1))
        factor = np.where(active, factor * ratio, 0.0)
        sums += factor
        x = x + 1
    tail: Floats = np.minimum(np.exp(log_first.astype(np.float64)) * sums, 1.0)
    tail[k <= least] = 1.0
    tail[k > last] = 0.0
    return tail


@lru_cache(maxsize=4)
def _log_factorials(n: int) -> npt.NDArray[np.longdouble]:
    """log 0! to log n!."""
    numbers = np.arange(n + 1, dtype=np.longdouble)
    numbers[0] = 1
    logarithms: npt.NDArray[np.longdouble] = np.cumsum(np.log(numbers))
    return logarithms


def _log_choose(log: npt.NDArray[np.longdouble], n: Counts, k: Counts) -> npt.NDArray[np.longdouble]:
    logarithm: npt.NDArray[np.longdouble] = log[n] - log[k] - log[n - k]
    return logarithm


def run(lists: GeneLists, sets: Sets, keep: Keep) -> Enrichment:
    """Every list against every set, exact."""
    from sae_genomics.validation.overlaps import of_overlaps  # numba: see `enrichment_test`

    return of_overlaps(lists, sets, keep, hypergeometric_tail)


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
