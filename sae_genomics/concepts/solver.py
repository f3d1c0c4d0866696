"""Logistic regression with an L2 penalty, for many problems on the same rows at once.

Problem k has labels y[:, k], weights s[:, k] that add up to 1 (0 leaves a row out) and a penalty t[k]:

    minimise over w, b:  sum_i s_ik log(1 + exp(-z_ik (2 y_ik - 1))) + t_k |w_k|^2 / 2,   z_ik = x_i . w_k + b_k

The intercept b is not penalised. scikit-learn's LogisticRegression(C) with sample weights n s is the same problem with C = 1 / (n t).

Newton's method. Each step solves (X' D X + t) d = -g by conjugate gradients, all problems together: one iteration is two products of
matrices. The preconditioner is the diagonal of X' D X + t with D replaced by its weighted mean, which is close where the columns of x are
uncorrelated: `space.py` rotates them so. A step is halved where it does not lower the loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
_NEWTON_STEPS = 40
_CG_STEPS = 60
_HALVINGS = 12


@dataclass(frozen=True)
class Fit:
    """weights: [d, problems]. intercepts: [problems]."""

    weights: Array
    intercepts: Array

    def scores(self, x: Array) -> Array:
        """[rows, problems]: the log odds."""
        scores: Array = x @ self.weights + self.intercepts
        return scores


def balanced(y: Array, used: Array | None = None) -> Array:
    """Weights with which both labels count for one half: [rows, problems]. used: 0 or 1, rows of each problem; None: all.

    A problem without rows of one label has weights of 0 on the other's side too small to matter: they add up to one half.
    """
    rows = np.ones_like(y) if used is None else used
    inside, outside = rows * y, rows * (1 - y)
    half: Array = inside / (2 * np.maximum(inside.sum(axis=0), 1)) + outside / (2 * np.maximum(outside.sum(axis=0), 1))
    return half


def fit_logistic(
    x: Array, y: Array, weights: Array, penalty: Array, tolerance: float = 1e-6, start: Array | None = None
) -> Fit:
    """The minimum of every problem, to a gradient of `tolerance` times that at zero.

    x: [rows, d]. y, weights: [rows, problems]. penalty: [problems]. start: [d + 1, problems], the intercept last; default: zeros.
    All arithmetic is in x's dtype.
    """
    kind = x.dtype
    n_problems = y.shape[1]
    rows = np.concatenate([x, np.ones((len(x), 1), kind)], axis=1)
    ridge = np.tile(np.asarray(penalty, kind), (rows.shape[1], 1))
    ridge[-1] = 0
    y, weights = y.astype(kind, copy=False), weights.astype(kind, copy=False)
    squares = rows * rows
    w = np.zeros((rows.shape[1], n_problems), kind) if start is None else start.astype(kind)
    z = rows @ w
    scale = np.linalg.norm(rows.T @ (weights * (kind.type(0.5) - y)), axis=0) + np.finfo(kind).tiny
    going = np.arange(n_problems)
    for _ in range(_NEWTON_STEPS):
        now = w[:, going]
        probability = _sigmoid(z[:, going])
        gradient = rows.T @ (weights[:, going] * (probability - y[:, going])) + ridge[:, going] * now
        norm = np.linalg.norm(gradient, axis=0)
        keep = norm > tolerance * scale[going]
        if not keep.any():
            break
        going, now, probability, gradient, norm = (
            going[keep], now[:, keep], probability[:, keep], gradient[:, keep], norm[keep],
        )  # fmt: skip
        curvature = weights[:, going] * probability * (1 - probability)
        accuracy = norm * np.minimum(0.3, np.sqrt(norm / scale[going]))  # exact steps pay near the minimum alone
        step = _newton_step(rows, squares, curvature, ridge[:, going], gradient, accuracy)
        along, slope = rows @ step, np.einsum("ij,ij->j", gradient, step)
        length = _step_lengths(
            (z[:, going], along), (now, step), (y[:, going], weights[:, going]), ridge[:, going], slope
        )
        w[:, going] += length * step
        z[:, going] += length * along
        going = going[length > 0]  # no step lowers the loss any more: rounding
        if not len(going):
            break
    return Fit(w[:-1], w[-1])


def _newton_step(
    rows: Array, squares: Array, curvature: Array, ridge: Array, gradient: Array, accuracy: Array
) -> Array:
    """d of the module's text, to a residual of `accuracy`."""
    tiny = np.finfo(rows.dtype).tiny
    diagonal = squares.T @ curvature + ridge
    diagonal = np.maximum(diagonal, tiny)
    step, residual = np.zeros_like(gradient), -gradient
    scaled = residual / diagonal
    direction = scaled.copy()
    product = np.einsum("ij,ij->j", residual, scaled)
    for _ in range(_CG_STEPS):
        applied = rows.T @ (curvature * (rows @ direction)) + ridge * direction
        bend = np.einsum("ij,ij->j", direction, applied)
        length = np.where(bend > tiny, product / np.maximum(bend, tiny), 0).astype(rows.dtype)
        step += length * direction
        residual -= length * applied
        if (np.linalg.norm(residual, axis=0) <= accuracy).all():
            break
        scaled = residual / diagonal
        following = np.einsum("ij,ij->j", residual, scaled)
        direction = scaled + (following / np.maximum(product, tiny)).astype(rows.dtype) * direction
        product = following
    return step


def _step_lengths(
    z: tuple[Array, Array], w: tuple[Array, Array], told: tuple[Array, Array], ridge: Array, slope: Array
) -> Array:
    """1, or the first half of it that lowers the loss enough; 0 where none does. Costs no product of matrices."""
    y, weights = told
    kind = y.dtype
    noise = 10 * np.finfo(kind).eps
    length = np.ones(len(slope), kind)

    def loss(t: Array) -> Array:
        at, place = z[0] + t * z[1], w[0] + t * w[1]
        fitted = np.einsum("ij,ij->j", weights, np.logaddexp(0, at) - y * at)
        total: Array = fitted + np.einsum("ij,ij->j", ridge, place * place) / 2
        return total

    before = loss(np.zeros_like(length))
    for _ in range(_HALVINGS):
        bad = loss(length) > before + 1e-4 * length * slope + noise * np.abs(before)
        if not bad.any():
            return length
        length = np.where(bad, length / 2, length).astype(kind)
    return np.where(bad, 0, length).astype(kind)


def _sigmoid(z: Array) -> Array:
    half: Array = np.tanh(z / 2)
    return (1 + half) / 2
