"""One feature, exactly: it is ablated in the items in which it fires, beside the edits of its nulls, in one set of forward passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sae_genomics.causal.dose import Curve, Response, curve
from sae_genomics.causal.edits import Edit
from sae_genomics.causal.exact import Clean
from sae_genomics.causal.nulls import equal_features
from sae_genomics.causal.passes import Changes, changes
from sae_genomics.causal.strength import gradient_of
from sae_genomics.causal.targets import Targets, random_targets
from sae_genomics.concepts.resampling import random_directions
from sae_genomics.models.editing import Paused
from sae_genomics.tokens import Tokens, counted_tokens, items_in_order

if TYPE_CHECKING:
    from sae_genomics.models import FoundationModel

Floats = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Layer:
    """What is the same for all features of a layer.

    directions: float32 [features, d_model], decoder. rate, mean: float64 [features], on training items. bins: int64 [units], strata of
    units. draws, target_draws: of the nulls. batch_tokens: rows of a forward pass.
    """

    model: FoundationModel
    directions: Float32
    rate: Floats
    mean: Floats
    bins: Ints
    draws: int
    target_draws: int
    batch_tokens: int


@dataclass(frozen=True)
class Firing:
    """A feature in some held-out items.

    clean: the items, without an edit. own_units: bool [units]. active: bool [T], where the feature is active when nothing is hidden.
    """

    feature: int
    clean: Clean
    own_units: Bools
    active: Bools

    @property
    def paused(self) -> Paused:
        """The items, stopped at the hook."""
        return self.clean.paused

    @property
    def activation(self) -> Float32:
        """Of the feature: float32 [T]."""
        return activation_of(self.clean, self.feature)


def activation_of(clean: Clean, feature: int) -> Float32:
    """A feature's activation at every token: float32 [T]."""
    found = np.zeros(len(clean.paused.batch), np.float32)
    at = clean.encoded.of(np.array([feature]))
    found[clean.encoded.token[at]] = clean.encoded.activation[at]
    return found


@dataclass(frozen=True)
class Outcome:
    """One outcome of a feature's ablation, per item; NaN for items that do not count.

    own, matched: float64 [items], per unit of edit norm. d: their difference. draws: null -> float64 [items, draws], the same.
    """

    name: str
    own: Floats
    matched: Floats
    d: Floats
    draws: dict[str, Floats]
    n_own: int


@dataclass(frozen=True)
class Measured:
    """norm: float64 [items], of the edit; 0 where the feature does not fire. strength: root mean square over items of all that changes."""

    feature: int
    norm: Floats
    outcomes: list[Outcome]
    strength: float


def targets_of(layer: Layer, firing: Firing) -> Targets:
    """The feature's targets in its items; with hidden tokens these alone."""
    batch, hidden = firing.paused.batch, firing.paused.hidden
    counted = counted_tokens(batch)
    unit = np.maximum(batch.unit, 0).astype(np.int64)
    items, item = items_in_order(batch)
    looked_at = counted & layer.model.predicted(batch)
    if hidden is not None:
        looked_at &= hidden
    if layer.model.outcome == "distribution":
        is_own, stratum, key = _shows_at(layer.model, batch, firing.active), unit, np.arange(len(batch))
    else:
        is_own, stratum, key = firing.own_units[unit], layer.bins[unit] + 1, unit
    return Targets(item, looked_at & is_own, looked_at & ~is_own, stratum, key, len(items))


def _shows_at(model: FoundationModel, batch: Tokens, active: Bools) -> Bools:
    """Tokens whose prediction a feature is expected to move: those where it is active; the ones behind them in a model that predicts the next."""
    if not model.predicts_next:
        return active
    found = np.zeros_like(active)
    found[1:] = active[:-1]
    return found & model.predicted(batch)


def ablation_and_nulls(
    layer: Layer, firing: Firing, generator: np.random.Generator
) -> tuple[list[Edit], dict[str, slice]]:
    """The ablation first, then the draws of each null that needs passes."""
    n, it = layer.draws, np.array([firing.feature])
    others = equal_features(layer.rate, layer.mean, firing.feature, n, _beside(firing, n))
    width = layer.directions.shape[1]
    parts = {
        "direction": [
            Edit("ablate", it, turned=each) for each in random_directions(n, width, generator).astype(np.float32)
        ],
        "feature": [Edit("ablate", np.array([each])) for each in others.tolist()],
        "permuted": [Edit("ablate", it, permuted=int(seed)) for seed in generator.integers(0, 1 << 31, n)],
    }
    edits, where = [Edit("ablate", it)], {}
    for name, part in parts.items():
        where[name] = slice(len(edits), len(edits) + len(part))
        edits += part
    return edits, where


