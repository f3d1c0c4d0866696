"""p-values are uniform where there is nothing to find, and what belongs together is never torn apart."""

import numpy as np
import pytest
from scipy import stats

from sae_genomics.concepts.crossval import choose_strength, grouped_folds
from sae_genomics.concepts.measure import measure
from sae_genomics.concepts.nulls import Draws, draw_null, random_genes, random_items, shuffled_items, shuffled_within
from sae_genomics.concepts.section import ConceptsConfig
from tests.concepts.made_up import SETTINGS, label_concept, made_up_items, made_up_spans


@pytest.mark.parametrize("grouped", [False, True])
def test_p_is_uniform_without_signal(grouped):
    rng, settings = np.random.default_rng(0), ConceptsConfig(bootstraps=100, draws=39, stop_after=39)
    p = {"p_shuffled": [], "p_random": []}
    for number in range(40):
        made = made_up_items(rng, n=200, d=6, n_groups=40 if grouped else None, label_of_groups=grouped)
        row = made.measure(label_concept(made), settings, number).row
        for name, values in p.items():
            values.append(row[name])
    assert stats.kstest(p["p_shuffled"], "uniform").pvalue > 0.01
    assert 0.3 < np.mean(p["p_shuffled"]) < 0.7
    if not grouped:
        assert stats.kstest(p["p_random"], "uniform").pvalue > 0.01


def test_a_duplicated_donor_is_no_evidence():
    """Each donor's items are near copies of one another, and labels are the donors': nothing but the donor can be learned."""
    rng, p, by_item, by_donor = np.random.default_rng(1), [], [], []
    for number in range(15):
        made = made_up_items(rng, n=300, d=20, n_groups=30, label_of_groups=True)
        donor = made.items["group"].str[5:].astype(int).to_numpy()
        made.x = rng.normal(size=(30, 20))[donor] + 0.1 * rng.normal(size=made.x.shape)
        concept = label_concept(made)
        row = made.measure(concept, seed=number).row
        assert row["split_by"] == "group"
        p.append(row["p_shuffled"])
        by_donor.append(row["auroc"])
        ungrouped = made_up_items(rng, n=300, d=20)
        ungrouped.x, ungrouped.items["label"] = made.x, made.items["label"]
        by_item.append(ungrouped.measure(concept, seed=number).row["auroc"])
    assert np.mean(by_item) > 0.95
    assert min(by_item) > 0.85  # items of one donor on both sides: the leak
    assert abs(np.mean(by_donor) - 0.5) < 0.12
    assert np.mean(np.array(p) <= 0.05) <= 0.2


def test_folds_keep_groups_whole(rng):
    group = rng.integers(40, size=500)
    positive = group % 4 == 0
    fold = grouped_folds(positive, group, 5, rng)
    assert all(len(np.unique(fold[group == each])) == 1 for each in range(40))
    assert all(positive[fold == each].any() and (~positive[fold == each]).any() for each in range(5))
    few = grouped_folds(group < 3, group, 5, rng)
    assert few.max() == 2  # never more folds than groups with positives
    one = grouped_folds(group < 1, group, 5, rng)
    assert choose_strength(rng.normal(size=(500, 3)).astype(np.float32), group < 1, one).folds == 0


def test_labels_change_hands_where_they_may(rng):
    group = np.repeat(np.arange(20), 5)
    heldout = group % 4 == 0
    pure = group % 3 == 0
    drawn = shuffled_items(pure, heldout, group)(200, rng)
    assert all(len(np.unique(drawn[group == each], axis=0)) == 1 for each in range(20))  # groups stay whole
    np.testing.assert_array_equal(drawn[heldout].sum(axis=0), pure[heldout].sum())
    assert 0.2 < drawn.mean() < 0.5
    mixed = np.arange(100) % 5 < 2
    drawn = shuffled_items(mixed, heldout, group)(200, rng)
    for each in range(20):
        np.testing.assert_array_equal(drawn[group == each].sum(axis=0), 2)
    assert (drawn.mean(axis=1) > 0.2).all()
    drawn = random_items(mixed, heldout)(50, rng)
    np.testing.assert_array_equal(drawn[~heldout].sum(axis=0), mixed[~heldout].sum())


def test_a_stratum_keeps_its_count(rng):
    stratum, values = rng.integers(7, size=90), rng.random(90) < 0.4
    drawn = shuffled_within(values, stratum, 30, rng)
    for each in range(7):
        np.testing.assert_array_equal(drawn[stratum == each].sum(axis=0), values[stratum == each].sum())
    assert len(np.unique(drawn, axis=1).T) > 20


def test_random_gene_sets_are_matched(rng):
    stratum = np.repeat(np.arange(4), 25)
    unit = np.repeat(np.arange(100), 3)
    wanted = (np.array([2, 0, 5, 1]), np.array([8, 0, 20, 4]))
    positive, used = random_genes(unit, wanted, stratum, 40, rng)
    for each in range(4):
        rows = stratum[unit] == each
        np.testing.assert_array_equal(positive[rows].sum(axis=0), 3 * wanted[0][each])
        np.testing.assert_array_equal(used[rows].sum(axis=0), 3 * (wanted[0] + wanted[1])[each])
    assert (positive <= used).all()
    assert len(np.unique(positive, axis=1).T) > 30


def test_moved_spans_keep_their_length(rng):
    pool, concept, _ = made_up_spans(rng, 0.0)
    rows = pool.rows(concept)
    make = pool.evidence(rows).makers["random"]
    drawn = make(30, rng).positive
    for item in concept.items[:5]:
        np.testing.assert_array_equal(drawn[rows.item == item].sum(axis=0), 8)
    assert not drawn[np.isin(rows.item, concept.others)].any()
    assert len(np.unique(drawn, axis=1).T) == 30


def test_spans_without_signal_have_large_p():
    p = []
    for number in range(12):
        pool, concept, _ = made_up_spans(np.random.default_rng([7, number]), 0.0, n=60, d=5)
        rows = pool.rows(concept)
        row = measure(rows, pool.evidence(rows), SETTINGS, number).row
        p.append(row["p_value"])
        assert row["n_shuffled"] <= 99
    assert np.mean(np.array(p) <= 0.05) <= 0.25
    assert np.mean(p) > 0.3


def test_draws_stop_when_the_answer_is_clear(rng):
    x = rng.normal(size=(100, 4)).astype(np.float32)
    heldout, row = np.arange(100) % 2 == 0, np.arange(100)

    def make(n, generator):
        return Draws(row, heldout, generator.random((100, n)) < 0.3)

    early = draw_null(x, make, 0.4, 0.1, 99, 5, np.random.default_rng(0))
    assert len(early.areas) < 19
    assert (early.areas >= 0.4).sum() == 5
    assert early.areas[-1] >= 0.4  # the draw that made it clear is the last
    assert early.p == (1 + 5) / (1 + len(early.areas))
    late = draw_null(x, make, 1.1, 0.1, 99, 5, np.random.default_rng(0))
    assert (len(late.areas), late.p) == (99, 0.01)
    np.testing.assert_array_equal(late.areas[: len(early.areas)], early.areas)
    assert np.isnan(draw_null(x, make, np.nan, 0.1, 99, 5, rng).p)
