"""How much of the activations' variance is which unit (gene) a token is, and how much of the rest the features reproduce.

With c = x - mean[unit] (the means of training cells), e = x - x^ the error of the reconstruction, and bars for means over the rows,

    identity variance = 1 - sum |c - c_bar|^2 / sum |x - x_bar|^2     share of the variance that the unit alone explains
    FVU               = sum |e|^2 / sum |x - x_bar|^2                 of the whole activation
    FVU centred       = sum |e|^2 / sum |c - c_bar|^2                 of the part that the unit does not explain

so FVU = FVU centred x (1 - identity variance). All three mean the same for an SAE that reads x and for one that reads c: in both
cases e is the error of the whole activation. An SAE that gave each gene's mean and nothing else would have an FVU centred of 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_genomics.sae.evaluate import Evaluation, evaluate
from sae_genomics.sae.load import Encoder
from sae_genomics.sae.unit_means import UnitMeans

UnitRows = Iterable[tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]]


@dataclass(frozen=True)
class Measured:
    """What one pass measured. seen: on what the SAE reads. The others are as above, None where the variance they need is 0.

    explained_variance: of the whole activation; a constant error is not held against it.
    """

    seen: Evaluation
    fvu: float | None
    explained_variance: float | None
    fvu_centred: float | None
    identity_variance: float | None


def measure(encoder: Encoder, means: UnitMeans, blocks: UnitRows) -> Measured | None:
    """Measure on blocks of rows with their units. None when there is no row."""
    whole, centred = _Deviations(), _Deviations()

    def seen() -> Iterator[npt.NDArray[np.float32]]:
        for x, units in blocks:
            rest = means.centred(x, units)
            whole.add(x)
            centred.add(rest)
            yield x if encoder.means is None else rest

    found = evaluate(encoder, seen())
    if found is None:
        return None
    total, rest = whole.total, centred.total
    reads_all = encoder.means is None  # then `evaluate` has measured these already
    return Measured(
        seen=found,
        fvu=found.fvu if reads_all else _over(found.squared_error, total),
        explained_variance=found.explained_variance if reads_all else _less(_over(found.error_variance, total)),
        fvu_centred=_over(found.squared_error, rest),
        identity_variance=_less(_over(rest, total)),
    )


def _over(part: float, total: float) -> float | None:
    return part / total if total > 0 else None


def _less(share: float | None) -> float | None:
    return None if share is None else 1 - share


class _Deviations:
    """Sum of squared deviations from the mean, over blocks of rows."""

    def __init__(self) -> None:
        self._shift: npt.NDArray[np.float64] | None = None
        self._rows, self._sum, self._squared = 0, np.zeros(1), 0.0

    def add(self, x: npt.NDArray[np.float32]) -> None:
        if not len(x):
            return
        values = x.astype(np.float64)
        if self._shift is None:  # squares of numbers near 0 do not cancel
            self._shift = values.mean(axis=0)
        values -= self._shift
        self._rows += len(x)
        self._sum = self._sum + values.sum(axis=0)
        self._squared += float(np.einsum("td,td->", values, values))

    @property
    def total(self) -> float:
        """0 where the rows do not vary by more than rounding."""
        rest = self._squared - float(self._sum @ self._sum) / max(self._rows, 1)
        return rest if rest > 1e-12 * self._squared else 0.0
