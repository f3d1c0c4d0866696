"""Units that mark a label, and what a model predicts of them where they are hidden.

A token that the model sees is copied, not predicted. So the tokens of the markers are hidden, and as many others beside them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sae_genomics.causal.samples import Sample
from sae_genomics.models.editing import Predictions

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
VALUE = "value"  # where a family with `outcome == "value"` keeps each token's value, in `Tokens.per_token`
NOTHING, MARKER, OTHER = 0, 1, 2
_LEAST_T = 3.0
_LEAST_SHARE = 0.25  # of the items to be moved that must have a unit, or there is nothing to predict


def amounts(sample: Sample, n_units: int) -> Float64:
    """How much of each unit an item has: float64 [items, units]. The sum of its tokens' values; their share where they have none."""
    tokens, n = sample.tokens, len(sample.rows)
    kept = sample.usual & (tokens.unit >= 0)
    cell = sample.of_tokens()[kept] * n_units + tokens.unit[kept]
    values = tokens.per_token.get(VALUE)
    if values is not None:
        return (
            np.bincount(cell, values[kept].astype(np.float64), minlength=n * n_units)
            .astype(np.float64)
            .reshape(n, n_units)
        )
    counts = np.bincount(cell, minlength=n * n_units).reshape(n, n_units).astype(np.float64)
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def marker_units(amount: Float64, is_b: Bools, wanted: int) -> Int64:
    """Units of which the items of `is_b` have clearly more (Welch's t of _LEAST_T), the clearest first: int64 [at most wanted].

    Only units that a quarter of the other items have; at most a quarter of all units.
    """
    first, second = amount[is_b], amount[~is_b]
    change = first.mean(axis=0) - second.mean(axis=0)
    spread = first.var(axis=0) / max(len(first) - 1, 1) + second.var(axis=0) / max(len(second) - 1, 1)
    usable = ((second > 0).mean(axis=0) >= _LEAST_SHARE) & (change > 0)
    clear = np.where(usable, change / np.sqrt(spread + 1e-12), -np.inf)
    order = np.argsort(-clear, kind="stable")[: min(wanted, max(amount.shape[1] // 4, 1))]
    return order[clear[order] >= _LEAST_T].astype(np.int64)


def roles(sample: Sample, markers: Int64, generator: np.random.Generator) -> npt.NDArray[np.int8]:
    """MARKER at the tokens of marker units, OTHER at as many others of the same item with the nearest values: int8 [T]."""
    tokens = sample.tokens
    role = np.zeros(len(tokens), dtype=np.int8)
    is_marker = sample.usual & np.isin(tokens.unit, markers)
    role[is_marker] = MARKER
    others = np.flatnonzero(sample.usual & ~is_marker & (tokens.unit >= 0))
    values = tokens.per_token.get(VALUE, np.zeros(len(tokens), np.float32)).astype(np.float64)
    sequence = np.repeat(np.arange(tokens.n_items), tokens.lengths)
    # one key that orders by sequence, then by value; equal values stand in random order
    span = float(np.ptp(values)) + 2.0
    key = sequence * span + (values - values.min(initial=0.0)) + 1e-3 * generator.random(len(tokens))
    others = others[np.argsort(key[others], kind="stable")]
    wanted = np.flatnonzero(is_marker)
    if not len(others) or not len(wanted):
        return role
    wanted = wanted[np.argsort(key[wanted], kind="stable")]
    near = np.searchsorted(key[others], key[wanted])
    first = np.searchsorted(sequence[others], np.arange(tokens.n_items + 1))
    of_marker = sequence[wanted]
    near = _apart(near, of_marker, first[of_marker], first[of_marker + 1])
    role[others[near[near >= first[of_marker]]]] = OTHER
    return role


def _apart(position: Int64, part: Int64, start: Int64, stop: Int64) -> Int64:
    """Ascending positions within each part, all different and below its stop; where a part is too short, some are below its start.

    position, part: int64 [n], ascending by part. start, stop: of the part of each, half-open.
    """
    steps = np.arange(len(position))
    away = part * (int(stop.max(initial=0)) + len(position) + 1)  # so that no part pushes the next one
    moved = np.maximum.accumulate(np.maximum(position, start) - steps + away) + steps - away
    later = np.searchsorted(part, part, side="right") - 1 - steps  # positions of the part that come after this one
    return np.minimum(moved, stop - 1 - later)


def hidden_share(sample: Sample, share: float, generator: np.random.Generator) -> Bools:
    """A share of the tokens, to hide: bool [T]."""
    return sample.usual & (generator.random(len(sample.tokens)) < share)


@dataclass(frozen=True)
class Readout:
    """How much more a model predicts of markers than of other units, per sequence."""

    outcome: str
    """`value` or `distribution`"""
    markers: Int64
    """vocabulary ids of the marker units"""
    units: Int64
    """vocabulary ids of all units"""

    def score(self, predictions: Predictions, role: npt.NDArray[np.int8], sequence: Int64, n: int) -> Float64:
        """Float64 [n], NaN for a sequence without markers that are hidden.

        `value`: mean prediction at MARKER tokens minus that at OTHER tokens. `distribution`: mean log-probability of the marker
        units minus that of the other units, over the tokens that are MARKER. role, sequence: [T].
        """
        assert predictions.token is not None
        if not len(self.markers):
            return np.full(n, np.nan)
        if self.outcome == "value":
            values = predictions.token.detach().float().cpu().numpy().astype(np.float64)
            return _mean(values, role == MARKER, sequence, n) - _mean(values, role == OTHER, sequence, n)
        at = torch.from_numpy(np.flatnonzero(role == MARKER)).to(predictions.token.device)
        logs = predictions.token.detach()[at].float().log_softmax(dim=-1).cpu().numpy().astype(np.float64)
        rest = np.setdiff1d(self.units, self.markers)
        found = np.zeros(len(role))
        found[role == MARKER] = logs[:, self.markers].mean(axis=1) - logs[:, rest].mean(axis=1)
        return _mean(found, role == MARKER, sequence, n)


def _mean(values: Float64, chosen: Bools, sequence: Int64, n: int) -> Float64:
    counts = np.bincount(sequence[chosen], minlength=n)
    sums = np.bincount(sequence[chosen], values[chosen], minlength=n)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
