"""The upper tail of a sum of scores of genes that are drawn at random without replacement, in strata.

From stratum b, K_b of its N_b genes are drawn; T is the sum of their scores a. The drawing is a set of independent Bernoulli variables,
given that their numbers are K_b, so the double saddlepoint formula holds (Skovgaard 1987, J. Appl. Probab. 24:875; for one
stratum Robinson 1982, Ann. Stat. 10:416). With

    kappa(s, t) = sum_b sum_{g in b} log(1 + exp(s_b + t a_g)),    p_g = 1 / (1 + exp(-s_b - t a_g)),

(s, t) solves  sum_{g in b} p_g = K_b  and  sum_g p_g a_g = x;  at t = 0 it is s_b = log(K_b / (N_b - K_b)). Then

    w = sign(t) sqrt(2 (s.K + t x - kappa(s, t)  -  the same at t = 0))
    v = t sqrt(D(t) / D(0)),    D = the determinant of kappa's second derivatives (at t = 0 of those by s alone)
    P(T >= x) = P(Z > w + log(v / w) / w),    Z standard normal  (Barndorff-Nielsen 1986, Biometrika 73:307)

The relative error is a few per cent wherever T takes many values, also far into the tail. It is never below the probability of one
drawing, prod_b 1 / C(N_b, K_b). At the largest possible T the drawings are counted. Within NEAR standard deviations of the
mean, and below it, the normal approximation stands, because w and v are 0 there.
"""

from __future__ import annotations

from math import erfc, exp, lgamma, log, sqrt

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from sae_genomics.kernels.arrays import Populations, Samples

NEAR = 0.2
MAX_STEPS = 200
MAX_CHANGE = 2.0  # of a gene's log odds in one step
PRECISION = 1e-5  # of the log odds: Newton steps square what is left, so the next one would be below 1e-9


def upper_tails(populations: Populations, samples: Samples) -> npt.NDArray[np.float64]:
    """P(T >= total) of each sample, T the sum of as many scores drawn at random: float64 [samples]."""
    n_strata = samples.sizes.shape[1]
    result = np.empty(len(samples.total))
    for i, (row, kind) in enumerate(zip(samples.population.tolist(), samples.drawn.tolist(), strict=True)):
        strata = []
        for b, size in enumerate(samples.sizes[kind].tolist()):
            part = slice(populations.ptr[row * n_strata + b], populations.ptr[row * n_strata + b + 1])
            strata.append((populations.score[part], populations.genes[part], float(size)))
        result[i] = _tail(strata, float(samples.total[i]))
    return result


def _tail(strata: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]], total: float) -> float:
    mean = variance = largest = log_ways = log_drawings = 0.0
    kept = []
    for score, count, drawn in strata:
        n = count.sum()
        if drawn == 0 or n == 0:
            continue
        centre = (score * count).sum() / n
        mean += drawn * centre
        if n > 1:
            variance += drawn * (n - drawn) / (n - 1) * ((score - centre) ** 2 * count).sum() / n
        before = np.cumsum(count) - count
        taken = np.clip(drawn - before, 0, count)
        largest += (taken * score).sum()
        last = int(np.flatnonzero(taken)[-1])
        log_ways += _log_choose(count[last], taken[last])
        log_drawings += _log_choose(n, drawn)
        if drawn < n and len(score) > 1:
            kept.append((score, count, drawn))
        else:
            total, largest, mean = total - drawn * centre, largest - drawn * centre, mean - drawn * centre
    scale = 1e-9 * (1 + abs(largest))
    if total >= largest - scale:
        return min(1.0, exp(log_ways - log_drawings))
    z = (total - mean) / sqrt(variance) if variance > 0 else 0.0
    if z < NEAR:
        return 0.5 * erfc(z / sqrt(2))
    found = _saddlepoint(kept, total, (total - mean) / variance)
    return min(1.0, max(found, exp(-log_drawings)))


def _log_choose(n: float, k: float) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _saddlepoint(
    strata: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]], total: float, t: float
) -> float:
    sizes = np.array([count.sum() for _, count, _ in strata])
    drawn = np.array([drawn for _, _, drawn in strata])
    start = np.log(drawn / (sizes - drawn))
    t = min(t, MAX_CHANGE / max(score[0] - score[-1] for score, _, _ in strata))
    s = start - t * np.array([(score * count).sum() for score, count, _ in strata]) / sizes
    for _ in range(MAX_STEPS):
        p = [expit(s_b + t * score) for s_b, (score, _, _) in zip(s, strata, strict=True)]
        q = [count * p_b * (1 - p_b) for p_b, (_, count, _) in zip(p, strata, strict=True)]
        s_s = np.array([q_b.sum() for q_b in q])
        s_t = np.array([(q_b * score).sum() for q_b, (score, _, _) in zip(q, strata, strict=True)])
        t_t = sum(float((q_b * score * score).sum()) for q_b, (score, _, _) in zip(q, strata, strict=True))
        short = drawn - np.array([(count * p_b).sum() for p_b, (_, count, _) in zip(p, strata, strict=True)])
        missing = total - sum(
            float((count * p_b * score).sum()) for p_b, (score, count, _) in zip(p, strata, strict=True)
        )
        left = t_t - (s_t * s_t / s_s).sum()
        step = (missing - (s_t * short / s_s).sum()) / left
        steps = (short - s_t * step) / s_s
        change = max(
            max(abs(d + step * score[0]), abs(d + step * score[-1]))
            for d, (score, _, _) in zip(steps, strata, strict=True)
        )
        rate = min(1.0, MAX_CHANGE / change) if change > 0 else 1.0
        t, s = t + rate * step, s + rate * steps
        if change < PRECISION * (1 + abs(t)):
            break
    kappa = sum(
        float((count * np.logaddexp(0, s_b + t * score)).sum())
        for s_b, (score, count, _) in zip(s, strata, strict=True)
    )
    at_zero = (start * drawn + sizes * np.log1p(-drawn / sizes)).sum()
    w = sqrt(max(2 * ((s * drawn).sum() + t * total - kappa - at_zero), 0.0))
    log_ratio = 0.5 * (np.log(s_s / (drawn * (1 - drawn / sizes))).sum() + log(left))
    if w <= 0:
        return 0.5
    return 0.5 * erfc((w + (log(t) + log_ratio - log(w)) / w) / sqrt(2))
