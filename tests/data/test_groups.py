"""Donors, samples or batches: kept whole by the split, refused where they cannot be, written beside every cell."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_genomics.artifacts import CELLS
from sae_genomics.data.prepare import run_task
from sae_genomics.data.split import split_groups, split_items
from sae_genomics.errors import UserError
from tests.data.conftest import files_under, random_counts, write_cells

N_CELLS = 60
DONORS = np.repeat(["d1", "d2", "d3", "d4", "d5", "d6"], 10)
TYPES = np.tile(["T", "B", "NK", "T", "B"], 12)


@given(
    sizes=st.lists(st.integers(1, 12), min_size=2, max_size=9),
    fraction=st.floats(0.05, 0.95),
    seed=st.integers(0, 999),
)
def test_groups_stay_whole(sizes, fraction, seed):
    donors = np.repeat(np.arange(len(sizes)), sizes)
    types = np.random.default_rng(seed).choice(list("abc"), len(donors))
    heldout = split_items(len(donors), types, fraction, seed, donors)
    assert 0 < heldout.sum() < len(donors)
    assert pd.Series(heldout).groupby(donors).nunique().max() == 1
    np.testing.assert_array_equal(heldout, split_items(len(donors), types, fraction, seed, donors))
    renamed = pd.Categorical([f"donor {number}" for number in donors])
    np.testing.assert_array_equal(heldout, split_items(len(donors), types, fraction, seed, renamed))


def test_the_fraction_and_the_types_are_met_as_near_as_groups_allow():
    """Of 40 donors, half of them without B cells, a random fifth would often miss the types' shares; this one does not."""
    rng = np.random.default_rng(0)
    cells = rng.poisson(30, (40, 4))
    cells[::2, 1] = 0
    for seed in range(5):
        heldout = split_groups(cells, 0.2, np.random.default_rng(seed))
        shares = cells[heldout].sum(axis=0) / cells.sum(axis=0)
        assert abs(cells[heldout].sum() / cells.sum() - 0.2) < 0.01
        assert np.abs(shares - 0.2).max() < 0.02


def test_the_best_choice_of_few_groups_is_found():
    """Eight donors: every possible choice is tried here, and none is nearer than the one that was made."""
    cells = np.random.default_rng(1).poisson(20, (8, 3)) + 1
    found = split_groups(cells, 0.3, np.random.default_rng(0))

    def cost(chosen):
        shares = cells[chosen].sum(axis=0) / cells.sum(axis=0) - 0.3
        return (cells[chosen].sum() / cells.sum() - 0.3) ** 2 + np.mean(shares**2)

    every = [np.array([number >> place & 1 for place in range(8)], bool) for number in range(1, 255)]
    assert cost(found) == pytest.approx(min(map(cost, every)))


def test_the_seed_decides_among_equal_groups():
    donors = np.repeat(np.arange(10), 7)
    splits = {tuple(split_items(70, None, 0.2, seed, donors)) for seed in range(8)}
    assert len(splits) > 3
    assert {sum(each) for each in splits} == {14}


def test_labels_that_follow_from_the_group_leave_the_fraction_alone():
    """Proteins annotated with their family and held out by family: no family can give a quarter of itself."""
    families = np.repeat([f"f{number}" for number in range(40)], np.random.default_rng(0).integers(18, 31, 40))
    heldout = split_items(len(families), families, 0.25, 0, families)
    assert heldout.mean() == pytest.approx(0.25, abs=0.01)
    np.testing.assert_array_equal(heldout, split_items(len(families), None, 0.25, 0, families))


def test_many_groups_take_no_time():
    donors = np.random.default_rng(0).integers(0, 5000, 100_000)
    types = np.random.default_rng(1).choice([f"t{n}" for n in range(30)], 100_000)
    heldout = split_items(100_000, types, 0.2, 0, donors)
    assert abs(heldout.mean() - 0.2) < 0.005
    assert pd.Series(heldout).groupby(donors).nunique().max() == 1


def prepared(tmp_path, make_run, donors, **data):
    obs = {"cell_type": TYPES, "donor_id": donors}
    path = write_cells(tmp_path / "a.h5ad", random_counts(N_CELLS), obs=obs)
    return make_run(path, data={"group_key": "donor_id", **data})


