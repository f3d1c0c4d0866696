"""Which features of layer l drive feature j of layer m: gradient x activation through the model, with its null and its check.

    t_j        sum of feature j's activations over an item's tokens
    G_j(t)     gradient of t_j with respect to layer l's activations at token t, the set of active features held as it is
    w_ij       sum over tokens of z_i(t) W_dec,i . G_j(t) = W_dec,i . S_ij,       S_ij = sum over tokens of z_i(t) G_j(t)

w_ij is what feature i adds to t_j, to first order. **Null**: a random direction u with the norm of W_dec,i in its place at every token. For
u uniform on the sphere of d dimensions (u . S / |S|)^2 has the distribution Beta(1/2, (d - 1) / 2), so that p needs no draws. **Check**:
some features are removed at all their tokens (h - z_i W_dec,i, the reconstruction error kept), the model goes on to layer m, its SAE encodes
anew, and the fall of t_j stands beside w_ij.

Gradient times activation: Shrikumar et al. 2017 (arXiv:1704.02685); between features of SAEs: Marks et al. 2024 (arXiv:2403.19647).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy import sparse, stats

from sae_genomics.activations.extraction.cutting import cut_batches
from sae_genomics.associations.multiple_testing import benjamini_hochberg
from sae_genomics.sae.load import Encoder
from sae_genomics.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from sae_genomics.models import FoundationModel
    from sae_genomics.models.editing import Paused

RARE = 0.01  # share of random directions that the column `null` lets through
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Limits:
    """targets: features of the later layer. edges: causes that are kept of each. checked: features that are removed. seed: draws these."""

    targets: int
    edges: int
    checked: int
    seed: int


class Step:
    """A model between two layers, on some items, batch by batch.

    tokens: of the items. first, second: the SAEs of the earlier and the later layer. item: int64 [T], number of the item.
    Only tokens that are not special, and are stored, have features.
    """

    def __init__(
        self, model: FoundationModel, tokens: Tokens, item: Int64, hook: str, layers: tuple[int, int],
        encoders: tuple[Encoder, Encoder], batch_tokens: int,
    ):  # fmt: skip
        self.model, self.later = model, layers[1]
        self.first, self.second = encoders
        self.n_items = int(item.max()) + 1
        self.batches: list[Paused] = []
        counted, items, vocabulary = [], [], []
        for sequences in cut_batches(tokens.lengths, batch_tokens):
            batch = tokens.take(sequences)
            rows = tokens.rows_of(sequences)
            self.batches.append(model.pause(batch, layers[0], hook))
            usual = batch.counted
            counted.append(usual)
            items.append(item[rows][usual])
            vocabulary.append(batch.token[usual])
        self.counted, self.vocabulary = counted, vocabulary
        self.item = np.concatenate(items)
        self.n_tokens = len(self.item)
        self.early = self.features(self.first, [each.activations for each in self.batches])

    def features(self, encoder: Encoder, x: list[torch.Tensor]) -> sparse.csr_matrix:
        """A layer's features on the counted tokens: float32 csr [tokens, d_sae]. x: each batch's activations."""
        parts = []
        for each, usual, vocabulary in zip(x, self.counted, self.vocabulary, strict=True):
            rows = each.detach().float().cpu().numpy()[usual]
            token, feature, value = encoder.encode_sparse(encoder.input(rows, vocabulary))
            parts.append(sparse.csr_matrix((value, (token, feature)), shape=(len(rows), encoder.d_sae)))
        return sparse.vstack(parts, format="csr")

    def later_features(self, removed: int | None = None) -> sparse.csr_matrix:
        """The later layer's features; removed: a feature of the earlier layer that is left out at all its tokens."""
        found = []
        with torch.no_grad():
            for paused, rows, usual in self._parts():
                x = paused.activations
                if removed is not None:
                    part = torch.zeros(len(x), device=x.device)
                    part[torch.from_numpy(np.flatnonzero(usual)).to(x.device)] = torch.from_numpy(
                        self.early[rows, removed].toarray().ravel()
                    ).to(x.device)
                    x = x.float() - part[:, None] * self.first.W_dec[removed].to(x.device)
                found.append(self.model.resume(paused, x, layers=(self.later,), predict=False).layers[self.later])
        return self.features(self.second, found)

    def gradients(self, late: sparse.csr_matrix, targets: Int64) -> list[Float32]:
        """G_j on the counted tokens, of each target: float32 [tokens, d_in]. late: the later layer's features."""
        found: list[list[Float32]] = [[] for _ in targets]
        for paused, rows, usual in self._parts():
            with torch.enable_grad():
                x = paused.activations.detach().float().requires_grad_(True)
                later = self.model.resume(paused, x, layers=(self.later,), predict=False).layers[self.later].float()
                at = np.flatnonzero(usual)
                for number, target in enumerate(targets.tolist()):
                    active = torch.from_numpy(at[late[rows, target].toarray().ravel() > 0]).to(x.device)
                    # all else in the pre-activation (bias, unit means) has no gradient
                    total = (later[active] @ self.second.W_enc[:, target].to(x.device)).sum()
                    gradient = (
                        torch.autograd.grad(total, x, retain_graph=True)[0] if len(active) else torch.zeros_like(x)
                    )
                    found[number].append(gradient.detach().cpu().numpy()[usual])
        return [np.concatenate(each) for each in found]

    def _parts(self) -> list[tuple[Paused, slice, npt.NDArray[np.bool_]]]:
        """Each batch, its rows among the counted tokens, and which of its tokens count."""
        edges = np.concatenate([[0], np.cumsum([int(each.sum()) for each in self.counted])]).tolist()
        rows = [slice(start, stop) for start, stop in pairwise(edges)]
        return list(zip(self.batches, rows, self.counted, strict=True))


