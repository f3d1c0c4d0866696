"""One pass over a layer's held-out items: every concept's score of every item, and token by token of those with annotated spans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sae_genomics.activations.format.store import open_activations
from sae_genomics.activations.format.token_store import read_tokens
from sae_genomics.concepts.item_scores import Stacked, of_items
from sae_genomics.concepts.named import Concept, NamedConcepts
from sae_genomics.concepts.vectors import ConceptVector
from sae_genomics.data.units import Units
from sae_genomics.progress import stop_point
from sae_genomics.run import Run
from sae_genomics.sae.loss_recovered import evenly

MOST_LOCALISED = 200  # items of each concept
ROWS_KEPT = 4096  # activations, for their covariance
Int64 = npt.NDArray[np.int64]
NullVectors = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class ItemBlock:
    """Some items' counted tokens. item: int64 [items], rows of the run's items. ptr: int64 [items + 1]. unit, position: [T].
    x: float32 [T, d_model]."""

    item: Int64
    ptr: Int64
    unit: npt.NDArray[np.int32]
    position: npt.NDArray[np.int32]
    x: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Localised:
    """Pairs of an item and a concept that it carries, ascending by item. concept, item: int64 [pairs]. ptr: int64 [pairs + 1].
    score: float32 [T]. position, unit: int32 [T]."""

    concept: Int64
    item: Int64
    ptr: Int64
    score: npt.NDArray[np.float32]
    position: npt.NDArray[np.int32]
    unit: npt.NDArray[np.int32]


@dataclass(frozen=True)
class HeldOut:
    """What the pass leaves. concepts, vectors: those with a vector, in the same order. items: int64 [n]. score: float64 [n, concepts].
    rows: float32 [m, d_model], some activations; row_units: int32 [m], their units. spaced: whether stored tokens are only a sample of an item's, so that windows mean nothing.
    null_vectors: by concept, then null: unit vectors fitted to shuffled labels and to random concepts, [draws, d_model]."""

    named: NamedConcepts
    concepts: Sequence[Concept]
    vectors: Sequence[ConceptVector]
    stacked: Stacked
    units: Units
    items: Int64
    score: npt.NDArray[np.float64]
    localised: Localised
    rows: npt.NDArray[np.float32]
    row_units: npt.NDArray[np.int32]
    spaced: bool = False
    null_vectors: Mapping[str, NullVectors] = field(default_factory=dict)


def read_held_out(run: Run, layer: int, named: NamedConcepts, vectors: Sequence[ConceptVector]) -> HeldOut:
    """Score the held-out items; of very many a sample, spread evenly. Raises DamagedArtifact naming a file that cannot be read."""
    by_id = {each.id: each for each in named}
    vectors = [each for each in vectors if each.concept in by_id]
    concepts = [by_id[each.concept] for each in vectors]
    spaced = run.config.activations.tokens_per_cell is not None
    window = [0 if spaced else window_of(named, concept) for concept in concepts]
    width = run.model_info.d_model
    stacked = (
        Stacked.of(vectors, window)
        if vectors
        else Stacked(np.zeros((0, width), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    )
    sampled, pairs = _chosen(run, named, concepts, stacked)
    wanted = np.unique(np.concatenate([sampled, pairs[0]]))
    units = run.kind.read_units(run)
    parts, items, scores, rows, row_units = [], [], [], [], []
    step = max(1, len(wanted) * 200 // ROWS_KEPT)
    for block in item_blocks(run, layer, units, wanted):
        stop_point()
        of_tokens = stacked.scores(block.x)
        items.append(block.item)
        scores.append(of_items(of_tokens, block.ptr, stacked.window)[0])
        parts.append(_localise(block, of_tokens, pairs))
        rows.append(block.x[::step])
        row_units.append(block.unit[::step])
    kept = np.concatenate(rows or [np.zeros((0, width), np.float32)])[:ROWS_KEPT]
    kept_units = np.concatenate(row_units or [np.zeros(0, np.int32)])[:ROWS_KEPT]
    found, score = (
        np.concatenate(items or [np.zeros(0, np.int64)]),
        np.concatenate(scores or [np.zeros((0, len(concepts)))]),
    )
    of_sample = np.isin(found, sampled)
    return HeldOut(
        named,
        concepts,
        vectors,
        stacked,
        units,
        found[of_sample],
        score[of_sample],
        _joined(parts),
        kept,
        kept_units,
        spaced,
    )


def window_of(named: NamedConcepts, concept: Concept) -> int:
    """Tokens of the concept's window: the median length of its spans in training items; 0 for a concept without spans."""
    if concept.spans is None or not len(concept.spans):
        return 0
    length = concept.spans.stop - concept.spans.start
    training = ~named.heldout_of(concept)[concept.spans.item]
    return max(1, round(float(np.median(length[training] if training.any() else length))))


