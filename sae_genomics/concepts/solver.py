"""Logistic regression with an L2 penalty, for many problems on the same rows at once.

Problem k has labels y[:, k], weights s[:, k] that add up to 1 (0 leaves a row out) and a penalty t[k]:

    minimise over w, b:  sum_i s_ik log(1 + exp(-z_ik (2 y_ik - 1))) + t_k |w_k|^2 / 2,   z_ik = x_i . w_k + b_k

The intercept b is not penalised. scikit-learn's LogisticRegression(C) with sample weights n s is the same problem with C = 1 / (n t).

Newton's method. Each step solves (X' D X + t) d = -g by conjugate gradients, all problems together: one iteration is two products of
matrices. The preconditioner is the diagonal of X' D X + t with D replaced by its weighted mean, which is close where the columns of x are
uncorrelated: `space.py` rotates them so. A step is halved where it does not lower the loss.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
_NEWTON_STEPS = 40
_CG_STEPS = 60
_HALVINGS = 12
_STILL_FLAT = 0.1


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
    at = _State(w, z, _sigmoid(z), y, weights, ridge)
    gradient = at.gradient(rows)
    for _ in range(_NEWTON_STEPS):
        norm = np.linalg.norm(gradient, axis=0)
        keep = norm > tolerance * scale[going]
        if not keep.any():
            break
        if not keep.all():
            at, gradient, norm, going = at.some(keep), gradient[:, keep], norm[keep], going[keep]
        curvature = at.weights * at.probability * (1 - at.probability)
        accuracy = norm * np.minimum(0.3, np.sqrt(norm / scale[going]))  # exact steps pay near the minimum alone
        step = _newton_step(rows, squares, curvature, at.ridge, gradient, accuracy)
        at, gradient, moved = _advance(rows, at, gradient, step)
        w[:, going] = at.w
        if not moved.all():  # no step lowers the loss any more: rounding
            at, gradient, going = at.some(moved), gradient[:, moved], going[moved]
    return Fit(w[:-1], w[-1])


@dataclass(frozen=True)
class _State:
    """Where the problems that still go on are: w [d + 1, problems]; z, probability, y, weights [rows, problems]; ridge as w."""

    w: Array
    z: Array
    probability: Array
    y: Array
    weights: Array
    ridge: Array

    def gradient(self, rows: Array) -> Array:
        slope: Array = rows.T @ (self.weights * (self.probability - self.y)) + self.ridge * self.w
        return slope

    def some(self, keep: npt.NDArray[np.bool_]) -> _State:
        return _State(*(getattr(self, each.name)[:, keep] for each in fields(self)))

    def moved(self, step: Array, along: Array) -> _State:
        z = self.z + along
        return replace(self, w=self.w + step, z=z, probability=_sigmoid(z))


def _advance(rows: Array, at: _State, gradient: Array, step: Array) -> tuple[_State, Array, npt.NDArray[np.bool_]]:
    """The state after the step, its gradient, and which problems moved.

    The loss is convex. Where it still falls at the end of the step, or hardly rises, the step is taken without computing the loss.
    """
    along = rows @ step
    slope = np.einsum("ij,ij->j", gradient, step)
    after = at.moved(step, along)
    following = after.gradient(rows)
    doubtful = np.einsum("ij,ij->j", following, step) > _STILL_FLAT * np.abs(slope)
    moved = np.ones(len(slope), bool)
    if doubtful.any():
        here = at.some(doubtful)
        length = _step_lengths(here, step[:, doubtful], along[:, doubtful], slope[doubtful])
        factor = np.ones(len(slope), rows.dtype)
        factor[doubtful] = length
        after = at.moved(factor * step, factor * along)
        following = after.gradient(rows)
        moved = factor > 0
    return after, following, moved


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


def _step_lengths(at: _State, step: Array, along: Array, slope: Array) -> Array:
    """1, or the first half of it that lowers the loss enough; 0 where none does. Costs no product of matrices."""
    kind = at.y.dtype
    noise = 10 * np.finfo(kind).eps
    length = np.ones(len(slope), kind)

    def loss(t: Array) -> Array:
        z, w = at.z + t * along, at.w + t * step
        fitted = np.einsum("ij,ij->j", at.weights, np.logaddexp(0, z) - at.y * z)
        total: Array = fitted + np.einsum("ij,ij->j", at.ridge, w * w) / 2
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