@dataclass(frozen=True)
class Attribution:
    """edges: rows of attribution.parquet without the layers. rank_correlation: of weight and exact over the pairs that were ablated;
    NaN below three. n_checked: how many pairs these are."""

    edges: pd.DataFrame
    rank_correlation: float
    n_checked: int


def attribute(step: Step, limits: Limits, advance: Callable[[], None] = lambda: None) -> Attribution:
    """The strongest causes of the strongest features of the later layer. advance: called after each pass; it may raise Interrupted."""
    late = step.later_features()
    advance()
    sums = np.asarray(late.sum(axis=0), dtype=np.float64).ravel()
    targets = np.argsort(-sums, kind="stable")[: limits.targets]
    targets = targets[sums[targets] > 0]
    live = np.flatnonzero(np.diff(step.early.tocsc().indptr) > 0)
    if not len(targets) or not len(live):
        return Attribution(_no_rows(), float("nan"), 0)
    gradients = step.gradients(late, targets)
    advance()
    weight, null, p = (np.stack(each) for each in zip(*(_weights(step, live, G) for G in gradients), strict=True))
    q = benjamini_hochberg(p.ravel()).reshape(p.shape)
    strongest = np.argsort(-np.abs(weight), axis=1, kind="stable")[:, : limits.edges]
    sources = _checked(weight, strongest, limits)
    exact = np.full(weight.shape, np.nan)
    for source in sources.tolist():
        without = step.later_features(int(live[source]))
        fall = sums[targets] - np.asarray(without[:, targets].sum(axis=0), dtype=np.float64).ravel()
        exact[:, source] = fall / step.n_items
        advance()
    edge = np.zeros(weight.shape, dtype=bool)
    np.put_along_axis(edge, strongest, True, axis=1)
    target, source = np.nonzero(edge | ~np.isnan(exact))
    n_items, n_agree = _items(step, late, gradients, targets, live, target, source)
    table = pd.DataFrame(
        {
            "feature_i": live[source], "feature_j": targets[target], "edge": edge[target, source], "weight": weight[target, source],
            "share": weight[target, source] / (sums[targets[target]] / step.n_items), "exact": exact[target, source],
            "null": null[target, source], "above_null": np.abs(weight[target, source]) > null[target, source],
            "p_value": p[target, source], "q_value": q[target, source], "n_items": n_items, "n_agree": n_agree,
        }
    )  # fmt: skip
    both = ~np.isnan(exact)
    enough = int(both.sum()) >= 3 and np.ptp(weight[both]) > 0 and np.ptp(exact[both]) > 0
    rank = float(stats.spearmanr(weight[both], exact[both]).statistic) if enough else float("nan")
    return Attribution(table, rank, int(both.sum()))


