"""Which cells the loss recovered is measured on, and how sure it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sae_genomics.activations.extraction.extract import loaded_model
from sae_genomics.activations.extraction.tokenised import tokenised_items, tokenised_shard
from sae_genomics.artifacts import CELLS
from sae_genomics.run import Run
from sae_genomics.sae.load import load_encoder
from sae_genomics.sae.loss_recovered import FEWEST, LossRecovered, evenly, heldout_tokens, loss_recovered
from tests.associations.conftest import make_run as make_real_run  # noqa: F401

MakeRun = Callable[..., Run]


def test_evenly_spaced_positions() -> None:
    assert evenly(10, 3).tolist() == [1, 5, 8]
    assert evenly(3, 10).tolist() == [0, 1, 2]
    assert evenly(0, 5).tolist() == evenly(5, 0).tolist() == []
    for n in range(1, 40):
        for wanted in range(1, n + 1):
            found = evenly(n, wanted)
            assert len(set(found.tolist())) == wanted
            assert np.abs(found - (np.arange(wanted) + 0.5) * n / wanted).max() <= 1


def test_a_sorted_file_gives_cells_of_every_donor(
    make_real_run: MakeRun,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sixty cells of four donors, one donor after the other, one shard for each: the first held-out cells are of one donor."""
    run = make_real_run(n_cells=60, data__heldout_fraction=0.5)
    assert run.n_shards == 4
    cells = CELLS.read(run.cells_file)
    donor = cells["cell"].to_numpy() // 15
    read: list[tuple[int, int]] = []
    real = tokenised_items

    def noted(run: Run, model: Any, positions: Any) -> Any:
        found = real(run, model, positions)
        read.append((int(positions[0]) // 15, found.tokens.n_items))
        return found

    monkeypatch.setattr("sae_genomics.sae.loss_recovered.tokenised_items", noted)
    model = loaded_model(run)
    found = heldout_tokens(run, model, 8)
    assert found is not None
    tokens, group = found
    assert group is None
    chosen = tokens.item[tokens.item_ptr[:-1]]
    per_donor = np.bincount(donor[chosen], minlength=4)
    assert per_donor.min() >= 1
    assert len(set(chosen.tolist())) == 8
    assert cells["heldout"].to_numpy()[chosen].all()
    assert read == list(enumerate(per_donor.tolist()))  # of each shard its own rows alone
    for number, cell in enumerate(chosen.tolist()):  # the tokens are those that extraction gave the model
        whole = tokenised_shard(run, model, cell // 15).tokens
        mine = whole.take([cell % 15])
        np.testing.assert_array_equal(mine.token, tokens.take([number]).token)
        np.testing.assert_array_equal(mine.per_token["value"], tokens.take([number]).per_token["value"])
    read.clear()
    heldout_tokens(run, model, 2)
    assert len(read) == 2  # and no shard that is not needed


def test_cells_and_interval_come_with_the_number(make_real_run: MakeRun) -> None:  # noqa: F811
    run = make_real_run(n_cells=80, data__heldout_fraction=0.5)
    found = loss_recovered(run, 1, load_encoder(run.sae_dir(1)), 20)
    assert found is not None
    assert found.cells == 20
    assert found.recovered_by_means is None
    interval = found.interval(0)
    if interval is not None:
        assert interval[0] <= found.recovered <= interval[1]
        assert found.interval(0) == interval


def cells_of(n: int, seed: int, noise: float = 1.0) -> LossRecovered:
    """Cells that lose 1 when the layer goes and 0.2 when the SAE stands in, each with its own size and noise."""
    rng = np.random.default_rng(seed)
    size = rng.integers(20, 200, n)
    unchanged = size * (1 + 0.2 * rng.random(n))
    cost = size * (1 + 0.5 * noise * rng.standard_normal(n))
    lost = cost * (0.2 + 0.1 * rng.standard_normal(n))
    return LossRecovered(size, unchanged, unchanged + lost, unchanged + cost)


def test_the_interval_holds_the_truth_in_about_95_of_100(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sae_genomics.sae.loss_recovered.BOOTSTRAPS", 400)
    covered = 0
    for seed in range(200):
        interval = cells_of(64, seed).interval(seed)
        assert interval is not None
        covered += interval[0] <= 0.8 <= interval[1]
    assert 178 <= covered <= 199


def test_more_cells_make_it_narrower_and_few_give_none() -> None:
    few, many = (cells_of(n, 1).interval(0) for n in (20, 500))
    assert few is not None
    assert many is not None
    assert many[1] - many[0] < 0.5 * (few[1] - few[0])
    assert cells_of(FEWEST - 1, 1).interval(0) is None
    lost_in_noise = cells_of(30, 1, noise=60.0)  # the costs of cells differ far more than their mean is above 0
    assert np.isnan(lost_in_noise.recovered)
    assert lost_in_noise.interval(0) is None
    nothing_lost = LossRecovered(*(np.full(30, value) for value in (10, 5.0, 5.0, 5.0)))
    assert nothing_lost.interval(0) is None
    assert np.isnan(nothing_lost.recovered)


def test_whole_groups_are_drawn_where_cells_have_one() -> None:
    """Cells of a group lose alike, so that 300 cells of 15 groups say little more than 15 numbers."""
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(15), 20)
    lost = 0.2 + 0.1 * rng.standard_normal(15)[group]
    ones = np.ones(300)
    cells = LossRecovered(np.full(300, 10), ones, ones + lost, 2 * ones)
    by_group = replace(cells, group=group)
    assert (cells.groups, by_group.groups) == (None, 15)
    by_cells, by_groups = cells.interval(0), by_group.interval(0)
    assert by_cells is not None
    assert by_groups is not None
    assert by_groups[1] - by_groups[0] > 3 * (by_cells[1] - by_cells[0])
    share = 1 - lost.reshape(15, 20).mean(axis=1)
    assert by_groups[1] - by_groups[0] == pytest.approx(2 * 1.96 * share.std() / np.sqrt(15), rel=0.2)
    assert replace(cells, group=group % (FEWEST - 1)).interval(0) is None
