"""Principal and independent components of a layer's activations, found on a sample of training rows with scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA, FastICA
from sklearn.exceptions import ConvergenceWarning

from sae_genomics.associations.linear_units import LinearUnits

MAX_COMPONENTS = 256  # of wide activations; more would cost hours and name little that the first do not
FIT_ROWS = 1 << 16  # rows that components are found on,
FIT_BYTES = 1 << 28  # and bytes of them in float32
ICA_ITERATIONS = 200
_LEAST_VARIANCE = 1e-10  # of the largest component's: less is rounding

Pause = Callable[[], None]


def fit_rows(d_model: int) -> int:
    """How many rows components are found on, at most."""
    return max(1, min(FIT_ROWS, FIT_BYTES // (4 * d_model)))


@dataclass(frozen=True)
class PrincipalComponents:
    """directions: float64 [n, d_model], of norm 1, largest variance first. std: float64 [n]. center: float64 [d_model]."""

    directions: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]
    center: npt.NDArray[np.float64]


def principal_components(rows: npt.NDArray[np.float32]) -> PrincipalComponents:
    """min(d_model, MAX_COMPONENTS) principal components, those without variance left out. rows: float32 [n, d_model]."""
    d_model = rows.shape[1]
    n = min(d_model, MAX_COMPONENTS, len(rows) - 1)
    if n < 1 or not np.ptp(rows, axis=0).any():
        return PrincipalComponents(np.zeros((0, d_model)), np.zeros(0), np.zeros(d_model))
    fitted = PCA(n, svd_solver="covariance_eigh" if len(rows) >= d_model else "full").fit(rows.astype(np.float64))
    variance = fitted.explained_variance_
    varying = variance > _LEAST_VARIANCE * max(float(variance[0]), np.finfo(np.float32).tiny)
    return PrincipalComponents(fitted.components_[varying], np.sqrt(variance[varying]), fitted.mean_)


def of_principal(principal: PrincipalComponents, rows: npt.NDArray[np.float32]) -> LinearUnits:
    """The principal components as units."""
    if not len(principal.std):
        return LinearUnits.none(rows.shape[1])
    return LinearUnits.of_directions(principal.directions, principal.center, rows)


def of_independent(
    principal: PrincipalComponents, rows: npt.NDArray[np.float32], seed: int, pause: Pause = lambda: None
) -> tuple[LinearUnits, str | None]:
    """As many independent components of the space of the principal ones (FastICA, Hyvärinen 1999; logcosh, all at once).

    pause: called once per iteration; may raise.

    Returns them, and what a reader must know where the iteration did not end by itself. Its last state is then used: a rotation
    of the standardised principal components, as any result is, but one that another seed need not find again.
    """
    if not len(principal.std):
        return LinearUnits.none(rows.shape[1]), None
    whitening = principal.directions / principal.std[:, None]

    def derivatives(x: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Of log cosh: the first, in place, and each component's mean of the second."""
        pause()
        np.tanh(x, out=x)
        return x, 1 - np.einsum("ij,ij->i", x, x) / x.shape[1]

    white = ((rows - principal.center.astype(np.float32)) @ whitening.T.astype(np.float32)).astype(np.float32)
    method = FastICA(whiten=False, fun=derivatives, max_iter=ICA_ITERATIONS, random_state=seed)
    with warnings.catch_warnings(record=True) as warnings_given:
        warnings.simplefilter("always", ConvergenceWarning)
        rotation = method.fit(white).components_.astype(np.float64)
    if not np.isfinite(rotation).all():
        failed = "independent components could not be computed: the iteration gave values that are not finite"
        return LinearUnits.none(rows.shape[1]), failed
    note = None
    if any(issubclass(warning.category, ConvergenceWarning) for warning in warnings_given):
        note = f"FastICA did not converge in {ICA_ITERATIONS} iterations; the components are those of the last one"
    return LinearUnits.of_directions(rotation @ whitening, principal.center, rows), note
