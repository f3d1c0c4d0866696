"""Does the model use a concept's direction? The change of what it predicts for items with the concept, beside the same of vectors of chance.

The target depends on the concept and on what the model predicts. A label of items whose units have values: the predicted values of the label's
marker units (`markers.py`). A span: the log-probability of every third token within the span. A gene set: the predicted values of its genes.
Elsewhere: the log-probability of a random share of the item's tokens. Targets are always hidden from the model.

The direction is added at the concept's tokens: all of an item, those of the span, those of the set's genes. Derivatives of one layer's items
are no independent draws, and those of repeated fits are not either, so there is no t-test. Four nulls stand beside each derivative, all on the same
items: vectors fitted to shuffled labels and to random concepts (`nulls.py`, the draws that the AUROC was compared with), random directions, and
directions with the covariance of the activations. The largest of the four p-values counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.artifacts import CONCEPT_TCAV
from sae_genomics.associations.multiple_testing import benjamini_hochberg
from sae_genomics.concepts.derivatives import Asked, directional, gradients, mean_gradients, means_along
from sae_genomics.concepts.held_out import HeldOut
from sae_genomics.concepts.markers import Markers, marker_units
from sae_genomics.concepts.named import Concept
from sae_genomics.concepts.resampling import covariance_directions, generator, grouped_mean, p_of, random_directions
from sae_genomics.progress import stop_point
from sae_genomics.run import Run
from sae_genomics.sae.loss_recovered import evenly
from sae_genomics.tokens import Tokens, counted_tokens

if TYPE_CHECKING:
    from sae_genomics.models.base import FoundationModel

DRAWS = 99
EVERY = 3  # of the tokens within a span one is hidden
NULLS = ("shuffled", "random")  # of labels, as in concept_nulls.parquet
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
    markers = Markers()
    if model.outcome == "value":
        markers = marker_units(run, held_out.named, held_out.concepts, np.unique(pairs.item), layer)
    gradient = _gradients(run, layer, held_out, model, pairs, markers)
    seed, n = run.config.run.seed, len(held_out.concepts)
    random = generator(seed, "concepts.tcav", layer)
    directions = (
        random_directions(DRAWS, gradient.shape[1], random), covariance_directions(held_out.rows, DRAWS, random)
    )  # fmt: skip
    by_item = np.array([concept.split_by != "group" for concept in held_out.concepts], bool)[pairs.concept]
    own = np.where(by_item, len(held_out.named.group) + pairs.item, held_out.named.group[pairs.item])
    group = np.unique(own, return_inverse=True)[1].reshape(-1).astype(np.int64)
    found = directional(gradient, pairs.concept, group, held_out.stacked.vectors, np.concatenate(directions))
    along = np.einsum("pd,pd->p", gradient, held_out.stacked.vectors[pairs.concept].astype(np.float64))
    interval = grouped_mean(along, pairs.concept, group, n, random)
    size, null = np.abs(found.mean), np.abs(found.mean_null)
    mean = mean_gradients(gradient, pairs.concept, group, n)
    drawn = {
        name: means_along(mean, [held_out.null_vectors.get(each.concept, {}).get(name) for each in held_out.vectors])
        for name in NULLS
    }
    p = {name: p_of(size, np.abs(values)) for name, values in drawn.items()}
    p_directions = np.maximum(p_of(size, null[:, :DRAWS]), p_of(size, null[:, DRAWS:]))
    p_value = np.maximum(p_directions, np.maximum(p["shuffled"], p["random"]))  # not known where one is not
    target = [_target(concept, model.outcome, markers.has(number)) for number, concept in enumerate(held_out.concepts)]
    names = held_out.units.unit_name
    shares = np.quantile(found.share_null, [0.05, 0.95], axis=1)
    means = np.quantile(found.mean_null, [0.025, 0.975], axis=1)
    shuffled = middle(drawn["shuffled"])
    frame = pd.DataFrame({
        "concept": [each.concept for each in held_out.vectors], "name": [each.name for each in held_out.vectors],
        "target": target, "targets": [",".join(names[markers.of(number)]) for number in range(n)],
        "n_items": np.bincount(pairs.concept[np.isfinite(along)], minlength=n), "n_groups": interval.n_groups,
        "share_positive": found.share, "share_random": found.share_null.mean(axis=1), "share_random_low": shares[0],
        "share_random_high": shares[1], "derivative": interval.value, "derivative_low": interval.low, "derivative_high": interval.high,
        "derivative_random_low": means[0], "derivative_random_high": means[1], "p_directions": p_directions,
        "derivative_shuffled_low": shuffled[0], "derivative_shuffled_high": shuffled[1],
        **{f"n_{name}": np.isfinite(values).sum(axis=1) for name, values in drawn.items()},
        **{f"p_{name}": values for name, values in p.items()},
        "p_value": p_value, "q_value": benjamini_hochberg(p_value),
    })  # fmt: skip
    return frame[frame["n_items"] > 0].reset_index(drop=True)


def middle(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The 2.5th and the 97.5th percentile of each row's known values: float64 [2, rows]; NaN for a row without any."""
    found = np.full((2, len(values)), np.nan)
    known = np.isfinite(values).any(axis=1)
    if known.any():
        found[:, known] = np.nanquantile(values[known], [0.025, 0.975], axis=1)
    return found


def _target(concept: Concept, outcome: str, has_markers: bool) -> str:
    if concept.kind == "gene_set":
        return SET_UNITS
    if concept.spans is not None:
        return SPAN_TOKENS
    return MARKER_UNITS if outcome == "value" and has_markers else ALL_TOKENS


def _gradients(
    run: Run, layer: int, held_out: HeldOut, model: FoundationModel, pairs: Pairs, markers: Markers
) -> npt.NDArray[np.float64]:
    """float64 [pairs, d_model], some pairs at a time."""
    from sae_genomics.activations.extraction.tokenised import tokenised_items

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
    markers: Markers,
    seed: int,
) -> tuple[Bool, Bool]:
    """Which tokens are targets, and at which the direction is added: bool [T] each."""
    pair = np.repeat(pair_of_sequence, batch.lengths)
    usual = counted_tokens(batch)
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
            known = markers.has(int(number))
            wanted = markers.asked(int(number), pairs.item[pair[mine]], batch.unit[mine]) if known else hidden[mine]
            target[mine[wanted]] = True
    return target, moved
