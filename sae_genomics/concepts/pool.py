"""A layer's sampled rows, and for each concept what it is measured with: coordinates, makers of nulls, baselines, confounds."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.concepts.baselines import item_composition, token_composition, token_position
from sae_genomics.concepts.concept import Bools, Concept, Ints, NamedConcepts
from sae_genomics.concepts.confounds import Property
from sae_genomics.concepts.measure import Evidence
from sae_genomics.concepts.named import N_BINS
from sae_genomics.concepts.nulls import (
    Draws,
    Maker,
    random_genes,
    random_items,
    shuffled_items,
    shuffled_within,
)
from sae_genomics.concepts.rows import ConceptRows, ItemRows, TokenRows, rows_of
from sae_genomics.concepts.sampling import Sample
from sae_genomics.concepts.space import Space

Floats = npt.NDArray[np.float64]


class Pool:
    """The rows of all concepts of a layer.

    bins: int64 [units], the tenth of expression of each unit. described: [items], columns for the audit of confounds beside length and
    depth: numbers, or text. components: `concepts.pca`.
    """

    def __init__(
        self, named: NamedConcepts, sample: Sample, rows: tuple[ItemRows, TokenRows], bins: Ints, described: pd.DataFrame,
        components: int | None,
    ):  # fmt: skip
        self.named, self.sample, self.bins, self.described = named, sample, bins, described
        self.items, self.tokens = rows
        self.components = components
        self._spaces: dict[tuple[str, str], tuple[Space, npt.NDArray[np.float32]]] = {}

    def prepare(self) -> None:
        """Make what concepts share, before several threads ask for it."""
        for concept in self.named:
            self._space(concept)
        if len(self.items.item):
            _ = self._item_composition

    def rows(self, concept: Concept) -> ConceptRows:
        """The rows that stand for a concept."""
        return rows_of(concept, self.named, self.sample, self.items, self.tokens)

    def evidence(self, rows: ConceptRows) -> Evidence:
        """What the concept is measured with."""
        space, placed = self._space(rows.concept)
        if rows.concept.level == "item":
            composition = self._item_composition[rows.row]
            return Evidence(space, placed, self._item_nulls(rows), composition, None, self._properties(rows))
        composition = token_composition(self.tokens, rows.row)
        nulls = self._gene_nulls(rows) if rows.concept.kind == "gene_set" else self._span_nulls(rows)
        return Evidence(
            space, placed, nulls, composition, token_position(self.tokens, rows.row), self._properties(rows)
        )

    def _space(self, concept: Concept) -> tuple[Space, npt.NDArray[np.float32]]:
        """Coordinates from all training rows of the concept's level, and every row of the pool in them."""
        key = (concept.level, concept.split_by)  # gene sets alone are split by gene
        if key not in self._spaces:
            x, used = (self.items.x, None) if concept.level == "item" else (self.tokens.x, self.tokens.for_spans)
            if used is not None and concept.kind == "gene_set":
                used = ~used
                heldout = self.named.heldout_units[self.tokens.unit]
            else:
                item = self.items.item if used is None else self.tokens.item
                heldout = self.named.heldout_of(concept)[item]
            train = ~heldout if used is None else ~heldout & used
            space = Space.of(x[train], self.components)
            self._spaces[key] = (space, space.place(x))
        return self._spaces[key]

    @cached_property
    def _item_composition(self) -> Floats:
        heldout = self.named.heldout if self.named.heldout.any() else self.named.heldout_alone
        return item_composition(self.items, ~heldout[self.items.item])

    def _properties(self, rows: ConceptRows) -> list[Property]:
        source = self.items if rows.concept.level == "item" else self.tokens
        found = [Property.of("length", source.length[rows.row])]
        if not np.array_equal(source.depth, source.length):
            found.append(Property.of("depth", source.depth[rows.row]))
        if rows.concept.kind == "gene_set":
            found.append(Property.of("expression", self.tokens.weight[rows.row]))
        for name in self.described.columns:
            if name in self._own_columns(rows.concept):
                continue
            values = self.described[name].to_numpy()[rows.item]
            each = Property.of(str(name), values)
            if each.known().any() and len(np.unique(each.values[each.known()])) > 1:
                found.append(each)
        return found

    def _own_columns(self, concept: Concept) -> set[str | None]:
        """The columns that say which items have the concept: its own, and groups where these are the labels."""
        label_is_group = "group" in self.described and self.described["group"].equals(self.described["label"])
        return {concept.column} | ({"group"} if concept.column == "label" and label_is_group else set())

    # --- makers of nulls ---

    def _item_nulls(self, rows: ConceptRows) -> dict[str, Maker]:
        shuffle = shuffled_items(rows.positive, rows.heldout, rows.group)
        anywhere = random_items(rows.positive, rows.heldout)
        return {"shuffled": _over(rows, shuffle), "random": _over(rows, anywhere)}

    def _span_nulls(self, rows: ConceptRows) -> dict[str, Maker]:
        concept = rows.concept
        carries = np.flatnonzero(np.isin(rows.item, concept.items))
        residue = self.tokens.position[rows.row[carries]] - 1
        last = np.maximum(self.tokens.length[rows.row[carries]].astype(np.int64), 1)
        items, number = np.unique(rows.item[carries], return_inverse=True)

        def shuffle(n: int, rng: np.random.Generator) -> Bools:
            return shuffled_within(rows.positive, rows.item, n, rng)

        def moved(n: int, rng: np.random.Generator) -> Bools:
            drawn = np.zeros((len(rows), n), bool)
            assert concept.spans is not None
            step = (rng.random((len(items), n))[number] * last[:, None]).astype(np.int64)
            place = (residue[:, None] - step) % last[:, None]
            drawn[carries] = concept.spans.contain(np.repeat(rows.item[carries][:, None], n, axis=1), place)
            return drawn

        return {"shuffled": _over(rows, shuffle), "random": _over(rows, moved)}

    def _gene_nulls(self, rows: ConceptRows) -> dict[str, Maker]:
        concept, heldout = rows.concept, self.named.heldout_units
        stratum = self.bins * 2 + heldout
        genes, place = np.unique(rows.group, return_inverse=True)
        is_member = np.isin(genes, concept.units)
        wanted = (
            np.bincount(stratum[genes[is_member]], minlength=2 * N_BINS),
            np.bincount(stratum[genes[~is_member]], minlength=2 * N_BINS),
        )
        everywhere = np.flatnonzero(~self.tokens.for_spans)
        unit = self.tokens.unit[everywhere]

        def shuffle(n: int, rng: np.random.Generator) -> Bools:
            return shuffled_within(is_member, stratum[genes], n, rng)[place]

        def anywhere(n: int, rng: np.random.Generator) -> Draws:
            positive, used = random_genes(unit, wanted, stratum, n, rng)
            return Draws(everywhere, heldout[unit], positive, used)

        return {"shuffled": _over(rows, shuffle), "random": anywhere}


def _over(rows: ConceptRows, make: Callable[[int, np.random.Generator], Bools]) -> Maker:
    """Draws over the concept's own rows."""
    return lambda n, rng: Draws(rows.row, rows.heldout, make(n, rng))


def described_items(items: pd.DataFrame, more: pd.DataFrame | None = None) -> pd.DataFrame:
    """Columns for the audit: group, label, and further ones. items: as read; more: of the same items, row by row."""
    columns: dict[str, Any] = {name: items[name].to_numpy(object) for name in ("group", "label")}
    if more is not None:
        columns |= {str(name): more[name].to_numpy() for name in more.columns}
    return pd.DataFrame(columns, index=items.index)
