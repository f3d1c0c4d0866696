"""Upper tails of sums of scores drawn without replacement: sample by sample, on several threads, without an array per step."""

from __future__ import annotations

from math import erfc, exp, lgamma, log, log1p, sqrt

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.arrays import Populations, Samples
from sae_genomics.kernels.choice import instead_of
from sae_genomics.kernels.compiled import each_range, exact_kernel, inner
from sae_genomics.kernels.plain import sample_sums as plain

_NEAR, _MAX_STEPS, _MAX_CHANGE, _PRECISION = plain.NEAR, plain.MAX_STEPS, plain.MAX_CHANGE, plain.PRECISION
_AT_ONCE = 256


@instead_of(plain.upper_tails)
def upper_tails(populations: Populations, samples: Samples) -> npt.NDArray[np.float64]:
    result = np.empty(len(samples.total))
    each_range(len(result), _AT_ONCE, lambda start, stop: _tails(populations, samples, start, stop, result))
    return result


@inner
def _log_choose(n, k):  # type: ignore[no-untyped-def]
    return lgamma(n + 1.0) - lgamma(k + 1.0) - lgamma(n - k + 1.0)


@exact_kernel
def _tails(populations, samples, begin, end, result):  # type: ignore[no-untyped-def]
    ptr, score, count = populations.ptr, populations.score, populations.genes
    n_strata = samples.sizes.shape[1]
    first, last = np.empty(n_strata, np.int64), np.empty(n_strata, np.int64)
    work = np.empty((6, n_strata))  # genes drawn, genes; s, its step, second derivatives by s and by s and t
    for i in range(begin, end):
        total = samples.total[i]
        mean, variance, largest, log_ways, log_drawings, spread, n_kept = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0
        for b in range(n_strata):
            drawn = np.float64(samples.sizes[samples.drawn[i], b])
            start, stop = ptr[samples.population[i] * n_strata + b], ptr[samples.population[i] * n_strata + b + 1]
            n, centre, squares = 0.0, 0.0, 0.0
            for j in range(start, stop):
                n += count[j]
                centre += count[j] * score[j]
            if drawn == 0.0 or n == 0.0:
                continue
            centre /= n
            missing = drawn
            for j in range(start, stop):
                squares += count[j] * (score[j] - centre) ** 2
                if missing > 0.0:
                    taken = min(missing, count[j])
                    largest += taken * score[j]
                    missing -= taken
                    if missing <= 0.0:
                        log_ways += _log_choose(count[j], taken)
            mean += drawn * centre
            if n > 1.0:
                variance += drawn * (n - drawn) / (n - 1.0) * squares / n
            log_drawings += _log_choose(n, drawn)
            if drawn < n and stop - start > 1:
                first[n_kept], last[n_kept] = start, stop
                work[0, n_kept], work[1, n_kept], work[2, n_kept] = drawn, n, centre
                spread = max(spread, score[start] - score[stop - 1])
                n_kept += 1
            else:
                total, largest, mean = total - drawn * centre, largest - drawn * centre, mean - drawn * centre
        if total >= largest - 1e-9 * (1.0 + abs(largest)):
            result[i] = min(1.0, exp(log_ways - log_drawings))
            continue
        z = (total - mean) / sqrt(variance) if variance > 0.0 else 0.0
        if z < _NEAR:
            result[i] = 0.5 * erfc(z / sqrt(2.0))
            continue
        t = min((total - mean) / variance, _MAX_CHANGE / spread)
        found = _saddlepoint(score, count, first[:n_kept], last[:n_kept], work, total, t)
        result[i] = min(1.0, max(found, exp(-log_drawings)))


@inner
def _saddlepoint(score, count, first, last, work, total, t):  # type: ignore[no-untyped-def]
    drawn, size, s, steps, s_s, s_t = work[0], work[1], work[2], work[3], work[4], work[5]
    n_strata = len(first)
    for b in range(n_strata):
        s[b] = log(drawn[b] / (size[b] - drawn[b])) - t * s[b]
    left = 0.0
    for _ in range(_MAX_STEPS):
        left, missing = 0.0, total
        for b in range(n_strata):
            by_s, by_st, by_t, short = 0.0, 0.0, 0.0, drawn[b]
            for j in range(first[b], last[b]):
                p = 1.0 / (1.0 + exp(-s[b] - t * score[j]))
                expected = count[j] * p
                q = expected * (1.0 - p)
                short -= expected
                missing -= expected * score[j]
                by_s += q
                by_st += q * score[j]
                by_t += q * score[j] * score[j]
            s_s[b], s_t[b], steps[b] = by_s, by_st, short
            left += by_t - by_st * by_st / by_s
        for b in range(n_strata):
            missing -= s_t[b] * steps[b] / s_s[b]
        step = missing / left
        change = 0.0
        for b in range(n_strata):
            steps[b] = (steps[b] - s_t[b] * step) / s_s[b]
            highest, lowest = score[first[b]], score[last[b] - 1]
            change = max(change, abs(steps[b] + step * highest), abs(steps[b] + step * lowest))
        rate = min(1.0, _MAX_CHANGE / change) if change > 0.0 else 1.0
        t += rate * step
        for b in range(n_strata):
            s[b] += rate * steps[b]
        if change < _PRECISION * (1.0 + abs(t)):
            break
    exponent, log_ratio = t * total, 0.5 * log(left)
    for b in range(n_strata):
        share = drawn[b] / size[b]
        exponent += (s[b] - log(drawn[b] / (size[b] - drawn[b]))) * drawn[b] - size[b] * log1p(-share)
        log_ratio += 0.5 * log(s_s[b] / (drawn[b] * (1.0 - share)))
        for j in range(first[b], last[b]):
            y = s[b] + t * score[j]
            exponent -= count[j] * (max(y, 0.0) + log1p(exp(-abs(y))))
    w = sqrt(max(2.0 * exponent, 0.0))
    if w <= 0.0:
        return 0.5
    return 0.5 * erfc((w + (log(t) + log_ratio - log(w)) / w) / sqrt(2.0))
