"""The mean activation of each unit over the training rows, in one pass that reads each row once."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sae_genomics.activations.reading.rows import OpenFiles, RowSet
from sae_genomics.kernels.grouped_sums import add_rows
from sae_genomics.progress import stop_point
from sae_genomics.sae.unit_means import UnitMeans

Float64 = npt.NDArray[np.float64]
_TOKENS_AT_ONCE = 1 << 20  # of a tokens file


def measure_means(rows: RowSet) -> UnitMeans:
    """The means of the units of `rows`, over the rows that are chosen there.

    Units are those of all stored tokens: one without a chosen row gets the global mean. Sums are float64 and are added in the
    order of the files, so the result depends on these alone. Raises DamagedArtifact, and Interrupted when a signal asked to stop.
    """
    unit_id = _units(rows)
    lookup = np.zeros(int(unit_id.max(initial=-1)) + 1, dtype=np.int64)
    lookup[unit_id] = np.arange(len(unit_id))
    n_tokens = np.zeros(len(unit_id), dtype=np.int64)
    sums = np.zeros((len(unit_id), rows.d_model))
    shift: Float64 | None = None
    squared = 0.0
    for x, units in _chosen(rows):
        stop_point()
        if shift is None:  # squares of numbers near 0 do not cancel
            shift = x.mean(axis=0, dtype=np.float64)
        squared += add_rows(sums, n_tokens, x, shift, lookup[units])
    assert shift is not None
    return shrunk(unit_id, n_tokens, sums, squared, shift)


def shrunk(
    unit_id: npt.NDArray[np.int64],
    n_tokens: npt.NDArray[np.int64],
    sums: Float64,
    squared: float,
    shift: Float64 | float = 0.0,
) -> UnitMeans:
    """Means from sums, each unit's own mean drawn towards the global one the more, the fewer tokens it has:

        mean_u = (n_u m_u + k m) / (n_u + k),        k = W / B

    with n_u training tokens of the unit, m_u their mean, m the mean of all N training tokens, and k the *prior count*: the
    empirical-Bayes weight of the one-way random-effects model (Buehlmann's credibility; the method of moments), where over all
    dimensions

        W = sum_u sum_i |x_ui - m_u|^2 / (N - U)                      variance within a unit
        B = (sum_u n_u |m_u - m|^2 - (U - 1) W) / (N - sum_u n_u^2 / N)      variance between units, of U units seen

    k is 1 where no unit has two tokens. Where B is not above 0, units do not differ: all get m. A unit without training tokens gets m.

    n_tokens: int64 [units]. sums: float64 [units, d_model], of x - shift; they are overwritten, because there can be gigabytes of
    them. squared: sum of |x - shift|^2.
    """
    n = n_tokens.astype(np.float64)
    total, n_seen = float(n.sum()), int((n > 0).sum())
    overall = sums.sum(axis=0) / max(total, 1)
    values = sums
    values /= np.maximum(n, 1)[:, None]  # own means
    explained = float(np.einsum("u,ud,ud->", n, values, values))
    values -= overall
    between = float(np.einsum("u,ud,ud->", n, values, values))
    prior = _prior_tokens(total, n_seen, float(n @ n), max(squared - explained, 0.0), between)
    weight = np.zeros_like(n)
    if math.isfinite(prior):
        np.divide(n, n + prior, out=weight, where=n > 0)
    values *= weight[:, None]
    values += overall + shift
    return UnitMeans(
        unit_id.astype(np.int64), values.astype(np.float32), (overall + shift).astype(np.float32), n_tokens, prior
    )


def _prior_tokens(total: float, n_units: int, squared_counts: float, within: float, between: float) -> float:
    """k of `shrunk`. within, between: sums of squares."""
    if n_units < 2 or total <= n_units:
        return 1.0
    inside = within / (total - n_units)
    outside = (between - (n_units - 1) * inside) / (total - squared_counts / total)
    return inside / outside if outside > 0 else math.inf


def _units(rows: RowSet) -> npt.NDArray[np.int64]:
    """int64, ascending: the units of all stored tokens."""
    seen = np.zeros(0, dtype=bool)
    with OpenFiles(rows, most_open=1) as files:
        for number, shard in enumerate(rows.shards):
            for start in range(0, shard.n_rows, _TOKENS_AT_ONCE):
                tokens = files.tokens(number, start, min(start + _TOKENS_AT_ONCE, shard.n_rows))
                if (largest := int(tokens.max(initial=-1))) >= len(seen):
                    seen = np.concatenate([seen, np.zeros(largest + 1 - len(seen), dtype=bool)])
                seen[tokens] = True
    return np.flatnonzero(seen)


def _chosen(rows: RowSet) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]]:
    """Every chosen row once, in the files' order, with its unit."""
    with OpenFiles(rows, most_open=1) as files:
        blocks = zip(rows.block_shard.tolist(), rows.block_start.tolist(), rows.block_stop.tolist(), strict=True)
        for number, start, stop in blocks:
            mask = rows.shards[number].mask(start, stop)
            yield files.open(number).rows(start, stop)[mask], files.tokens(number, start, stop)[mask]
