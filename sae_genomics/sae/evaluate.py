"""How good an SAE is, measured on rows it was not trained on, in one pass and flat memory.

FVU = sum |x - x^|^2 / sum |x - mean(x)|^2                                (fraction of variance unexplained)
explained variance = 1 - sum_d Var(x_d - x^_d) / sum_d Var(x_d)           (a constant error is not held against it)
L0 = active latents a token;  dead share = latents active on none of the rows
mean absolute decoder cosine = mean over all pairs i < j of |cos(W_dec[i], W_dec[j])|
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sae_genomics.sae.load import Encoder
from sae_genomics.sae.product import linear

LOG10_EDGES = tuple(float(edge) for edge in np.arange(-6.0, 0.25, 0.25))
EVALUATE_ROWS = 4096  # of a block of rows
_COSINE_BLOCK = 2048


@dataclass(frozen=True)
class Evaluation:
    """What one pass measured.

    tokens: rows. fvu, explained_variance: NaN when the rows do not vary. l0: mean active latents a row.
    firing_rate: float64 [d_sae], share of the rows a latent is active on.
    varies: whether the rows vary. relative_error: sum of squared errors / sum of squared activations, which rows that do
    not vary have too. squared_error: sum of squared errors; error_variance: the same about the mean error.
    """

    tokens: int
    fvu: float
    explained_variance: float
    l0: float
    firing_rate: npt.NDArray[np.float64]
    varies: bool = True
    relative_error: float = 0.0
    squared_error: float = 0.0
    error_variance: float = 0.0

    @property
    def dead_share(self) -> float:
        return float((self.firing_rate == 0).mean())


def evaluate(encoder: Encoder, rows: Iterable[npt.NDArray[np.float32] | torch.Tensor]) -> Evaluation | None:
    """Measure on blocks of rows, float32 [n, d_in] each. None when there is not a row."""
    tokens, active = 0, 0
    sums = {name: np.zeros(encoder.d_in) for name in ("x", "xx", "error")}
    squared_error, squared = 0.0, 0.0
    fired = np.zeros(encoder.d_sae, np.int64)
    shift: npt.NDArray[np.float64] | None = None
    for block in rows:
        x = torch.as_tensor(block, dtype=torch.float32)
        if not len(x):
            continue
        token, feature, activation = encoder.encode_sparse(x)
        error = (encoder.decode_sparse(token, feature, activation, len(x)).cpu() - x.cpu()).numpy()
        values = x.cpu().numpy().astype(np.float64)
        squared += float(np.einsum("td,td->", values, values))
        if shift is None:  # variances of numbers near 0 do not cancel
            shift = values.mean(axis=0)
        values -= shift
        sums["x"] += values.sum(axis=0)
        sums["xx"] += np.einsum("td,td->d", values, values)
        sums["error"] += error.sum(axis=0, dtype=np.float64)
        squared_error += float(np.einsum("td,td->", error, error, dtype=np.float64))
        fired += np.bincount(feature, minlength=encoder.d_sae)
        tokens, active = tokens + len(x), active + len(feature)
    if not tokens:
        return None
    variance = float((sums["xx"] - sums["x"] ** 2 / tokens).sum())
    error_variance = squared_error - float((sums["error"] ** 2).sum()) / tokens
    varies = variance > 1e-12 * max(float(sums["xx"].sum()), 1e-30)
    return Evaluation(
        tokens=tokens,
        fvu=squared_error / variance if varies else float("nan"),
        explained_variance=1 - error_variance / variance if varies else float("nan"),
        l0=active / tokens,
        firing_rate=fired / tokens,
        varies=varies,
        relative_error=squared_error / squared if squared > 0 else squared_error,
        squared_error=squared_error,
        error_variance=error_variance,
    )


def mean_abs_cosine(W_dec: torch.Tensor) -> tuple[float, float]:
    """Mean of |cos| over all pairs of decoder rows, and the mean over rows of their largest |cos| with another.

    W_dec: float32 [d_sae, d_in]. One latent alone has no pair: both are 0. Block by block; no [d_sae, d_sae] is kept.
    """
    unit = torch.nn.functional.normalize(W_dec.float(), dim=1)
    n = len(unit)
    if n < 2:
        return 0.0, 0.0
    total = 0.0
    largest = torch.zeros(n, device=unit.device)
    for first in range(0, n, _COSINE_BLOCK):
        left = slice(first, min(first + _COSINE_BLOCK, n))
        for second in range(first, n, _COSINE_BLOCK):
            right = slice(second, min(second + _COSINE_BLOCK, n))
            cosine = linear(unit[left], unit[right], torch.zeros(right.stop - right.start, device=unit.device)).abs_()
            if first == second:
                cosine.fill_diagonal_(0)
                total += float(cosine.sum(dtype=torch.float64)) / 2
            else:
                total += float(cosine.sum(dtype=torch.float64))
                largest[right] = torch.maximum(largest[right], cosine.amax(dim=0))
            largest[left] = torch.maximum(largest[left], cosine.amax(dim=1))
    return total / (n * (n - 1) / 2), float(largest.mean())


def firing_rate_histogram(firing_rate: npt.NDArray[np.floating]) -> dict[str, list[float] | list[int]]:
    """Latents by log10 firing rate; the first bin also takes everything below it, dead latents included."""
    log_rate = np.log10(np.maximum(firing_rate, 10 ** LOG10_EDGES[0]))
    counts, _ = np.histogram(np.clip(log_rate, LOG10_EDGES[0], LOG10_EDGES[-1]), bins=np.array(LOG10_EDGES))
    return {"log10_edges": list(LOG10_EDGES), "counts": counts.tolist()}
