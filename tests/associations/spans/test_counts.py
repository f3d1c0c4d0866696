"""One pass over random proteins against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.associations.spans.counts import ConceptCounts, at_least, half_octave, threshold_of
from sae_genomics.associations.spans.scores import ConceptSizes, score
from tests.associations.spans.made_up import made_up, plain_counts


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 5, 100]), st.booleans())
def test_counts_are_those_of_plain_loops(seed: int, items_at_once: int, grouped: bool) -> None:
    rng = np.random.default_rng(seed)
    data = made_up(rng, int(rng.integers(4, 16)), 4, 3, grouped)
    if not len(data.spans):
        return
    counts, sizes = data.counted(items_at_once)
    concepts = counts.concepts
    plain = plain_counts(data, concepts, counts.thresholds())
    way = np.where(concepts.halves.single, 2, 0)
    for half in (0, 1):
        np.testing.assert_array_equal(at_least(counts.levels.residues)[:, half::2], plain["tp"][:, :, half])
        np.testing.assert_array_equal(counts.levels.runs[:, half::2], plain["runs"][:, :, half])
        np.testing.assert_array_equal(at_least(counts.levels.spans)[:, half::2], plain["hit"][:, :, half])
        np.testing.assert_array_equal(at_least(counts.levels.active)[:, way + half], plain["active"][:, :, half])
        np.testing.assert_array_equal(counts.levels.all_runs[:, way + half], plain["all_runs"][:, :, half])
        np.testing.assert_array_equal(sizes.of(half, sizes.residues), plain["residues"][:, half])
        np.testing.assert_array_equal(sizes.of(half, sizes.n_spans), plain["spans"][:, half])
        np.testing.assert_array_equal(sizes.all_residues[way + half], plain["all"][:, half])
    for name in ("observed", "inside", "share"):
        np.testing.assert_allclose(getattr(counts.tests, name), plain[name], rtol=1e-12)
    _scores_are_plain(counts, sizes, plain)


def _scores_are_plain(counts: ConceptCounts, sizes: ConceptSizes, plain: dict[str, np.ndarray]) -> None:
    scores = score(counts, sizes)
    for u in range(counts.n_units):
        for c in range(len(counts.concepts)):
            if not plain["residues"][c].all():
                assert scores.chosen[u, c] == -1
                assert np.isnan(scores.q[u, c])
                continue
            tp, active = plain["tp"][u, c], plain["active"][u, c]
            f1 = 2 * tp[0] / (active[0] + plain["residues"][c, 0])
            level = int(np.argmax(f1))
            assert scores.level[u, c] == level
            assert scores.chosen[u, c] == pytest.approx(f1[level])
            got, on = tp[1, level], active[1, level]
            assert scores.f1_residue[u, c] == pytest.approx(2 * got / (on + plain["residues"][c, 1]))
            if on:
                precision = plain["runs"][u, c, 1, level] / plain["all_runs"][u, c, 1, level]
                recall = plain["hit"][u, c, 1, level] / plain["spans"][c, 1]
                assert scores.precision_residue[u, c] == pytest.approx(got / on)
                assert scores.precision_span[u, c] == pytest.approx(precision)
                assert scores.recall_span[u, c] == pytest.approx(recall)
                both = precision + recall
                assert scores.f1_span[u, c] == pytest.approx(2 * precision * recall / both if both else 0)
            assert 0 < scores.p[u, c] <= 1


def test_thresholds_are_the_half_octaves_below_the_maximum() -> None:
    rng = np.random.default_rng(0)
    data = made_up(rng, 20, 3, 2, False)
    counts, _ = data.counted(2)
    highest = counts.thresholds()[:, -1]
    rows = np.repeat(np.isin(np.arange(20), data.spans["item_index"]), np.diff(data.item_ptr)) & (data.unit >= 0)
    maximum = data.dense[rows].max(axis=0)
    assert ((highest <= maximum) & (maximum < highest * 1.4143)).all()
    ratios = counts.thresholds()[:, 2:] / counts.thresholds()[:, 1:-1]
    np.testing.assert_allclose(ratios, np.sqrt(2), rtol=1e-6)


def test_a_half_octave_is_reached_exactly_at_its_threshold() -> None:
    k = np.arange(-40, 40)
    at = threshold_of(k).astype(np.float32)
    assert half_octave(at).tolist() == k.tolist()
    assert half_octave(np.nextafter(at, np.float32(0))).tolist() == (k - 1).tolist()
