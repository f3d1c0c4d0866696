"""Does the model use a concept's direction? The change of what it predicts for items with the concept, beside random directions.

The target depends on the concept and on what the model predicts. A label of items whose units have values: the predicted values of the label's
ten marker units, chosen on training items. A span: the log-probability of every third token within the span. A gene set: the predicted values
of its genes. Elsewhere: the log-probability of a random share of the item's tokens. Targets are always hidden from the model.

The direction is added at the concept's tokens: all of an item, those of the span, those of the set's genes. Derivatives of one layer's items
are no independent draws, and those of repeated fits are not either, so there is no t-test: the null are random directions on the same items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.artifacts import CONCEPT_TCAV
from sae_genomics.associations.multiple_testing import benjamini_hochberg
from sae_genomics.concepts.derivatives import Asked, directional, gradients
from sae_genomics.concepts.held_out import HeldOut
from sae_genomics.concepts.named import Concept
from sae_genomics.concepts.resampling import covariance_directions, generator, grouped_mean, p_of, random_directions
from sae_genomics.items import CountItems
from sae_genomics.progress import stop_point
from sae_genomics.run import Run
from sae_genomics.sae.loss_recovered import evenly

if TYPE_CHECKING:
    from sae_genomics.models.base import FoundationModel
    from sae_genomics.tokens import Tokens

DRAWS = 99
MARKERS = 10
EVERY = 3  # of the tokens within a span one is hidden
MARKER_ITEMS = 1000  # training items that markers are chosen on
MARKER_UNITS, SPAN_TOKENS, SET_UNITS, ALL_TOKENS = "markers", "span", "gene set", "hidden tokens"
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Pairs:
    """Items and the concepts that they are asked about, ascending by item: int64 [pairs] each."""

    item: Int64
    concept: Int64


def write_tcav(run: Run, layer: int, held_out: HeldOut) -> None:
    """Leave the layer's table; with a note and without rows where nothing can be asked."""
    from sae_genomics.activations.extraction.extract import loaded_model

    path, note = run.layer_results(layer) / CONCEPT_TCAV.file, ""
    frame = pd.DataFrame({column.name: pd.Series(dtype=object) for column in CONCEPT_TCAV.columns})
    n_items = run.config.concepts.tcav_items
    pairs = chosen_pairs(held_out, n_items)
    if not n_items:
        note = "Left out: concepts.tcav_items is 0."
    elif not len(pairs.item):
        note = f"No held-out {run.kind.nouns.item} has one of the concepts."
    else:
        model = loaded_model(run, may_compile=False)
        if not model.outcome or model.why_no_loss:
            note = (
                model.why_no_loss
                or f"The model family {model.info.family} cannot be edited, so there are no derivatives."
            )
        else:
            frame = tcav_table(run, layer, held_out, model, pairs)
    CONCEPT_TCAV.write(path, frame, note=note or None)


def chosen_pairs(held_out: HeldOut, n_items: int) -> Pairs:
    """At most n_items held-out items of each concept that have it, spread evenly; of a gene set any held-out items."""
    item, number_of = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for number, concept in enumerate(held_out.concepts):
        held = held_out.named.heldout_of(concept)
        rows = np.flatnonzero(held) if concept.kind == "gene_set" else concept.items[held[concept.items]]
        chosen = rows[evenly(len(rows), n_items)]
        item.append(chosen)
        number_of.append(np.full(len(chosen), number))
    items, numbers = np.concatenate(item), np.concatenate(number_of)
    order = np.lexsort((numbers, items))
    return Pairs(items[order], numbers[order])


