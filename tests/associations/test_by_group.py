"""Groups of cells as replicates: against scipy, on simulated donors, and through the whole stage."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from sklearn.metrics import roc_auc_score

from sae_genomics import artifacts
from sae_genomics.associations.by_group import LEAST_CELLS, Side, compare_by_group, constant_types
from sae_genomics.associations.cell_sample import sample_cells
from sae_genomics.associations.cell_types import best_types, best_units, compare_units, feature_cell_types
from sae_genomics.associations.column_store import ColumnStore
from sae_genomics.associations.mann_whitney import tied_exact_p
from sae_genomics.associations.multiple_testing import benjamini_hochberg
from sae_genomics.associations.task import run_task

FDR = 0.05


def side(kind, donor, n_types):
    return Side(kind, donor, constant_types(kind, donor, n_types))


def as_rows(values):
    """All entries stored, as neurons' are: values may be negative."""
    n, columns = values.shape
    pointers = np.arange(n + 1) * columns
    return sparse.csr_matrix((values.ravel(), np.tile(np.arange(columns), n), pointers), shape=values.shape)


@pytest.mark.parametrize("scale", [1.0, 0.02], ids=["groups differ", "groups agree more than cells allow"])
def test_a_cell_type_is_a_t_test_over_the_groups_own_aurocs(scale):
    rng = np.random.default_rng(0)
    donor = np.repeat(np.arange(6), [40, 35, 50, 9, 30, 44])
    kind = rng.integers(0, 3, len(donor))
    kind[donor == 4] = rng.permutation(np.repeat([0, 1, 2], [LEAST_CELLS - 1, 13, 13]))  # too few cells of type 0
    values = rng.normal(0, 1, (len(donor), 4)) + scale * rng.normal(0, 1, (6, 3, 4))[donor, kind]
    found = compare_by_group(as_rows(values.astype(np.float32)), side(kind, donor, 3))
    for t in range(3):
        used = [g for g in range(6) if min(sum(kind[donor == g] == t), sum(kind[donor == g] != t)) >= LEAST_CELLS]
        assert 3 <= len(used) < 6
        for column in range(4):
            areas, least = [], 0.0
            for g in used:
                inside = kind[donor == g] == t
                areas.append(roc_auc_score(inside, values[donor == g, column]))
                n_in, n_out = inside.sum(), (~inside).sum()
                area = (min(n_in, n_out) * areas[-1] + 0.5) / (min(n_in, n_out) + 1)
                pairs = (n_in + n_out) / 2 - 1
                spread = 1 + pairs * (1 - area) / (2 - area) + pairs * area / (1 + area)
                least += area * (1 - area) * spread / n_in / n_out
            n = len(used)
            error = max(stats.sem(areas), np.sqrt(least) / n)
            assert found.auroc[column, t] == pytest.approx(np.mean(areas))
            p = 2 * stats.t.sf(abs(np.mean(areas) - 0.5) / error, n - 1)
            assert found.p_value[column, t] == pytest.approx(p)
            if stats.sem(areas) >= error:
                assert found.p_value[column, t] == pytest.approx(stats.ttest_1samp(areas, 0.5).pvalue)
            low, high = stats.t.interval(0.95, n - 1, np.mean(areas), error)
            assert found.auroc_low[column, t] == pytest.approx(max(low, 0))
            assert found.auroc_high[column, t] == pytest.approx(min(high, 1))


def test_a_type_of_whole_groups_is_an_exact_test_over_their_means():
    rng = np.random.default_rng(1)
    donor = np.repeat(np.arange(9), [20, 12, 30, 25, 8, 3, 40, 11, 14])  # the sixth has too few cells
    disease = np.array([1, 0, 1, 1, 0, 1, 0, 0, 0])
    values = rng.normal(0, 1, (len(donor), 5)) + rng.normal(0, 1, (9, 5))[donor]
    values[:, 3] = np.maximum(values[:, 3] - 1.5, 0) * (donor % 2)  # some groups are silent, and tie
    found = compare_by_group(as_rows(values.astype(np.float32)), side(disease[donor], donor, 2))
    means = pd.DataFrame(values.astype(np.float32).astype(float)).groupby(donor).mean().to_numpy()
    used = np.arange(9) != 5
    means, inside = means[used], disease[used] == 1
    for column in range(5):
        if column != 3:
            expected = stats.mannwhitneyu(means[inside, column], means[~inside, column], method="exact").pvalue
        else:
            ranks = stats.rankdata(means[:, column])
            sums = np.array([ranks[list(chosen)].sum() for chosen in combinations(range(8), int(inside.sum()))])
            expected = np.mean(np.abs(sums - sums.mean()) >= abs(ranks[inside].sum() - sums.mean()) - 1e-9)
        assert found.p_value[column, 1] == pytest.approx(expected)
        assert found.auroc[column, 1] == pytest.approx(roc_auc_score(inside, means[:, column]))
        assert found.auroc_low[column, 1] < found.auroc_high[column, 1]
    np.testing.assert_allclose(found.p_value[:, 0], found.p_value[:, 1])


