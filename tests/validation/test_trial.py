"""Terms counted for a trial SAE, against a plain computation over the training cells' tokens."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sae_genomics.activations import read_activations
from sae_genomics.activations.format.token_store import read_tokens
from sae_genomics.associations.gene_ranking import PRIOR_TOKENS
from sae_genomics.config import parse_config
from sae_genomics.execute import execute
from sae_genomics.run import Run
from sae_genomics.sae.load import load_encoder
from sae_genomics.stages import stage_named
from sae_genomics.validation.settings import check_settings
from sae_genomics.validation.trial import count_terms
from tests.pipeline.conftest import small_values

FDR, MIN_TOKENS, TOP = 0.6, 5, 30


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trial")
    values = small_values(folder, validation={"fdr": FDR}, data={"heldout_fraction": 0.5}, model={"layers": [2]})
    run = Run(parse_config(values, "test"))
    for name in ("prepare", "extract", "train"):
        for task in range(run.n_tasks(stage_named(name))):
            execute(run, stage_named(name), task)
    return run


def plain(run: Run, cells: np.ndarray) -> tuple[int, int, int]:
    """Units, annotated units and terms over some cells, from the definitions in the docs."""
    known, encoder = run.kind.read_units(run), load_encoder(run.sae_dir(2), "cpu")
    gene_of = dict(zip(known.token.tolist(), known.unit_name, strict=True))
    parts = []
    for shard in range(run.n_shards):
        tokens = read_tokens(run.tokens_file(shard))
        start, stop = run.shard_items(shard)
        kept = np.repeat(cells[start:stop], np.diff(tokens.item_ptr)) & ~tokens.special
        x = read_activations(run.activations_file(2, shard), slice(0, len(kept)))[kept]
        token, feature, activation = encoder.encode_sparse(x)
        dense = np.zeros((len(x), encoder.d_sae))
        dense[token, feature] = activation
        parts.append(pd.DataFrame(dense, index=[gene_of[gene] for gene in tokens.token[kept].tolist()]))
    table = pd.concat(parts)
    sums, n_tokens, active = table.groupby(level=0).sum(), table.groupby(level=0).size(), (table > 0).sum()
    total = table.to_numpy().sum(axis=0)
    prior = PRIOR_TOKENS * total / np.maximum(active.to_numpy(), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (n_tokens / n_tokens.sum()).to_numpy()[:, None]
        bits = pd.DataFrame(np.log2((sums.to_numpy() + prior) / (total * share + prior)), index=sums.index)
    listable = n_tokens.index[n_tokens >= MIN_TOKENS]
    sets = [set(each.genes) & set(listable) for group in check_settings(run.config) for each in group.sets]
    sets = [each for each in sets if run.config.validation.min_set_size <= len(each) <= 2000]
    p = {}
    units = 0
    for feature in table:
        possible = bits.loc[listable, feature][sums.loc[listable, feature] > 0]
        best = set(possible.sort_values(ascending=False).index[:TOP])
        units += bool(best)
        if best:
            for term, genes in enumerate(sets):
                p[feature, term] = stats.hypergeom.sf(len(best & genes) - 1, len(listable), len(genes), len(best))
    q = stats.false_discovery_control(list(p.values()))
    found = [pair for pair, value in zip(p, q, strict=True) if value < FDR]
    return units, len({feature for feature, _ in found}), len({term for _, term in found})


def test_terms_are_counted_on_training_cells_alone(run):
    heldout = run.kind.read_items(run)["heldout"].to_numpy(bool)
    counted = count_terms(run, 2, run.sae_dir(2))
    expected = plain(run, ~heldout)
    assert (counted["n_units"], counted["n_annotated"], counted["n_terms"]) == expected
    assert expected[2] > 0
    assert expected != plain(run, np.ones_like(heldout)), "the test must be able to tell the two apart"
    assert counted["weights"] == load_encoder(run.sae_dir(2), "cpu").weights


def test_without_a_set_that_fits_nothing_is_counted(run, tmp_path):
    (tmp_path / "other.gmt").write_text("set\tnone\tATG1\tATG2\tATG3\n")
    values = run.config.model_dump(mode="json")
    values["validation"].update(builtin=False, gmt=[str(tmp_path / "other.gmt")])
    counted = count_terms(Run(parse_config(values, "test")), 2, run.sae_dir(2))
    assert counted["n_terms"] is None


def test_a_test_of_whole_rankings_counts_too(run):
    values = run.config.model_dump(mode="json")
    values["validation"]["test"] = "savage"
    counted = count_terms(Run(parse_config(values, "test")), 2, run.sae_dir(2))
    heldout = run.kind.read_items(run)["heldout"].to_numpy(bool)
    assert counted["n_units"] == plain(run, ~heldout)[0]
    assert 0 <= counted["n_annotated"] <= counted["n_units"]
    assert isinstance(counted["n_terms"], int)