def tcav_table(run: Run, layer: int, held_out: HeldOut, model: FoundationModel, pairs: Pairs) -> pd.DataFrame:
    """One row per concept that something could be asked about."""
    markers = marker_units(run, held_out) if model.outcome == "value" else {}
    gradient = _gradients(run, layer, held_out, model, pairs, markers)
    seed, n = run.config.run.seed, len(held_out.concepts)
    random = generator(seed, "concepts.tcav", layer)
    nulls = (random_directions(DRAWS, gradient.shape[1], random), covariance_directions(held_out.rows, DRAWS, random))
    by_item = np.array([concept.split_by != "group" for concept in held_out.concepts], bool)[pairs.concept]
    own = np.where(by_item, len(held_out.named.group) + pairs.item, held_out.named.group[pairs.item])
    group = np.unique(own, return_inverse=True)[1].reshape(-1).astype(np.int64)
    found = directional(gradient, pairs.concept, group, held_out.stacked.vectors, np.concatenate(nulls))
    along = np.einsum("pd,pd->p", gradient, held_out.stacked.vectors[pairs.concept].astype(np.float64))
    interval = grouped_mean(along, pairs.concept, group, n, random)
    size, null = np.abs(found.mean), np.abs(found.mean_null)
    p = np.maximum(p_of(size, null[:, :DRAWS]), p_of(size, null[:, DRAWS:]))
    target = [_target(concept, model.outcome, number in markers) for number, concept in enumerate(held_out.concepts)]
    names = held_out.units.unit_name
    shares = np.quantile(found.share_null, [0.05, 0.95], axis=1)
    means = np.quantile(found.mean_null, [0.025, 0.975], axis=1)
    frame = pd.DataFrame({
        "concept": [each.concept for each in held_out.vectors], "name": [each.name for each in held_out.vectors],
        "target": target, "targets": [",".join(names[markers[number]]) if number in markers else "" for number in range(n)],
        "n_items": np.bincount(pairs.concept[np.isfinite(along)], minlength=n), "n_groups": interval.n_groups,
        "share_positive": found.share, "share_random": found.share_null.mean(axis=1), "share_random_low": shares[0],
        "share_random_high": shares[1], "derivative": interval.value, "derivative_low": interval.low, "derivative_high": interval.high,
        "derivative_random_low": means[0], "derivative_random_high": means[1], "p_value": p, "q_value": benjamini_hochberg(p),
    })  # fmt: skip
    return frame[frame["n_items"] > 0].reset_index(drop=True)


def _target(concept: Concept, outcome: str, has_markers: bool) -> str:
    if concept.kind == "gene_set":
        return SET_UNITS
    if concept.spans is not None:
        return SPAN_TOKENS
    return MARKER_UNITS if outcome == "value" and has_markers else ALL_TOKENS


def marker_units(run: Run, held_out: HeldOut) -> dict[int, Int64]:
    """Of each concept of items the `MARKERS` units that are higher in training items with it, most clearly first.

    d_j = (mean_with - mean_without) / sd of log(1 + 10 000 x count / sum of counts) over a sample of training items. Empty for items that
    are not counts.
    """
    named = held_out.named
    numbers = [number for number, each in enumerate(held_out.concepts) if each.level == "item"]
    training = np.flatnonzero(~(named.heldout | named.heldout_alone))
    sample = training[evenly(len(training), MARKER_ITEMS)]
    items = run.kind.read(run, sample) if len(numbers) and len(sample) else None
    if not isinstance(items, CountItems):
        return {}
    counts = items.counts.astype(np.float64).tocsr()
    total = np.asarray(counts.sum(axis=1)).ravel()
    counts.data *= 1e4 / np.repeat(np.maximum(total, 1.0), np.diff(counts.indptr))
    counts.data = np.log1p(counts.data)
    truth = np.stack([held_out.concepts[number].item_truth(len(named.group))[sample] for number in numbers], axis=1)
    n_with, n_without = (truth == 1).sum(axis=0), (truth == 0).sum(axis=0)
    mean = np.asarray(counts.mean(axis=0)).ravel()
    spread = np.sqrt(np.maximum(np.asarray(counts.multiply(counts).mean(axis=0)).ravel() - mean**2, 1e-12))
    sums = ((counts.T @ (truth == 1).astype(np.float64)) / np.maximum(n_with, 1)) - (
        (counts.T @ (truth == 0).astype(np.float64)) / np.maximum(n_without, 1)
    )
    higher = sums / spread[:, None]
    order = np.argsort(-higher, axis=0, kind="stable")[:MARKERS]
    return {
        number: order[higher[order[:, column], column] > 0, column].astype(np.int64)
        for column, number in enumerate(numbers)
        if n_with[column] and n_without[column]
    }