def test_exact_p_with_ties_is_scipys_permutation_test():
    rng = np.random.default_rng(2)
    values, inside = rng.integers(0, 4, (9, 6)).astype(float), np.arange(9) < 4
    found = tied_exact_p(values, inside)
    for column in range(6):
        expected = stats.permutation_test(
            (values[inside, column], values[~inside, column]),
            lambda x, y: abs(stats.mannwhitneyu(x, y).statistic - 10),
            alternative="greater",
            n_resamples=np.inf,
        ).pvalue
        assert found[column] == pytest.approx(expected)


def test_perfect_agreement_of_few_groups_is_no_proof():
    """Three donors in which a unit separates the type perfectly have no spread; p must not be 0 for that."""
    donor = np.repeat([0, 1, 2], 12)
    kind = np.tile(np.repeat([0, 1], 6), 3)
    values = np.stack([kind + 1.0, np.zeros(36)], axis=1).astype(np.float32)
    found = compare_by_group(sparse.csr_matrix(values), side(kind, donor, 2))
    assert found.auroc[0].tolist() == [0.0, 1.0]
    assert 0.001 < found.p_value[0, 1] < 0.05
    assert found.auroc_low[0, 1] < 0.95
    assert found.auroc[1].tolist() == [0.5, 0.5]  # a silent unit
    assert found.p_value[1].tolist() == [1.0, 1.0]
    assert np.isnan(found.auroc_low[1]).all()


def donors_without_signal(seed, n_donors=16, n_cells=60, n_units=60, effect=2.0):
    """Cells whose type says nothing of any unit; donors differ much in every unit, and in which types they have.

    Held-out donors are the second half. Returns cells.parquet's columns, and values [cells, units].
    """
    rng = np.random.default_rng(seed)
    donor = np.repeat(np.arange(n_donors), n_cells)
    shares = rng.dirichlet([1.0, 1.0, 1.0], n_donors)
    kind = np.array([rng.choice(3, p=shares[d] * 0.7 + 0.1) for d in donor])
    values = np.maximum(
        rng.normal(0, 1, (len(donor), n_units)) + effect * rng.normal(0, 1, (n_donors, n_units))[donor], 0
    )
    cells = pd.DataFrame(
        {
            "cell_type": np.array(["T", "B", "NK"], object)[kind],
            "group": [f"donor{d}" for d in donor],
            "heldout": donor >= n_donors // 2,
        }
    )
    return cells, values.astype(np.float32)


def compared(cells, values, folder):
    sample = sample_cells(cells.rename(columns={"cell_type": "label"}), 50_000, 0)
    with ColumnStore(len(sample), values.shape[1], folder) as store:
        row, column = np.nonzero(values[sample.cell])
        store.add(row, column, values[sample.cell][row, column])
        return compare_units(store, sample)


def test_donors_alone_give_no_discoveries_with_the_key_and_many_without(tmp_path):
    n_with = n_without = n_tests = 0
    p_values = []
    for seed in range(10):
        cells, values = donors_without_signal(seed)
        with_key = feature_cell_types(compared(cells, values, tmp_path))
        without = feature_cell_types(compared(cells.drop(columns="group"), values, tmp_path))
        assert with_key["p_value"].notna().all()
        n_with += (with_key["q_value"] < FDR).sum()
        n_without += (without["q_value"] < FDR).sum()
        n_tests += len(with_key)
        p_values.append(with_key["p_value"])
    assert n_with <= 0.05 * n_tests
    assert n_without > 0.3 * n_tests
    assert np.mean(np.concatenate(p_values) < 0.05) <= 0.06  # each test keeps its level, not only the adjusted ones


@pytest.mark.parametrize("n_donors", [3, 5, 8])
def test_types_that_differ_from_donor_to_donor_without_a_rule_are_no_discovery(n_donors):
    """Each donor moves each type by itself, up or down, by three times what cells differ: AUROCs near 0 and near 1."""
    n_found = n_tests = 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        donor = np.repeat(np.arange(n_donors), 150)
        kind = rng.integers(0, 3, len(donor))
        values = rng.normal(0, 1, (len(donor), 100)) + 3 * rng.normal(0, 1, (n_donors, 3, 100))[donor, kind]
        p = compare_by_group(as_rows(values.astype(np.float32)), side(kind, donor, 3)).p_value.ravel()
        assert np.mean(p < 0.05) < 0.12
        n_found += (benjamini_hochberg(p) < FDR).sum()
        n_tests += len(p)
    assert n_found <= 0.02 * n_tests


def test_a_signal_within_donors_is_found_under_strong_donor_effects(tmp_path):
    cells, values = donors_without_signal(3)
    inside = (cells["cell_type"] == "B").to_numpy()
    values[inside, 0] += 5.0
    tests = compared(cells, values, tmp_path)
    table = feature_cell_types(tests).set_index(["feature", "cell_type"])
    found = table.loc[(0, "B")]
    assert found["q_value"] < FDR
    assert found["auroc_low"] > 0.8
    assert (found["n_groups"], found["unit_of_inference"]) == (8, "groups")
    best = best_units(tests, "feature", np.arange(60), np.arange(60).astype(str).astype(object)).set_index("cell_type")
    assert best.loc["B", "unit"] == 0
    for name in ("auroc", "auroc_low", "auroc_high", "n_groups", "unit_of_inference"):
        assert best.loc["B", name] == found[name]


