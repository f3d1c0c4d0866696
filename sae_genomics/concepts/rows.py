"""One pass over a layer: the activations of the sampled items and tokens, with what else is known of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import sparse

from sae_genomics.associations.triples import TokenBlock
from sae_genomics.concepts.concept import UNCOUNTED, Bools, Concept, Ints, NamedConcepts
from sae_genomics.concepts.sampling import EvenUnits, Sample, even_tokens, unit_rows

WINDOW = 7  # units to either side whose shares are a token's composition
MOST_UNITS = 64  # from which on shares of units are no composition of a window: genes

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ItemRows:
    """Sampled items. x: float32 [n, d], mean over an item's tokens. item: [n], ascending. length: [n], tokens that count.
    depth: [n], sum of their weights. unit_weights: csr [n, units]."""

    x: npt.NDArray[np.float32]
    item: Ints
    length: Floats
    depth: Floats
    unit_weights: sparse.csr_matrix


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Sampled tokens. x: float32 [n, d]. item, unit, position: [n]. weight: [n]. length, depth: [n], of the token's item.
    part: [n], where in the item: 0 to 1. window: float32 [n, units], shares of units around it; None where units are genes.
    for_spans: bool [n], kept for spans; the others are kept for gene sets."""

    x: npt.NDArray[np.float32]
    item: Ints
    unit: Ints
    position: Ints
    weight: Floats
    length: Floats
    depth: Floats
    part: Floats
    window: npt.NDArray[np.float32] | None
    for_spans: Bools