def _weights(step: Step, live: Int64, gradient: Float32) -> tuple[Float64, Float64, Float64]:
    """w_ij, its null and p of one target: float64 [live features] each."""
    S = (step.early[:, live].T @ gradient).astype(np.float64) / step.n_items
    W = step.first.W_dec.cpu().numpy()[live].astype(np.float64)
    weight, reach = (W * S).sum(axis=1), np.linalg.norm(W, axis=1) * np.linalg.norm(S, axis=1)
    d = W.shape[1]
    squared = np.divide(weight**2, reach**2, out=np.zeros_like(weight), where=reach > 0)
    p = stats.beta.sf(np.minimum(squared, 1.0), 0.5, (d - 1) / 2)
    return weight, reach * np.sqrt(stats.beta.isf(RARE, 0.5, (d - 1) / 2)), p


def _checked(weight: Float64, strongest: Int64, limits: Limits) -> Int64:
    """Columns of the features that are removed: the strongest causes, then others by lot; ascending."""
    n = weight.shape[1]
    order = np.argsort(-np.abs(weight).max(axis=0), kind="stable")
    strong = order[np.isin(order, strongest)][: limits.checked // 2]
    rest = np.setdiff1d(np.arange(n), strong)
    drawn = np.random.default_rng(limits.seed).permutation(rest)[: limits.checked - len(strong)]
    return np.sort(np.concatenate([strong, drawn]))


def _items(
    step: Step,
    late: sparse.csr_matrix,
    gradients: list[Float32],
    targets: Int64,
    live: Int64,
    target: Int64,
    source: Int64,
) -> tuple[Int64, Int64]:
    """Items in which both features of each pair are active, and those whose own weight has the sign of the sum: int64 [pairs]."""
    of_item = sparse.csr_matrix(
        (np.ones(step.n_tokens, np.float32), (step.item, np.arange(step.n_tokens))), shape=(step.n_items, step.n_tokens)
    )
    drives, active = (of_item @ step.early).tocsc(), (of_item @ late).tocsc()
    W, early = step.first.W_dec.cpu().numpy(), step.early.tocsc()
    n_items, n_agree = np.zeros(len(target), dtype=np.int64), np.zeros(len(target), dtype=np.int64)
    for number in np.unique(target).tolist():
        mine = np.flatnonzero(target == number)
        chosen = live[source[mine]]
        along = early[:, chosen].multiply(gradients[number] @ W[chosen].T)  # tokens x pairs
        own = np.asarray((of_item @ along).todense())
        both = (drives[:, chosen].toarray() > 0) & (active[:, [int(targets[number])]].toarray() > 0)
        n_items[mine] = both.sum(axis=0)
        n_agree[mine] = (both & (np.sign(own) == np.sign(own.sum(axis=0)))).sum(axis=0)
    return n_items, n_agree


def _no_rows() -> pd.DataFrame:
    """The columns without rows."""
    names = (
        "feature_i",
        "feature_j",
        "edge",
        "weight",
        "share",
        "exact",
        "null",
        "above_null",
        "p_value",
        "q_value",
        "n_items",
        "n_agree",
    )
    return pd.DataFrame({name: np.empty(0) for name in names})
