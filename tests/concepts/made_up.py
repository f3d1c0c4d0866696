"""Small made-up layers whose concepts are known: items with labels, and sequences with spans."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from sae_genomics.concepts.concept import Concept, NamedConcepts, Spans
from sae_genomics.concepts.measure import Measured, measure
from sae_genomics.concepts.named import with_split
from sae_genomics.concepts.pool import Pool, described_items
from sae_genomics.concepts.rows import ItemRows, TokenRows
from sae_genomics.concepts.sampling import Sample
from sae_genomics.concepts.section import ConceptsConfig

N_UNITS = 20
SETTINGS = ConceptsConfig(bootstraps=100)


def named_of(concepts: list[Concept], items: pd.DataFrame, n_units: int = N_UNITS) -> NamedConcepts:
    """items: heldout, group."""
    return with_split(concepts, [], items, np.zeros(n_units, bool), 0)


@dataclass
class MadeUpItems:
    """x: [items, d]. units: [items, N_UNITS], counts. heldout, group, label: of the items."""

    x: np.ndarray
    units: np.ndarray
    items: pd.DataFrame

    def pool(self, concepts: list[Concept], more: pd.DataFrame | None = None) -> Pool:
        n = len(self.x)
        named = named_of(concepts, self.items)
        rows = ItemRows(
            self.x.astype(np.float32), np.arange(n), np.full(n, float(self.units[0].sum())), self.units.sum(axis=1).astype(float),
            sparse.csr_matrix(self.units.astype(float)),
        )  # fmt: skip
        sample = Sample(np.ones(n, bool), np.zeros(n, bool), np.zeros(N_UNITS, bool), 8, 4, np.zeros(N_UNITS, int), {})
        return Pool(
            named, sample, (rows, no_tokens(self.x.shape[1])), np.zeros(N_UNITS, int),
            described_items(self.items, more), None,
        )  # fmt: skip

    def measure(self, concept: Concept, settings: ConceptsConfig = SETTINGS, seed: int = 0, **more) -> Measured:
        pool = self.pool([concept], **more)
        rows = pool.rows(pool.named[0])
        return measure(rows, pool.evidence(rows), settings, seed)


def no_tokens(d: int) -> TokenRows:
    whole, real = np.zeros(0, np.int64), np.zeros(0)
    return TokenRows(
        np.zeros((0, d), np.float32), whole, whole, whole, real, real, real, real, np.zeros((0, N_UNITS), np.float32),
        np.zeros(0, bool),
    )  # fmt: skip


def made_up_items(
    rng: np.random.Generator, n: int = 600, d: int = 12, n_groups: int | None = None, label_of_groups: bool = False
) -> MadeUpItems:
    """Items without any signal. n_groups: donors; None: no groups. label_of_groups: each donor's items have one label."""
    group = np.arange(n) if n_groups is None else rng.integers(n_groups, size=n)
    heldout = rng.random(n) < 0.3 if n_groups is None else (group % 3 == 0)
    by = np.zeros(int(group.max()) + 1, bool)  # of each side of the split, 3 of 10 groups
    for side in (np.arange(len(by)) % 3 == 0, np.arange(len(by)) % 3 != 0):
        by[rng.permutation(np.flatnonzero(side))[: round(0.3 * side.sum())]] = True
    label = by[group] if label_of_groups else rng.random(n) < 0.3
    names = [None] * n if n_groups is None else [f"donor{each}" for each in group]
    items = pd.DataFrame(
        {
            "item_id": [f"i{i}" for i in range(n)], "heldout": heldout, "group": pd.Series(names, dtype=object),
            "label": np.where(label, "yes", "no"),
        }
    )  # fmt: skip
    return MadeUpItems(rng.normal(size=(n, d)), rng.multinomial(60, np.full(N_UNITS, 1 / N_UNITS), size=n), items)


def label_concept(made: MadeUpItems) -> Concept:
    """Of the items that are labelled yes."""
    yes = (made.items["label"] == "yes").to_numpy()
    return Concept("label:yes", "label", "yes", "item", np.flatnonzero(yes), np.flatnonzero(~yes), column="label")


def made_up_spans(rng: np.random.Generator, strength: float, n: int = 80, length: int = 40, d: int = 12) -> tuple:
    """A pool of sequences, a third of them with a span of 8 residues, along whose residues activations move by `strength`.

    Returns the pool, its concept and the direction.
    """
    direction = rng.normal(size=d)
    direction /= np.linalg.norm(direction)
    carriers = np.arange(0, n, 3)
    start = rng.integers(0, length - 8, size=len(carriers))
    concept = Concept(
        "span:S", "span", "a span", "token", carriers, np.setdiff1d(np.arange(n), carriers),
        spans=Spans.of(carriers, start, start + 8),
    )  # fmt: skip
    item = np.repeat(np.arange(n), length)
    position = np.tile(np.arange(1, length + 1), n)
    unit = rng.integers(N_UNITS, size=len(item))
    inside = concept.token_truth(item, position, unit) == 1
    x = rng.normal(size=(len(item), d)) + strength * inside[:, None] * direction
    which = np.zeros((len(item), N_UNITS), np.float32)
    which[np.arange(len(item)), unit] = 1
    size = np.full(len(item), float(length))
    tokens = TokenRows(
        x.astype(np.float32), item, unit, position, np.ones(len(item)), size, size, position / length, which,
        np.ones(len(item), bool),
    )  # fmt: skip
    items = pd.DataFrame(
        {
            "item_id": [f"i{i}" for i in range(n)], "heldout": np.arange(n) % 4 == 0,
            "group": pd.Series([None] * n, dtype=object), "label": None,
        }
    )  # fmt: skip
    sample = Sample(
        np.zeros(n, bool),
        np.ones(n, bool),
        np.zeros(N_UNITS, bool),
        40,
        4,
        np.zeros(N_UNITS, int),
        {"span:S": np.arange(n)},
    )
    no_items = ItemRows(
        np.zeros((0, d), np.float32), np.zeros(0, np.int64), np.zeros(0), np.zeros(0), sparse.csr_matrix((0, N_UNITS))
    )
    pool = Pool(
        named_of([concept], items),
        sample,
        (no_items, tokens),
        np.zeros(N_UNITS, int),
        described_items(items, None),
        None,
    )
    return pool, pool.named[0], direction
