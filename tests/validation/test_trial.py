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
from sae_genomics.validation.background import matched_bins
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


def within_bins(k: int, best: set[str], genes: set[str], bin_of: dict[str, int]) -> float:
    """P(k or more shared) when every bin is drawn from by itself: the distributions of the bins, one after the other."""
    n_bins = max(bin_of.values()) + 1
    n, listed, members = (
        np.bincount([bin_of[gene] for gene in some], minlength=n_bins) for some in (bin_of, best, genes)
    )
    total = np.ones(1)
    for number in range(n_bins):
        x = np.arange(min(listed[number], members[number]) + 1)
        total = np.convolve(total, stats.hypergeom.pmf(x, n[number], members[number], listed[number]))
    return float(total[k:].sum())


def plain(run: Run, cells: np.ndarray) -> tuple[int, int, int]:
    """Units, annotated units and terms over some cells, from the definitions in the docs."""
    known, encoder = run.kind.read_units(run), load_encoder(run.sae_dir(2), "cpu")
    gene_of = dict(zip(known.token.tolist(), known.unit_name, strict=True))
    parts, weights = [], []
    for shard in range(run.n_shards):
        tokens = read_tokens(run.tokens_file(shard))
        start, stop = run.shard_items(shard)
        kept = np.repeat(cells[start:stop], np.diff(tokens.item_ptr)) & ~tokens.special
        x = read_activations(run.activations_file(2, shard), slice(0, len(kept)))[kept]
        token, feature, activation = encoder.encode_sparse(x)
        dense = np.zeros((len(x), encoder.d_sae))
        dense[token, feature] = activation
        names = [gene_of[gene] for gene in tokens.token[kept].tolist()]
        parts.append(pd.DataFrame(dense, index=names))
        weights.append(pd.Series(tokens.weight[kept].astype(np.float64), index=names))
    table, weight = pd.concat(parts), pd.concat(weights)
    sums, n_tokens, active = table.groupby(level=0).sum(), table.groupby(level=0).size(), (table > 0).sum()
    total = table.to_numpy().sum(axis=0)
    prior = PRIOR_TOKENS * total / np.maximum(active.to_numpy(), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (n_tokens / n_tokens.sum()).to_numpy()[:, None]
        bits = pd.DataFrame(np.log2((sums.to_numpy() + prior) / (total * share + prior)), index=sums.index)
    listable = n_tokens.index[n_tokens >= MIN_TOKENS]
    sets = [set(each.genes) & set(listable) for group in check_settings(run.config) for each in group.sets]
    sets = [each for each in sets if run.config.validation.min_set_size <= len(each) <= 2000]
    tokens_of, expression = weight.groupby(level=0).agg(["size", "mean"]).loc[listable].to_numpy().T
    order = np.argsort([gene.upper() for gene in listable])
    bins = np.empty(len(listable), int)
    bins[order] = matched_bins(tokens_of[order], expression[order])
    bin_of = dict(zip(listable, bins.tolist(), strict=True))
    p = {}
    units = 0
    for feature in table:
        possible = bits.loc[listable, feature][sums.loc[listable, feature] > 0]
        best = set(possible.sort_values(ascending=False).index[:TOP])
        units += bool(best)
        if best:
            for term, genes in enumerate(sets):
                k = len(best & genes)
                alone = stats.hypergeom.sf(k - 1, len(listable), len(genes), len(best))
                p[feature, term] = max(alone, within_bins(k, best, genes, bin_of)) if alone <= FDR else 1.0
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
