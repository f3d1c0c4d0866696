"""The baseline of an untrained model: same cells, same tokens, same settings, other weights."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_genomics import artifacts
from sae_genomics.activations.extraction.extract import loaded_model
from sae_genomics.activations.extraction.tokenised import tokenised_items
from sae_genomics.activations.format.token_store import read_tokens
from sae_genomics.associations import untrained
from sae_genomics.associations.task import run_task
from sae_genomics.associations.untrained import spread_cells
from sae_genomics.errors import Interrupted, UserError
from sae_genomics.progress import stop_asked
from sae_genomics.sae.train import fit

LAYER = 1


def read(run, table):
    return table.read(run.layer_results(LAYER) / table.file)


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 70))
def test_cells_are_spread_evenly_and_keep_their_split(heldout, n_cells):
    heldout = np.array(heldout)
    places = spread_cells(heldout, n_cells)
    assert len(places) == min(n_cells, len(heldout))
    assert (np.diff(places) > 0).all()
    assert not heldout[places].all() or heldout.all(), "there is a cell to train on"
    if len(places) > 1:
        assert abs(heldout[places].mean() - heldout.mean()) <= 1 / len(places)


def test_cells_come_from_all_of_the_file():
    places = spread_cells(np.arange(10_000) % 5 == 0, 100)
    assert np.diff(places).max() < 300
    assert places[0] < 300
    assert places[-1] > 9_700


def test_the_sample_has_the_tokens_of_its_shards(make_run):
    run = make_run(n_cells=40, activations__tokens_per_cell=7)
    places = np.array([2, 14, 15, 39])
    stored = tokenised_items(run, loaded_model(run), places).stored(run, "", 0)
    for number, place in enumerate(places):
        shard = next(s for s in range(run.n_shards) if run.shard_items(s)[0] <= place < run.shard_items(s)[1])
        tokens = read_tokens(run.tokens_file(shard))
        mine = slice(*stored.item_ptr[number : number + 2])
        first = place - run.shard_items(shard)[0]
        theirs = slice(*tokens.item_ptr[first : first + 2])
        for name in ("item", "token", "weight", "position"):
            np.testing.assert_array_equal(getattr(stored, name)[mine], getattr(tokens, name)[theirs])
        np.testing.assert_array_equal(stored.per_token["value"][mine], tokens.per_token["value"][theirs])


def test_gene_tokens_of_the_sample_and_a_tenth_of_the_steps(make_run, monkeypatch):
    fitted = {}

    def watched(spec, batches, **others):
        fitted.update(spec=spec, n_rows=batches.n_rows)
        return fit(spec, batches, **others)

    monkeypatch.setattr(untrained, "fit", watched)
    run = make_run(n_cells=60, sae__steps=47, sae__batch_tokens=16, validation__untrained_cells=20)
    run_task(run, 0)
    spec, sae = fitted["spec"], run.config.sae
    assert (spec.steps, spec.d_sae, spec.k, spec.architecture) == (4, 64, 6, sae.architecture)
    cells = artifacts.CELLS.read(run.cells_file)
    places = spread_cells(cells["heldout"].to_numpy(), 20)
    chosen = cells.iloc[places]
    assert fitted["n_rows"] == chosen.loc[~chosen["heldout"], "n_genes"].sum(), "training cells alone"
    tokens = read(run, artifacts.GENE_TOKENS)
    assert tokens["n_tokens_untrained"].sum() == chosen["n_genes"].sum()
    assert (tokens["n_tokens_untrained"] <= tokens["n_tokens_stored"]).all()
    genes = read(run, artifacts.UNTRAINED_GENES)
    counted = tokens.set_index("gene_id")["n_tokens_untrained"]
    assert (genes["n_tokens"] <= counted[genes["gene_id"]].to_numpy()).all()
    np.testing.assert_allclose(genes["firing_rate"], genes["n_tokens"] / counted[genes["gene_id"]].to_numpy())
    best = read(run, artifacts.CELL_TYPE_BASELINES).query("kind == 'untrained'").set_index("cell_type")
    heldout = chosen[chosen["heldout"]]["cell_type"].value_counts()
    assert best["n_cells"].to_dict() == heldout.reindex(best.index, fill_value=0).to_dict(), "of the sample"


def test_the_same_seed_gives_the_same_table(make_run):
    tables = []
    for seed in (3, 3, 4):
        run = make_run(run__name=f"r{len(tables)}", run__seed=seed, validation__baselines=["untrained"])
        run_task(run, 0)
        tables.append(read(run, artifacts.UNTRAINED_GENES))
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert not tables[0].equals(tables[2])


def test_the_models_weights_make_no_difference(make_run, monkeypatch):
    """Nothing of the trained model comes in."""
    run = make_run(validation__baselines=["untrained"])
    run_task(run, 0)
    before = read(run, artifacts.UNTRAINED_GENES)
    monkeypatch.setattr("sae_genomics.models.tx1.load_weights", None)
    run_task(run, 0)
    pd.testing.assert_frame_equal(before, read(run, artifacts.UNTRAINED_GENES))


def test_a_failed_training_says_which_and_what_to_type(make_run):
    run = make_run(sae__lr=1e30, sae__steps=300)
    with pytest.raises(UserError, match=r"^baseline untrained: .*--set validation.baselines=neurons,pca,ica$"):
        run_task(run, 0)
    assert list(run.layer_results(LAYER).iterdir()) == []
    assert list((run.checkpoints / "scratch").iterdir()) == []


def test_a_signal_stops_it_and_leaves_nothing(make_run, monkeypatch):
    def then_stopped(*arguments, **others):
        with stop_asked(15):
            return fit(*arguments, **others)

    monkeypatch.setattr(untrained, "fit", then_stopped)
    run = make_run()
    with pytest.raises(Interrupted):
        run_task(run, 0)
    assert list((run.checkpoints / "scratch").iterdir()) == []