def _beside(firing: Firing, wanted: int) -> Bools:
    """Features that fire in half of the items in which this one does; in two of them where there are too few: bool [features]."""
    encoded = firing.clean.encoded
    item = items_in_order(firing.paused.batch)[1]
    d_sae = len(encoded.feature_ptr) - 1
    pairs = np.unique(item[encoded.token] * d_sae + encoded.feature)
    here = np.isin(pairs // d_sae, np.unique(item[firing.activation > 0]))
    n_items = np.bincount(pairs[here] % d_sae, minlength=d_sae)
    half = n_items >= max(2, n_items[firing.feature] / 2)
    return half if half.sum() > wanted else n_items >= 2


def measure(layer: Layer, firing: Firing, generator: np.random.Generator) -> Measured:
    """The effects of ablating the feature, and of its nulls."""
    edits, where = ablation_and_nulls(layer, firing, generator)
    found = changes(firing.clean, edits, layer.batch_tokens)
    targets = targets_of(layer, firing)
    norm = _norms(layer, firing, edits, where, targets)
    per_norm = np.where(norm > 0, 1 / np.where(norm > 0, norm, 1), np.nan)
    outcomes = [
        _on_targets(name, change.astype(np.float64), targets, per_norm, where, layer.target_draws, generator)
        for name, change in (("token", found.token), ("from_item", found.from_item))
        if change is not None
    ]
    if found.embedding is not None:
        outcomes.append(_on_embedding(found.embedding.astype(np.float64), firing.paused, targets, per_norm, where))
    return Measured(firing.feature, norm[:, 0], outcomes, _strength(layer, found, firing, targets, norm[:, 0]))


def _norms(layer: Layer, firing: Firing, edits: list[Edit], where: dict[str, slice], targets: Targets) -> Floats:
    """Norm of each edit in each item: float64 [items, edits]. All but those of other features have the ablation's."""

    def norm(feature: int) -> Floats:
        squares = activation_of(firing.clean, feature).astype(np.float64) ** 2
        length = float(np.linalg.norm(layer.directions[feature]))
        return np.sqrt(np.bincount(targets.item, squares, targets.n_items)) * length

    found = np.repeat(norm(firing.feature)[:, None], len(edits), axis=1)
    for number in range(where["feature"].start, where["feature"].stop):
        features = edits[number].features
        assert features is not None
        found[:, number] = norm(int(features[0]))
    return found


def _on_targets(
    name: str, change: Floats, targets: Targets, per_norm: Floats, where: dict[str, slice], n: int, generator: np.random.Generator
) -> Outcome:  # fmt: skip
    """change: float64 [edits, T]. n: draws of random targets."""
    own_weight, matched_weight = targets.weights()
    own, matched = (
        np.column_stack([targets.per_item(each, weight) for each in change]) * per_norm
        for weight in (own_weight, matched_weight)
    )
    d = own - matched
    draws = {null: d[:, part] for null, part in where.items()}
    draws["targets"] = random_targets(targets, change[0], n, generator) * per_norm[:, [0]]
    n_own = len(np.unique(targets.key[targets.own & targets.usable[targets.item]]))
    return Outcome(name, own[:, 0], matched[:, 0], d[:, 0], draws, n_own)


def _on_embedding(
    moved: Floats, paused: Paused, targets: Targets, per_norm: Floats, where: dict[str, slice]
) -> Outcome:
    """Lengths beside what random directions give: their mean is what is subtracted. moved: float64 [edits, sequences]."""
    of_sequence = targets.item[paused.batch.item_ptr[:-1]]
    n = np.bincount(of_sequence, minlength=targets.n_items)
    sums = np.column_stack([np.bincount(of_sequence, each, targets.n_items) for each in moved])
    size = sums / n[:, None] * per_norm
    random = size[:, where["direction"]]
    mean = random.mean(axis=1)
    draws = {null: size[:, part] - mean[:, None] for null, part in where.items()}
    if random.shape[1] > 1:  # a draw is no part of what it is compared with
        draws["direction"] *= random.shape[1] / (random.shape[1] - 1)
    return Outcome("embedding", size[:, 0], mean, size[:, 0] - mean, draws, 0)


def _strength(layer: Layer, found: Changes, firing: Firing, targets: Targets, norm: Floats) -> float:
    """As `first_order_strength`, from the ablation itself."""
    if found.token is None or not (norm > 0).any():
        return float("nan")
    change = found.token[0].astype(np.float64)
    squares = 2 * change if layer.model.outcome == "distribution" else change**2
    counted = counted_tokens(firing.paused.batch)
    per_item = np.bincount(targets.item[counted], squares[counted], targets.n_items)
    return float(np.sqrt(per_item[norm > 0].mean()))


def respond_to_doses(layer: Layer, firing: Firing, doses: list[float], bound: float) -> tuple[Curve, float, int]:
    """The feature's dose-response curve, the slope at 1 by the gradient (NaN for a distribution), and its items."""
    targets = targets_of(layer, firing)
    own_weight, matched_weight = targets.weights()
    n_items = int(targets.usable.sum())
    spread = 1.0
    if layer.model.outcome == "value" and (values := firing.clean.predictions.token) is not None:
        spread = max(float(values.float().cpu().numpy()[targets.own | targets.control].std()), 1e-12)

    def respond(tried: list[float]) -> list[Response]:
        edits = [Edit("scale", np.array([firing.feature]), amount=dose) for dose in tried]
        found = changes(firing.clean, edits, layer.batch_tokens).token
        assert found is not None
        return [_response(targets, each.astype(np.float64), (own_weight, matched_weight), spread) for each in found]

    found = curve(np.array(doses, dtype=np.float64), respond, bound)
    gradient = float("nan")
    if layer.model.outcome == "value" and n_items:
        slopes = gradient_of(layer.model, firing.paused, own_weight - matched_weight)
        slopes = slopes @ layer.directions[firing.feature]
        gradient = float((slopes.astype(np.float64) * firing.activation).sum() / n_items)
    return found, gradient, n_items


def _response(targets: Targets, change: Floats, weights: tuple[Floats, Floats], spread: float) -> Response:
    own, matched = (float(np.nanmean(targets.per_item(change, weight))) for weight in weights)
    return Response(own, matched, float(np.sqrt((change[targets.control] ** 2).mean())) / spread)