def _chosen(
    run: Run, named: NamedConcepts, concepts: Sequence[Concept], stacked: Stacked
) -> tuple[Int64, tuple[Int64, Int64]]:
    """Items whose score is wanted, and pairs (item, number of the concept) to localise, ascending by item."""
    held = named.heldout.copy()
    if any(concept.split_by == "item" for concept in concepts):
        held |= named.heldout_alone
    rows = np.flatnonzero(held)
    sampled = rows[evenly(len(rows), run.config.concepts.max_items)]
    item, of_concept = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for number, concept in enumerate(concepts):
        if stacked.window[number] == 0:
            continue
        carriers = concept.items[named.heldout_of(concept)[concept.items]]
        carriers = carriers[evenly(len(carriers), MOST_LOCALISED)]
        item.append(carriers)
        of_concept.append(np.full(len(carriers), number))
    items, numbers = np.concatenate(item), np.concatenate(of_concept)
    order = np.lexsort((numbers, items))
    return sampled, (items[order], numbers[order])


def item_blocks(run: Run, layer: int, units: Units, wanted: Int64) -> Iterator[ItemBlock]:
    """Counted tokens (those with a unit, finite) of some items, in order, some whole items at a time; nothing else is read.

    wanted: ascending rows of the run's items.
    """
    lookup, batch = units.lookup(), run.config.associations.batch_tokens
    shard_of = wanted // run.config.activations.cells_per_shard
    for shard in np.unique(shard_of).tolist():
        first = run.shard_items(shard)[0]
        tokens = read_tokens(run.tokens_file(shard))
        local = wanted[shard_of == shard] - first
        unit = tokens.units(lookup)
        lengths = np.diff(tokens.item_ptr)[local]
        with open_activations(run.activations_file(layer, shard)) as file:
            unit[file.nonfinite_rows] = -1
            number = (np.cumsum(lengths) - lengths) // max(batch, 1)
            for part in np.split(local, np.flatnonzero(np.diff(number)) + 1):
                edges = [(int(tokens.item_ptr[item]), int(tokens.item_ptr[item + 1])) for item in part]
                rows = np.concatenate([np.arange(start, stop) for start, stop in edges])
                x = np.concatenate([file.rows(start, stop) for start, stop in _merged(edges)])
                of_row = np.repeat(np.arange(len(part)), [stop - start for start, stop in edges])
                counted = unit[rows] >= 0
                order = np.flatnonzero(counted)
                order = order[np.lexsort((tokens.position[rows[order]], of_row[order]))]
                ptr = np.concatenate([[0], np.cumsum(np.bincount(of_row[order], minlength=len(part)))])
                yield ItemBlock(part + first, ptr, unit[rows[order]], tokens.position[rows[order]], x[order])


def _merged(edges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges that follow one another as one: fewer reads."""
    found: list[tuple[int, int]] = []
    for start, stop in edges:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((start, stop))
    return found


def _localise(block: ItemBlock, scores: npt.NDArray[np.float32], pairs: tuple[Int64, Int64]) -> Localised:
    a, b = np.searchsorted(pairs[0], [block.item[0], block.item[-1] + 1])
    item, concept = pairs[0][a:b], pairs[1][a:b]
    place = np.searchsorted(block.item, item)
    length = np.diff(block.ptr)[place]
    ptr = np.concatenate([[0], np.cumsum(length)])
    rows = np.arange(ptr[-1]) + np.repeat(block.ptr[place] - ptr[:-1], length)
    return Localised(
        concept, item, ptr, scores[rows, np.repeat(concept, length)], block.position[rows], block.unit[rows]
    )


def _joined(parts: Sequence[Localised]) -> Localised:
    if not parts:
        empty, ptr = np.zeros(0, np.int64), np.zeros(1, np.int64)
        return Localised(empty, empty, ptr, np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros(0, np.int32))
    lengths = np.concatenate([np.diff(part.ptr) for part in parts])
    ptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("concept", "item", "score", "position", "unit")
    }
    return Localised(ptr=ptr, **joined)
