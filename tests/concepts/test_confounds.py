"""What else tells positives from negatives is found, and matched away; composition alone is flagged."""

import numpy as np
import pandas as pd
import pytest

from sae_genomics.concepts.baselines import item_composition
from sae_genomics.concepts.confounds import Property, ScoredRows, audit
from sae_genomics.concepts.item_table import read_item_table
from sae_genomics.concepts.named import label_concepts
from sae_genomics.concepts.rows import ItemRows
from sae_genomics.concepts.scores import GroupDraws
from sae_genomics.errors import UserError
from tests.concepts.made_up import N_UNITS, label_concept, made_up_items


def of(found, name):
    return next(each for each in found if each["confound"] == name)


def heldout_rows(scores, positive, group=None):
    group = np.arange(len(scores)) if group is None else group
    return ScoredRows(scores, positive, group, GroupDraws.of(group, 100, 0))


def test_what_is_only_composition_is_flagged(rng):
    """Activations hold composition and noise alone, and the label is drawn from composition."""
    made = made_up_items(rng)
    yes = (made.items["label"] == "yes").to_numpy()
    rich = np.full(N_UNITS, 1.0)
    rich[:4] = 2.5
    made.units[yes] = rng.multinomial(60, rich / rich.sum(), size=int(yes.sum()))
    made.x = made.units / 60 @ rng.normal(size=(N_UNITS, 12)) + 0.02 * rng.normal(size=made.x.shape)
    found = made.measure(label_concept(made))
    assert found.row["auroc"] > 0.8
    assert found.row["p_value"] == 0.01  # chance is no explanation, composition is
    assert found.row["auroc_composition"] > 0.9
    assert not found.row["beyond_composition"]
    assert found.row["difference_low"] < 0
    composition = of(found.confounds, "composition")
    assert composition["auroc_matched"] < found.row["auroc"] - 0.1


def test_what_composition_does_not_hold_is_beyond_it(rng):
    made = made_up_items(rng)
    yes = (made.items["label"] == "yes").to_numpy()
    made.x[yes, 0] += 2
    row = made.measure(label_concept(made)).row
    assert abs(row["auroc_composition"] - 0.5) < 0.15
    assert row["difference_low"] > 0.2
    assert row["beyond_composition"]


def test_taxonomy_is_found_and_nothing_is_left_of_it(rng):
    """Positives from four species, negatives from another; activations know the species and nothing else."""
    made = made_up_items(rng)
    yes = (made.items["label"] == "yes").to_numpy()
    species = np.where(yes, np.array(["human", "mouse", "fly", "yeast"])[rng.integers(4, size=len(yes))], "E. coli")
    made.x[yes, 0] += 6
    more = pd.DataFrame({"organism": species.astype(object)}, index=made.items["item_id"])
    found = made.measure(label_concept(made), more=more)
    organism = of(found.confounds, "organism")
    assert found.row["auroc"] > 0.98
    assert organism["auroc"] > 0.98
    assert organism["strongest"]
    assert found.row["strongest_confound"] == "organism"
    assert organism["n_strata"] == 0
    assert organism["share_matched"] == 0
    assert np.isnan(organism["auroc_matched"])


def test_a_column_is_no_confound_of_its_own_values_and_labels_confound_other_columns(rng):
    made = made_up_items(rng)
    yes = (made.items["label"] == "yes").to_numpy()
    batch = np.where(yes, "b1", "b2").astype(object)
    more = pd.DataFrame({"batch": batch}, index=made.items["item_id"])
    concept = label_concepts(pd.Series(batch), "batch: ", column="batch")[0]
    names = {each["confound"] for each in made.measure(concept, more=more).confounds}
    assert "batch" not in names
    assert "label" in names
    names = {each["confound"] for each in made.measure(label_concept(made), more=more).confounds}
    assert "batch" in names
    assert "label" not in names


def test_a_number_is_matched_in_tenths(rng):
    depth = rng.normal(size=2000)
    positive = rng.random(2000) < 1 / (1 + np.exp(-2 * depth))
    [row] = audit(
        "c", heldout_rows(depth + 0.1 * rng.normal(size=2000), positive), [Property("depth", depth, False)], 0
    )
    assert row["auroc"] > 0.8
    assert row["auroc_matched"] < 0.6  # within a tenth little of the depth is left
    assert row["n_strata"] == 10
    assert row["share_matched"] == 1
    own = positive + 0.5 * rng.normal(size=2000)
    [row] = audit("c", heldout_rows(own, positive), [Property("depth", depth, False)], 0)
    assert row["auroc_matched"] > 0.85  # what depth does not explain stays
    assert row["auroc_matched_low"] <= row["auroc_matched"] <= row["auroc_matched_high"]


def test_a_category_does_not_predict_itself(rng):
    """Many small categories that say nothing: the share among the others must not leak the row's own label, in either direction."""
    areas = []
    for _ in range(20):
        category, positive = rng.integers(100, size=400), rng.random(400) < 0.3
        areas.append(Property("batch", category, True).auroc(positive, rng))
    assert abs(np.mean(areas) - 0.5) < 0.03
    category = rng.integers(5, size=400)
    assert Property("batch", category, True).auroc(category < 2, rng) == 1


def test_missing_values_are_left_out(rng):
    text = np.array(["a", None, "b", "b", None, "a"], dtype=object)
    np.testing.assert_array_equal(Property.of("t", text).known(), [True, False, True, True, False, True])
    numbers = np.array([1.0, np.nan, 2.0, 3.0])
    each = Property.of("n", numbers)
    assert each.known().sum() == 3
    assert each.auroc(np.array([False, True, True, True]), rng) == 1


def test_directions_of_expression_come_from_training_items(rng):
    from scipy import sparse

    counts = rng.poisson(1.0, size=(80, 100)).astype(float)
    rows = ItemRows(
        np.zeros((80, 2), np.float32), np.arange(80), counts.sum(axis=1), counts.sum(axis=1), sparse.csr_matrix(counts)
    )
    train = np.arange(80) < 60
    columns = item_composition(rows, train)
    assert columns.shape == (80, 34)
    logged = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    centred = logged - logged[train].mean(axis=0)
    _, _, axes = np.linalg.svd(centred[train], full_matrices=False)
    np.testing.assert_allclose(
        np.sort(np.abs(columns[:, :32]).max(axis=0)), np.sort(np.abs(centred @ axes[:32].T).max(axis=0)), rtol=1e-3
    )


def test_a_table_of_properties_is_read_and_refused(tmp_path):
    path = tmp_path / "more.tsv"
    path.write_text("item_id\torganism\tage\ni1\thuman\t3\ni2\t\tNA\n")
    table = read_item_table(path, "concepts.confounds")
    assert table["organism"].tolist() == ["human", None]
    assert table["age"].dtype == np.float64
    path.write_text("item_id\torganism\ni1\thuman\ni1\tmouse\n")
    with pytest.raises(UserError, match=r"more\.tsv, line 3: i1 has a row already"):
        read_item_table(path, "concepts.confounds")
    path.write_text("item_id\ni1\n")
    with pytest.raises(UserError, match="no column beside item_id"):
        read_item_table(path, "concepts.confounds")
    with pytest.raises(UserError, match=r"no such file: .*correct concepts\.confounds"):
        read_item_table(tmp_path / "absent.tsv", "concepts.confounds")