@dataclass(eq=False)
class _Parts:
    """What blocks give, before it is put together."""

    arrays: dict[str, list[npt.NDArray[np.generic]]] = field(default_factory=dict)

    def add(self, **arrays: npt.NDArray[np.generic]) -> None:
        for name, values in arrays.items():
            self.arrays.setdefault(name, []).append(values)

    def joined(self, name: str, empty: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        return np.concatenate([empty, *self.arrays.get(name, [])])


def collect(
    blocks: Iterable[tuple[TokenBlock, npt.NDArray[np.float32]]], sample: Sample, named: NamedConcepts, d_model: int
) -> tuple[ItemRows, TokenRows]:
    """Read every block once. Memory grows with the sample alone."""
    items, tokens, weights = _Parts(), _Parts(), []
    n_units = len(sample.units)
    windowed = n_units <= MOST_UNITS
    even = EvenUnits(sample.unit_tokens, sample.tokens_per_gene)
    heldout = named.heldout if named.heldout.any() else named.heldout_alone
    for block, x in blocks:
        item_of = np.repeat(np.arange(block.n_items), np.diff(block.item_ptr))
        counted = block.unit >= 0
        length = np.bincount(item_of[counted], minlength=block.n_items).astype(np.float64)
        depth = np.bincount(item_of[counted], block.weight[counted], minlength=block.n_items)
        members = _members(block, item_of, counted)
        local = np.flatnonzero(sample.mean_items[block.first_item : block.first_item + block.n_items] & (length > 0))
        if len(local):
            items.add(x=(members[local] @ x) / length[local, None].astype(np.float32), item=local + block.first_item)
            items.add(length=length[local], depth=depth[local])
            weights.append(_unit_weights(block, members[local], n_units))
        counted_rows = np.flatnonzero(counted)
        of_item = item_of[counted_rows] + block.first_item
        wanted = sample.token_items[of_item]
        spans = even_tokens(counted_rows[wanted], of_item[wanted], sample.tokens_per_item)
        candidates = unit_rows(block, sample.units, named.heldout_units, heldout)
        genes = even.take(candidates, block.unit[candidates])
        for rows, is_span in ((spans, True), (genes, False)):
            if not len(rows):
                continue
            position = np.zeros(len(block), np.int64) if block.position is None else block.position.astype(np.int64)
            last = np.zeros(block.n_items, np.int64)
            np.maximum.at(last, item_of[counted_rows], position[counted_rows])
            tokens.add(
                x=x[rows], item=item_of[rows] + block.first_item, unit=block.unit[rows].astype(np.int64),
                position=position[rows], weight=block.weight[rows].astype(np.float64), length=length[item_of[rows]],
                depth=depth[item_of[rows]], part=position[rows] / np.maximum(last[item_of[rows]], 1),
                for_spans=np.full(len(rows), is_span),
            )  # fmt: skip
            if windowed:
                tokens.add(window=_windows(block, counted_rows, rows, n_units))
    return _item_rows(items, weights, d_model, n_units), _token_rows(tokens, d_model, n_units if windowed else None)


def _members(block: TokenBlock, item_of: Ints, counted: Bools) -> sparse.csr_matrix:
    """Which tokens that count are each item's: csr [items, tokens of the block]."""
    rows = np.flatnonzero(counted)
    ptr = np.searchsorted(item_of[rows], np.arange(block.n_items + 1))
    return sparse.csr_matrix((np.ones(len(rows), np.float32), rows, ptr), shape=(block.n_items, len(block)))


def _unit_weights(block: TokenBlock, members: sparse.csr_matrix, n_units: int) -> sparse.csr_matrix:
    row = members.indices
    weights = sparse.csr_matrix(
        (block.weight[row].astype(np.float64), block.unit[row], members.indptr), shape=(members.shape[0], n_units)
    )
    weights.sum_duplicates()
    return weights


def _windows(block: TokenBlock, counted_rows: Ints, rows: Ints, n_units: int) -> npt.NDArray[np.float32]:
    """Shares of units within WINDOW rows to either side, in the same item, of rows that count: float32 [rows, units]."""
    unit = block.unit[counted_rows]
    which = np.zeros((len(unit) + 1, n_units), np.float32)
    which[np.arange(1, len(unit) + 1), unit] = 1.0
    running = np.cumsum(which, axis=0, dtype=np.float64)
    place = np.searchsorted(counted_rows, rows)
    item = np.searchsorted(block.item_ptr, rows, side="right") - 1
    low = np.maximum(place - WINDOW, np.searchsorted(counted_rows, block.item_ptr[item]))
    high = np.minimum(place + WINDOW + 1, np.searchsorted(counted_rows, block.item_ptr[item + 1]))
    shares: npt.NDArray[np.float32] = ((running[high] - running[low]) / (high - low)[:, None]).astype(np.float32)
    return shares


def _item_rows(parts: _Parts, weights: list[sparse.csr_matrix], d_model: int, n_units: int) -> ItemRows:
    empty = np.zeros(0)
    return ItemRows(
        parts.joined("x", np.zeros((0, d_model), np.float32)).astype(np.float32, copy=False),
        parts.joined("item", np.zeros(0, np.int64)).astype(np.int64),
        parts.joined("length", empty).astype(np.float64),
        parts.joined("depth", empty).astype(np.float64),
        sparse.vstack(weights, format="csr") if weights else sparse.csr_matrix((0, n_units)),
    )


def _token_rows(parts: _Parts, d_model: int, n_units: int | None) -> TokenRows:
    def whole(name: str) -> Ints:
        return parts.joined(name, np.zeros(0, np.int64)).astype(np.int64)

    def real(name: str) -> Floats:
        return parts.joined(name, np.zeros(0)).astype(np.float64)

    window = None
    if n_units is not None:
        window = parts.joined("window", np.zeros((0, n_units), np.float32)).astype(np.float32, copy=False)
    return TokenRows(
        x=parts.joined("x", np.zeros((0, d_model), np.float32)).astype(np.float32, copy=False),
        item=whole("item"), unit=whole("unit"), position=whole("position"), weight=real("weight"), length=real("length"),
        depth=real("depth"), part=real("part"), window=window,
        for_spans=parts.joined("for_spans", np.zeros(0, bool)).astype(bool),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class ConceptRows:
    """The rows that stand for one concept.

    row: [n], of ItemRows or TokenRows. positive, heldout: bool [n]. group: [n], what counts once.
    item: [n], of the run's items.
    """

    concept: Concept
    row: Ints
    positive: Bools
    heldout: Bools
    group: Ints
    item: Ints

    def __len__(self) -> int:
        return len(self.row)


def rows_of(concept: Concept, named: NamedConcepts, sample: Sample, items: ItemRows, tokens: TokenRows) -> ConceptRows:
    """Those of the collected rows that the concept is about."""
    n_items = len(named.group)
    if concept.level == "item":
        truth = concept.item_truth(n_items)[items.item]
        row = np.flatnonzero(truth != UNCOUNTED)
        item = items.item[row]
        return ConceptRows(
            concept, row, truth[row] == 1, named.heldout_of(concept)[item], named.groups_of(concept)[item], item
        )
    if concept.spans is not None:
        chosen = np.zeros(n_items, bool)
        chosen[sample.span_items[concept.id]] = True
        row = np.flatnonzero(tokens.for_spans & chosen[tokens.item])
        truth = concept.token_truth(tokens.item[row], tokens.position[row], tokens.unit[row])
        row, truth = row[truth != UNCOUNTED], truth[truth != UNCOUNTED]
        item = tokens.item[row]
        return ConceptRows(
            concept, row, truth == 1, named.heldout_of(concept)[item], named.groups_of(concept)[item], item
        )
    row = np.flatnonzero(~tokens.for_spans)
    truth = concept.unit_truth(len(named.heldout_units))[tokens.unit[row]]
    row, truth = row[truth != UNCOUNTED], truth[truth != UNCOUNTED]
    unit = tokens.unit[row]
    return ConceptRows(concept, row, truth == 1, named.heldout_units[unit], unit, tokens.item[row])