def test_a_type_that_cannot_be_tested_is_no_features_best_type(tmp_path):
    cells, values = donors_without_signal(3)
    rare = (cells["group"].isin(["donor0", "donor1", "donor15"]) & (cells["cell_type"] == "B")).to_numpy()
    cells.loc[rare, "cell_type"] = "rare"
    values[rare, 0] += 9.0
    tests = compared(cells, values, tmp_path)
    table = feature_cell_types(tests)
    assert table.loc[table["cell_type"] == "rare", "untested"].notna().all()
    assert (table.loc[0:3].set_index("cell_type")["auroc_train"] > 0.9)["rare"]
    best = best_types(tests, table["q_value"].to_numpy())
    assert "rare" not in set(best["best_cell_type"])
    assert best.loc[best["best_cell_type"].notna(), "best_cell_type_q_value"].notna().all()


def test_a_disease_of_few_donors_is_not_found_by_counting_cells(tmp_path):
    """Four sick and four well held-out donors: the smallest possible p is 2 / 70, however many cells there are."""
    cells, values = donors_without_signal(5)
    cells["cell_type"] = np.where(cells["group"].str[5:].astype(int) % 2, "sick", "well")
    with_key = feature_cell_types(compared(cells, values, tmp_path))
    assert set(with_key["unit_of_inference"]) == {"group means"}
    assert set(with_key["n_groups"]) == {8}
    assert with_key["p_value"].min() >= 2 / 70 - 1e-12
    assert not (with_key["q_value"] < FDR).any()
    without = feature_cell_types(compared(cells.drop(columns="group"), values, tmp_path))
    assert (without["q_value"] < FDR).mean() > 0.5


def test_the_files_say_how_many_cells_are_counted_without_the_key(make_run):
    run = make_run()
    run_task(run, 0)
    n = artifacts.CELLS.read(run.cells_file)["heldout"].sum()
    for table in (artifacts.FEATURES, artifacts.FEATURE_CELL_TYPES, artifacts.CELL_TYPE_BASELINES):
        said = table.inference_of(run.layer_results(1) / table.file)
        assert said.unit == "one held-out cell, all cells taken as independent"
        assert said.n.startswith(f"{n} held-out cells")


def test_too_few_groups_give_no_p_and_the_reason(tmp_path):
    cells, values = donors_without_signal(0, n_donors=4)
    table = feature_cell_types(compared(cells, values, tmp_path))
    assert table[["p_value", "q_value", "auroc_low", "auroc_high"]].isna().all(axis=None)
    assert table["auroc"].notna().all()  # a number, of two groups, without a claim
    assert set(table["n_groups"]) == {2}
    assert (
        table["untested"]
        .str.fullmatch("held-out groups with at least 5 cells of the type and 5 others: 2; a test needs 3")
        .all()
    )


def test_without_the_key_nothing_is_said_of_groups(tmp_path):
    cells, values = donors_without_signal(0)
    table = feature_cell_types(compared(cells.assign(group=None), values, tmp_path))
    assert table["n_groups"].isna().all()
    assert set(table["unit_of_inference"]) == {"cells"}
    assert table["untested"].isna().all()
    assert ((table["auroc_low"] <= table["auroc"]) & (table["auroc"] <= table["auroc_high"])).all()


def test_the_whole_stage_counts_groups(make_run):
    """Through prepare, extract and the SAE: every table on cell types says what it counts, genes and neurons too."""
    obs = pd.DataFrame({"donor": np.repeat([f"d{n}" for n in range(10)], 24)}, index=[f"cell{i}" for i in range(240)])
    run = make_run(n_cells=240, obs=obs, data__group_key="donor", data__heldout_fraction=0.5)
    run_task(run, 0)
    tests, baselines = (
        table.read(run.layer_results(1) / table.file)
        for table in (artifacts.FEATURE_CELL_TYPES, artifacts.CELL_TYPE_BASELINES)
    )
    cells = artifacts.CELLS.read(run.cells_file)
    donors = cells.loc[cells["heldout"], "group"].unique()
    assert len(donors) == 5
    assert set(tests["n_groups"]) <= {3, 4, 5}
    assert set(baselines["kind"]) == {"feature", "gene", "neuron", "pca", "ica", "untrained"}
    for table in (tests, baselines):
        assert set(table["unit_of_inference"]) == {"groups"}
        assert table["n_groups"].notna().all()
    for table in (artifacts.FEATURES, artifacts.FEATURE_CELL_TYPES, artifacts.CELL_TYPE_BASELINES):
        said = table.inference_of(run.layer_results(1) / table.file)
        assert said.unit == "one held-out group of cells (donor)"
        assert said.n.endswith(f"groups per type (n_groups), {cells['heldout'].sum()} cells")
        assert "t-test over groups" in said.null
    genes = baselines[baselines["kind"] == "gene"]
    assert (genes["auroc"] > 0.9).all()  # planted
    assert (genes["auroc_low"] > 0.5).all()
