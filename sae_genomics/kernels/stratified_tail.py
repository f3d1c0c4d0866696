"""P(X >= k) for a sum of independent hypergeometric numbers: a pair visits the bins of its list alone, and keeps k numbers.

Most bins have a few genes of the list and a few of the set, so what they give is looked up: it is computed once per bin, not once per pair.
"""

from __future__ import annotations

import numpy as np

from sae_genomics.kernels.arrays import Floats, Ints, Strata
from sae_genomics.kernels.choice import instead_of
from sae_genomics.kernels.compiled import each_range, exact_kernel, inner
from sae_genomics.kernels.plain import stratified_tail as plain

PAIRS_AT_ONCE = 1 << 12
FEW = 6  # genes of a list, or of a set, in a bin whose probabilities are looked up; more fit no cache


@instead_of(plain.stratified_tail)
def stratified_tail(strata: Strata, row: Ints, term: Ints, k: Ints) -> Floats:
    p = np.empty(len(k))
    most = int(k.max(initial=0))
    small = np.zeros((*strata.named.shape, FEW + 1, FEW + 1, FEW + 1))
    _fill(strata.named, small)
    each_range(len(k), PAIRS_AT_ONCE, lambda start, stop: _tails(strata, small, row, term, k, most, p, start, stop))
    return p


@exact_kernel
def _fill(named, small):  # type: ignore[no-untyped-def]
    """small[source, bin, K, n, x]: P(x shared genes) for K and n up to FEW, as far as the bin has so many."""
    for source in range(named.shape[0]):
        for number in range(named.shape[1]):
            genes = named[source, number]
            for of_set in range(1, min(FEW, genes) + 1):
                for listed in range(1, min(FEW, genes) + 1):
                    _shared(genes, of_set, listed, min(of_set, listed), small[source, number, of_set, listed])


@exact_kernel
def _tails(strata, small, row, term, k, most, p, start, stop):  # type: ignore[no-untyped-def]
    size = max(most, FEW) + 1
    below, share, at_least = np.empty(size + 1), np.empty(size), np.empty(size + 1)
    n_bins = strata.named.shape[1]
    for pair in range(start, stop):
        wanted = k[pair]
        if wanted <= 0:
            p[pair] = 1.0
            continue
        source = strata.source[term[pair]]
        below[0], tail = 1.0, 0.0
        reached = 0  # most shared genes that the bins so far can give, as far as it is below `wanted`
        for number in range(n_bins):
            listed = strata.listed[row[pair], source, number]
            of_set = strata.members[term[pair], number]
            if listed == 0 or of_set == 0:
                continue
            last = min(listed, of_set)
            if last == 1:  # most bins: one gene may be shared, or none
                genes = np.float64(strata.named[source, number])
                one, none = listed * of_set / genes, (genes - listed * of_set) / genes
                if reached == wanted - 1:
                    tail += below[reached] * one
                else:
                    reached += 1
                    below[reached] = 0.0
                for s in range(reached, 0, -1):
                    below[s] = below[s] * none + below[s - 1] * one
                below[0] *= none
                continue
            if of_set <= FEW and listed <= FEW:
                for x in range(last + 1):
                    share[x] = small[source, number, of_set, listed, x]
            else:
                last = min(last, wanted)
                _shared(strata.named[source, number], of_set, listed, last, share)
            at_least[last + 1] = 0.0
            for x in range(last, -1, -1):
                at_least[x] = at_least[x + 1] + share[x]
            for s in range(max(wanted - last, 0), reached + 1):
                tail += below[s] * at_least[wanted - s]
            top = min(reached + last, wanted - 1)
            for s in range(top, -1, -1):
                total = 0.0
                for x in range(max(s - reached, 0), min(s, last) + 1):
                    total += below[s - x] * share[x]
                below[s] = total
            reached = top
        p[pair] = min(tail, 1.0)


@inner
def _shared(genes, of_set, listed, last, share):  # type: ignore[no-untyped-def]
    """Write P(x shared genes) for x < last, and P(x >= last) at last.

    Numbers relative to the likeliest x follow from one another by their ratio, and their sum makes them probabilities: there is no logarithm,
    and nothing underflows that a float64 can hold.
    """
    least, most = max(listed + of_set - genes, 0), min(listed, of_set)
    likeliest = min(max(((listed + 1) * (of_set + 1)) // (genes + 2), least), most)
    for x in range(last + 1):
        share[x] = 0.0
    total = 1.0
    share[min(likeliest, last)] += 1.0
    number = 1.0
    for x in range(likeliest, most):
        number *= (
            np.float64(of_set - x)
            * np.float64(listed - x)
            / (np.float64(x + 1) * np.float64(genes - of_set - listed + x + 1))
        )
        total += number
        share[min(x + 1, last)] += number
        if x >= last and number < 1e-18 * share[last]:
            break
    number = 1.0
    for x in range(likeliest, least, -1):
        number *= (
            np.float64(x)
            * np.float64(genes - of_set - listed + x)
            / (np.float64(of_set - x + 1) * np.float64(listed - x + 1))
        )
        total += number
        share[min(x - 1, last)] += number
    for x in range(last + 1):
        share[x] /= total
