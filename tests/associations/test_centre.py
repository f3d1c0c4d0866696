"""An SAE that reads activations minus their genes' means: the tables are of its features, and neurons are compared on the same rows."""

from __future__ import annotations

from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import sae_lens
import torch

from sae_genomics import artifacts
from sae_genomics.activations.format.store import open_activations
from sae_genomics.activations.format.token_store import read_tokens
from sae_genomics.activations.reading.rows import chosen_rows
from sae_genomics.associations.task import run_task
from sae_genomics.sae.export import save_sae
from sae_genomics.sae.measure_means import measure_means
from tests.associations.conftest import random_encoder

LAYER = 1


def centred_run(make_run):
    run = make_run()
    means = measure_means(chosen_rows(run, LAYER, "train"))
    encoder = replace(random_encoder(64, 6, 5), means=means)
    save_sae(run.sae_dir(LAYER), encoder, {"model_name": "toy", "hook_name": "blocks.1.hook_resid_post"})
    return run, means


def gene_rows(run, means):
    """Gene id and centred activation of every gene token, and whether its cell is held out."""
    cells = artifacts.CELLS.read(run.cells_file)
    parts = []
    for shard in range(run.n_shards):
        tokens = read_tokens(run.tokens_file(shard))
        with open_activations(run.activations_file(LAYER, shard)) as file:
            x = file.rows(0, file.n_rows)
        cell = run.shard_items(shard)[0] + tokens.item_in_shard
        genes = ~tokens.special
        parts.append(
            (tokens.token[genes], means.centred(x, tokens.token)[genes], cells["heldout"].to_numpy()[cell[genes]])
        )
    return (np.concatenate(part) for part in zip(*parts, strict=True))


def test_features_are_those_that_saelens_finds_in_the_centred_rows(make_run):
    run, means = centred_run(make_run)
    run_task(run, 0)
    token, rows, _ = gene_rows(run, means)
    sae = sae_lens.SAE.load_from_disk(str(run.sae_dir(LAYER)))
    with torch.no_grad():
        active = sae.encode(torch.from_numpy(rows)).numpy() > 0
    features = artifacts.FEATURES.read(run.layer_results(LAYER) / "features.parquet")
    np.testing.assert_array_equal(features["n_tokens"], active.sum(axis=0))
    table = artifacts.FEATURE_GENES.read(run.layer_results(LAYER) / "feature_genes.parquet")
    ids = dict(zip(run.kind.read_units(run).token.tolist(), run.kind.read_units(run).unit_id, strict=True))
    for feature in range(5, 64, 13):
        wanted = pd.Series([ids[t] for t in token[active[:, feature]]]).value_counts()
        mine = table[table["feature"] == feature].set_index("gene_id")["n_tokens"]
        pd.testing.assert_series_equal(mine, wanted[mine.index], check_names=False)
    with_means = anndata.read_h5ad(run.layer_results(LAYER) / "features.h5ad").uns["sae_genomics"]
    assert with_means["centre"] == "unit"
    assert with_means["unit_means"] == means_hash(run)


def means_hash(run):
    from sae_genomics.sae.load import load_encoder

    return load_encoder(run.sae_dir(LAYER)).means.content


def test_neurons_are_of_the_centred_rows_too(make_run):
    run, means = centred_run(make_run)
    run_task(run, 0)
    token, rows, heldout = gene_rows(run, means)
    training = rows[~heldout].astype(np.float64)
    standard = np.maximum((rows - training.mean(axis=0)) / training.std(axis=0), 0)
    ids = dict(zip(run.kind.read_units(run).token.tolist(), run.kind.read_units(run).unit_id, strict=True))
    table = artifacts.NEURON_GENES.read(run.layer_results(LAYER) / "neuron_genes.parquet")
    for neuron in (0, 17, 40):
        mine = table[table["feature"] == 2 * neuron].set_index("gene_id")  # the unit of its positive sign
        wanted = pd.Series(standard[:, neuron]).groupby([ids[t] for t in token]).mean()
        np.testing.assert_allclose(mine["mean_activation"], wanted[mine.index], rtol=1e-3, atol=1e-4)