def _gradients(
    run: Run, layer: int, held_out: HeldOut, model: FoundationModel, pairs: Pairs, markers: dict[int, Int64]
) -> npt.NDArray[np.float64]:
    """float64 [pairs, d_model], some pairs at a time."""
    from sae_genomics.activations.extraction.tokenised import tokenised_items
    from sae_genomics.tokens import Tokens

    wanted = np.unique(pairs.item)
    shard = wanted // run.config.activations.cells_per_shard
    tokens = Tokens.concatenate(
        [tokenised_items(run, model, wanted[shard == each]).tokens for each in np.unique(shard)]
    )
    first = tokens.item[tokens.item_ptr[:-1]]
    rows = run.kind.read_items(run, ["item"])["item"].to_numpy(np.int64)
    item_of_sequence = np.searchsorted(wanted, np.searchsorted(rows, first))
    begin = np.searchsorted(item_of_sequence, np.searchsorted(wanted, pairs.item))
    end = np.searchsorted(item_of_sequence, np.searchsorted(wanted, pairs.item), side="right")
    per_pair = tokens.item_ptr[end] - tokens.item_ptr[begin]
    part = (np.cumsum(per_pair) - per_pair) // max(run.config.activations.batch_tokens, 1)
    parts = []
    for chosen in np.split(np.arange(len(pairs.item)), np.flatnonzero(np.diff(part)) + 1):
        stop_point()
        sequences = np.concatenate([np.arange(begin[pair], end[pair]) for pair in chosen])
        batch = tokens.take(sequences)
        local = np.repeat(np.arange(len(chosen)), end[chosen] - begin[chosen])
        target, moved = _asked(
            batch,
            local,
            Pairs(pairs.item[chosen], pairs.concept[chosen]),
            held_out,
            model,
            markers,
            run.config.run.seed,
        )
        parts.append(gradients(model, Asked(batch, local, target, moved), layer, run.config.model.hook, len(chosen)))
    return np.concatenate(parts)


def _asked(
    batch: Tokens,
    pair_of_sequence: Int64,
    pairs: Pairs,
    held_out: HeldOut,
    model: FoundationModel,
    markers: dict[int, Int64],
    seed: int,
) -> tuple[Bool, Bool]:
    """Which tokens are targets, and at which the direction is added: bool [T] each."""
    pair = np.repeat(pair_of_sequence, batch.lengths)
    usual = batch.counted & (batch.unit >= 0)
    target, moved = np.zeros(len(batch), bool), np.zeros(len(batch), bool)
    concept = pairs.concept[pair]
    hidden = np.random.default_rng([seed, len(batch)]).random(len(batch)) < model.hidden_share
    for number in np.unique(pairs.concept):  # what a concept asks is its own; its tokens go at once
        each, mine = held_out.concepts[number], np.flatnonzero((concept == number) & usual)
        if each.kind == "gene_set" or each.spans is not None:
            inside = mine[each.token_truth(pairs.item[pair[mine]], batch.position[mine], batch.unit[mine]) == 1]
            moved[inside] = True
            target[inside if each.kind == "gene_set" else inside[::EVERY]] = True
        else:
            moved[mine] = True
            known = markers.get(int(number))
            target[mine[np.isin(batch.unit[mine], known)] if known is not None else mine[hidden[mine]]] = True
    return target, moved
