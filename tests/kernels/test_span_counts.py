"""Counts about spans against the plain version; `tests/associations/spans` compares them with loops."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.kernels import span_counts  # noqa: F401  its kernels register themselves
from sae_genomics.kernels.arrays import Active, CountedRows, LevelCounts, Observations, ObservedItems, Segments
from sae_genomics.kernels.choice import KERNELS

N_UNITS, N_CONCEPTS, N_LEVELS = 5, 3, 4


def segments(rng: np.random.Generator, lengths: np.ndarray, most: int, apart: bool) -> Segments:
    """Per item and concept up to `most` ranges of its rows; apart: ranges that do not touch."""
    found, first = [], np.cumsum(lengths) - lengths
    for item, length in enumerate(lengths):
        for concept in range(N_CONCEPTS):
            before = -1
            cuts = np.unique(rng.integers(0, length + 1, 2 * rng.integers(0, most + 1)))
            pairs = zip(cuts[0::2], cuts[1::2], strict=False) if apart else pairwise(cuts)
            for start, stop in pairs:
                found.append((first[item] + start, first[item] + stop, 2 * concept + item % 2, before))
                before = first[item] + stop
    return Segments(*np.array(found, np.int64).reshape(-1, 4).T.copy())


def entries(rng: np.random.Generator, n_rows: int, share: float) -> Active:
    row, unit = np.nonzero(rng.random((n_rows, N_UNITS)) < share)
    activation = rng.integers(-1, 5, len(row)).astype(np.float32)  # ties, zeros, negative values
    return Active(np.searchsorted(row, np.arange(n_rows + 1)), unit.astype(np.int32), activation)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.9])
@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_both_versions_count_alike(share, seed, n_items):
    rng = np.random.default_rng(seed)
    fast, plain = (LevelCounts.zeros(N_UNITS, 2 * N_CONCEPTS, N_LEVELS) for _ in range(2))
    for _ in range(2):
        lengths = rng.integers(1, 15, n_items)
        item = np.repeat(np.arange(n_items), lengths)
        position = np.concatenate([np.arange(0), *(np.cumsum(rng.integers(1, 3, n)) for n in lengths)])
        rows = CountedRows(item, position.astype(np.int64), rng.integers(0, 2, (len(item), 2)).astype(np.int8))
        active = entries(rng, len(item), share)
        level = np.clip(active.activation, -1, N_LEVELS - 1).astype(np.int8)
        arguments = (rows, segments(rng, lengths, 2, True), segments(rng, lengths, 2, False), active, level)
        KERNELS["span_counts.add_levels"].fast(fast, *arguments)
        KERNELS["span_counts.add_levels"].plain(plain, *arguments)
    for name, expected in plain._asdict().items():
        np.testing.assert_array_equal(getattr(fast, name), expected, name)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.9])
@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_both_versions_observe_alike(share, seed, n_items):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 15, n_items)
    merged = segments(rng, lengths, 2, True)
    stop, concept = np.cumsum(lengths), merged.column // 2
    item = np.searchsorted(stop, merged.start, side="right")
    first = np.flatnonzero(np.diff(item * N_CONCEPTS + concept, prepend=-1))
    items = ObservedItems(
        (stop - lengths)[item[first]], stop[item[first]], concept[first], np.append(first, len(merged.start))
    )
    active = entries(rng, int(lengths.sum()), share)
    fast, plain = (Observations.zeros(N_UNITS, N_CONCEPTS) for _ in range(2))
    KERNELS["span_counts.add_observations"].fast(fast, items, merged, active)
    KERNELS["span_counts.add_observations"].plain(plain, items, merged, active)
    np.testing.assert_array_equal(fast.observed, plain.observed)
    np.testing.assert_array_equal(fast.inside, plain.inside)
    np.testing.assert_allclose(fast.share, plain.share, rtol=1e-12)
