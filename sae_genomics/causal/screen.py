"""First-order effects of all features of a layer, from one forward and one backward pass per target.

With f a weighted sum of predictions and g_t its gradient with respect to the activations at token t, ablating feature j changes f by

    f(h') - f(h) = sum_t g_t . (h'_t - h_t) + ... ≈ - sum_t z_tj (g_t . W_dec[j])

which is exact where the rest of the model is linear (attribution patching: Nanda, 2023; Syed, Rager and Conmy, "Attribution patching
outperforms automated circuit discovery", 2023). The products g_t . W_dec[j] are made only where z_tj > 0. Sequences do not
see each other, so one backward pass gives each sequence's own part: effects are summed within items first, then averaged over items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from sae_genomics.activations.extraction.cutting import cut_windows
from sae_genomics.causal.encoded import Encoded, encode_paused
from sae_genomics.kernels.dots import pair_values
from sae_genomics.models.editing import Paused, Predictions

if TYPE_CHECKING:
    from sae_genomics.models import FoundationModel
    from sae_genomics.sae.load import Encoder

Float64 = npt.NDArray[np.float64]
Outcome = str  # token | from_item
_PAIRS = 1 << 16  # of tokens and features, whose vectors are multiplied at once on an accelerator
BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Screen:
    """First-order effects of ablating each feature, over some items. Add those of several batches with `+`."""

    sums: Float64
    """[d_sae, n_targets], sums over items"""
    squares: Float64
    """[d_sae, n_targets], sums over items of the squares"""
    n_items: npt.NDArray[np.int64]
    """[d_sae], items in which the feature is active"""
    total_items: int

    @property
    def mean(self) -> Float64:
        """[d_sae, n_targets], over the items in which the feature is active; 0 where there is none."""
        return self.sums / np.maximum(self.n_items, 1)[:, None]

    @property
    def root_mean_square(self) -> Float64:
        """[d_sae, n_targets], over the same items: how much happens, whatever its sign."""
        return np.sqrt(self.squares / np.maximum(self.n_items, 1)[:, None])

    def __add__(self, other: Screen) -> Screen:
        return Screen(
            self.sums + other.sums, self.squares + other.squares, self.n_items + other.n_items,
            self.total_items + other.total_items,
        )  # fmt: skip


def first_order(
    model: FoundationModel,
    paused: Paused,
    encoder: Encoder,
    target_weights: npt.NDArray[np.floating],
    *,
    outcome: Outcome = "token",
    batch_tokens: int = BATCH_TOKENS,
    encoded: Encoded | None = None,
) -> Float64:
    """Mean first-order effect of ablating each feature, over the items in which it is active: float64 [d_sae, n_targets].

    target_weights: [T, n_targets], what each target's sum weighs each token's prediction with, such as 1 / n at n tokens of an item.
    outcome: `token` or `from_item`. The prediction of a token is its value or, of a distribution, the log-probability of the token itself.
    """
    return screen(
        model, paused, encoder, target_weights, outcome=outcome, batch_tokens=batch_tokens, encoded=encoded
    ).mean


def screen(
    model: FoundationModel,
    paused: Paused,
    encoder: Encoder,
    target_weights: npt.NDArray[np.floating],
    *,
    outcome: Outcome = "token",
    batch_tokens: int = BATCH_TOKENS,
    encoded: Encoded | None = None,
) -> Screen:
    """The same with what is needed to put several batches together. Windows of one item must stand in one batch."""
    weights = np.asarray(target_weights, np.float32).reshape(len(paused.batch), -1)
    encoded = encode_paused(model, paused, encoder) if encoded is None else encoded
    effects = _by_entry(encoder, encoded, gradients(model, paused, weights, outcome=outcome, batch_tokens=batch_tokens))
    items, item_of = np.unique(paused.batch.item, return_inverse=True)
    keys = encoded.feature.astype(np.int64) * len(items) + item_of[encoded.token]
    pairs, of_entry = np.unique(keys, return_inverse=True)
    feature = pairs // max(len(items), 1)
    sums, squares = np.zeros((encoder.d_sae, weights.shape[1])), np.zeros((encoder.d_sae, weights.shape[1]))
    for target in range(weights.shape[1]):
        by_item = np.bincount(of_entry, weights=effects[:, target], minlength=len(pairs))
        sums[:, target] = np.bincount(feature, weights=by_item, minlength=encoder.d_sae)
        squares[:, target] = np.bincount(feature, weights=by_item**2, minlength=encoder.d_sae)
    return Screen(sums, squares, np.bincount(feature, minlength=encoder.d_sae), len(items))


def gradients(
    model: FoundationModel,
    paused: Paused,
    target_weights: npt.NDArray[np.floating],
    *,
    outcome: Outcome = "token",
    batch_tokens: int = BATCH_TOKENS,
) -> torch.Tensor:
    """Gradients of each target with respect to the activations: float32 [n_targets, T, d_model]. See `first_order`."""
    batch, n_targets = paused.batch, target_weights.shape[1]
    found = torch.zeros(n_targets, *paused.activations.shape, device=paused.activations.device)
    for window in cut_windows(batch.lengths, batch_tokens):
        rows = slice(int(batch.item_ptr[window.start]), int(batch.item_ptr[window.stop]))
        part = paused.take(np.arange(window.start, window.stop))
        weights = torch.from_numpy(np.ascontiguousarray(target_weights[rows], np.float32)).to(found.device)
        with torch.enable_grad():
            x = part.activations.detach().clone().requires_grad_()
            predicted = _predicted(model, part, model.resume(part, x), outcome)
            for target in range(n_targets):
                again = target < n_targets - 1
                (gradient,) = torch.autograd.grad(
                    (predicted * weights[:, target]).sum(), [x], retain_graph=again, allow_unused=True
                )
                if gradient is not None:
                    found[target, rows] = gradient.float()
    return found


def _predicted(model: FoundationModel, paused: Paused, found: Predictions, outcome: Outcome) -> torch.Tensor:
    """[T], what targets weigh."""
    predicted = found.token if outcome == "token" else found.from_item
    if predicted is None:
        raise ValueError(f"model {model.info.name} predicts no {outcome}")
    if model.outcome != "distribution":
        return predicted
    own = torch.from_numpy(paused.batch.token.astype(np.int64)).to(predicted.device)[:, None]
    return predicted.log_softmax(dim=1).gather(1, own)[:, 0]


def _by_entry(encoder: Encoder, encoded: Encoded, gradient: torch.Tensor) -> Float64:
    """- z_tj (g_t . W_dec[j]) of each entry and target: float64 [n, n_targets]."""
    row, feature = encoded.token, encoded.feature.astype(np.int64)
    products = np.empty((len(row), len(gradient)))
    if gradient.device.type == "cpu":
        nothing = np.zeros(encoder.d_sae, np.float32)
        W_dec = np.ascontiguousarray(encoder.W_dec.cpu().numpy())
        for target in range(len(gradient)):
            products[:, target] = pair_values(gradient[target].numpy(), W_dec, nothing, row, feature)
    else:
        decoder = encoder.W_dec.to(gradient.device)
        for start in range(0, len(row), _PAIRS):
            some = slice(start, start + _PAIRS)
            at, of = (torch.from_numpy(values[some]).to(gradient.device) for values in (row, feature))
            found = torch.einsum("cnd,nd->nc", gradient[:, at], decoder[of])
            products[some] = found.cpu().numpy()
    return -encoded.activation[:, None].astype(np.float64) * products


def rank_correlation(first: npt.NDArray[np.floating], exact: npt.NDArray[np.floating]) -> float:
    """Spearman's correlation of first-order and exact effects of the same features; NaN below three of them, or where one is constant."""
    from scipy.stats import rankdata

    given = np.isfinite(first) & np.isfinite(exact)
    if given.sum() < 3:
        return float("nan")
    a, b = (rankdata(values[given]) for values in (np.asarray(first), np.asarray(exact)))
    if not a.std() or not b.std():
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def to_check(effects: npt.NDArray[np.floating], n_top: int, n_random: int, seed: int) -> npt.NDArray[np.int64]:
    """Features whose exact effects are worth measuring: the largest by absolute value, then a random sample of the others that are
    not 0. int64, distinct. effects: [d_sae]."""
    candidates = np.flatnonzero(np.nan_to_num(effects) != 0)
    order = candidates[np.argsort(-np.abs(effects[candidates]), kind="stable")]
    rest = np.sort(order[n_top:])
    drawn = np.random.default_rng(seed).choice(rest, min(n_random, len(rest)), replace=False) if len(rest) else rest
    return np.concatenate([order[:n_top], np.sort(drawn)])