def test_prepare_keeps_donors_whole_and_writes_them(tmp_path, make_run):
    run = prepared(tmp_path, make_run, DONORS, heldout_fraction=0.5)
    run_task(run, 0)
    cells = CELLS.read(run.cells_file)
    assert list(cells["group"]) == list(DONORS)
    assert cells.groupby("group")["heldout"].nunique().max() == 1
    plan = json.loads(run.plan_file.read_text())
    assert (plan["group_key"], plan["n_groups"], plan["n_heldout_groups"]) == ("donor_id", 6, 3)
    assert not any("group" in note for note in plan["notes"])


def test_without_the_key_there_is_no_group_and_a_likely_column_is_named(tmp_path, make_run):
    run = prepared(tmp_path, make_run, DONORS, group_key=None)
    run_task(run, 0)
    assert CELLS.read(run.cells_file)["group"].isna().all()
    plan = json.loads(run.plan_file.read_text())
    assert "group_key" not in plan
    assert any("obs has donor_id: data.group_key may name one" in note for note in plan["notes"])


def test_too_few_heldout_groups_are_said_at_once(tmp_path, make_run):
    run = prepared(tmp_path, make_run, DONORS, heldout_fraction=0.2)
    run_task(run, 0)
    notes = json.loads(run.plan_file.read_text())["notes"]
    assert any(
        "Held-out groups (donor_id): 1. Tests of cell types need 3: raise data.heldout_fraction" in n for n in notes
    )


def test_a_share_that_groups_do_not_allow_is_said(tmp_path, make_run):
    run = prepared(tmp_path, make_run, np.repeat(["a", "b"], 30), heldout_fraction=0.2)
    run_task(run, 0)
    notes = json.loads(run.plan_file.read_text())["notes"]
    assert any("50% of the cells are held out, not 20%: groups (donor_id) stay whole" in note for note in notes)


@pytest.mark.parametrize(
    ("donors", "data", "words"),
    [
        (DONORS, {"group_key": "donor"}, "data.group_key: .* no obs column 'donor'; did you mean donor_id\\?"),
        (np.where(np.arange(60) < 7, None, DONORS), {}, "7 of 60 cells have no value in obs column 'donor_id' .*cell0"),
        (np.where(np.arange(60) == 5, "nan", DONORS), {}, "1 of 60 cells have no value .*cell5"),
        (np.where(np.arange(60) == 5, " ", DONORS), {}, "1 of 60 cells have no value .*cell5"),
        (np.full(60, "only"), {}, "all cells have the same 'donor_id' .only.*heldout_fraction to 0"),
        ([f"c{n}" for n in range(60)], {}, "every cell has a value of its own"),
        (DONORS, {"group_key": "cell_type"}, "data.group_key and data.cell_type_key are both 'cell_type'"),
    ],
)  # fmt: skip
def test_refused_in_one_line_with_nothing_written(tmp_path, make_run, donors, data, words):
    run = prepared(tmp_path, make_run, donors, **data)
    before = files_under(tmp_path)
    with pytest.raises(UserError, match=words) as refusal:
        run_task(run, 0)
    assert "\n" not in str(refusal.value)
    assert files_under(tmp_path) == before


def test_one_group_is_fine_where_nothing_is_held_out(tmp_path, make_run):
    run = prepared(tmp_path, make_run, np.full(60, "only"), heldout_fraction=0)
    run_task(run, 0)
    assert not CELLS.read(run.cells_file)["heldout"].any()


def test_only_the_cells_used_need_a_group(tmp_path, make_run):
    """data.max_cells leaves out the one cell without a donor; its donor is then nobody's concern."""
    run = prepared(tmp_path, make_run, DONORS, max_cells=30)
    run_task(run, 0)
    left_out = sorted(set(range(60)) - set(CELLS.read(run.cells_file)["cell"]))[0]
    (tmp_path / "a.h5ad").unlink()
    run = prepared(tmp_path, make_run, np.where(np.arange(60) == left_out, None, DONORS), max_cells=30)
    run_task(run, 0)
    assert CELLS.read(run.cells_file)["group"].notna().all()
