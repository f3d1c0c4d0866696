"""The background is what a list can hold: p of random lists is uniform on a small real run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sae_genomics.activations.format.token_store import read_tokens
from sae_genomics.artifacts import FEATURE_GENES, FEATURE_TERMS, GENES
from sae_genomics.associations.task import run_task as associate
from sae_genomics.run import Run
from sae_genomics.validation.background import DECILES, LEAST_IN_BIN, listable, matched_bins
from sae_genomics.validation.task import run_task as validate

# The fixtures of the stage associate: made-up cells through the real stages prepare and extract.
from tests.associations.conftest import _one_thread, make_run  # noqa: F401

N_LISTS, N_SETS = 3000, 6


def tokens_of_genes(run: Run) -> pd.Series:
    """gene_symbol -> stored gene tokens, counted from the token files alone."""
    genes = GENES.read(run.genes_file)
    symbol = genes[genes["token"] >= 0].set_index("token")["gene_symbol"]
    found = [read_tokens(run.tokens_file(shard)) for shard in range(run.n_shards)]
    counted = pd.Series(np.concatenate([each.token[~each.special] for each in found])).map(symbol)
    return counted.value_counts().reindex(symbol.unique(), fill_value=0)


def random_lists(symbols: np.ndarray, n_lists: int, size: int, rng: np.random.Generator) -> pd.DataFrame:
    chosen = rng.random((n_lists, len(symbols))).argsort(axis=1)[:, :size].ravel()
    rank = np.tile(np.arange(1, size + 1), n_lists)
    return pd.DataFrame(
        {
            "feature": np.repeat(np.arange(n_lists), size), "gene_id": symbols[chosen], "gene_symbol": symbols[chosen], "score": 1.0,
            "mean_activation": 1.0, "firing_rate": 0.5, "n_tokens": 20, "specificity": 1.0, "rank_score": rank, "rank_specificity": rank,
        }
    )  # fmt: skip


def randomised_p(terms: pd.DataFrame, n_top: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One p per list, exactly uniform where the stage's own N, K and n are true.

    p = P(X > k) + U P(X = k), U uniform: a hypergeometric p alone takes few values, so it cannot be uniform. List i is looked at
    with set i mod N_SETS; where they share no gene the stage wrote no row, and k = 0.
    n_top: int64 [lists], listed genes that the source could have named, counted by the caller.
    """
    names = sorted(terms["term"].unique())
    assert (terms["n_top"] == n_top[terms["feature"]]).all()
    wanted = pd.MultiIndex.from_arrays([np.arange(N_LISTS), [names[i % N_SETS] for i in range(N_LISTS)]])
    rows = terms.set_index(["feature", "term"])["n_overlap"].reindex(wanted, fill_value=0).to_numpy()
    size = terms.drop_duplicates("term").set_index("term")["n_term"].loc[wanted.get_level_values(1)].to_numpy()
    big_n = terms["n_background"].iloc[0]
    stated = terms.set_index(["feature", "term"])["p_value"].reindex(wanted, fill_value=1.0).to_numpy()
    exactly_k = stats.hypergeom.pmf(rows, big_n, size, n_top)
    return stated - exactly_k + rng.random(N_LISTS) * exactly_k


@pytest.mark.parametrize("rank_by", ["specificity", "score"])
@pytest.mark.parametrize(("tokens_per_cell", "background"), [(None, "listable"), (6, "listable"), (6, "source")])
def test_random_lists_of_what_can_be_listed_give_uniform_p(
    make_run,  # noqa: F811
    tmp_path,
    rank_by,
    tokens_per_cell,
    background,
):
    rng = np.random.default_rng(1)
    gmt = tmp_path / "random.gmt"
    more = {} if tokens_per_cell is None else {"activations__tokens_per_cell": tokens_per_cell}
    # by specificity a third of the genes, or more, have too few tokens; by score some have none when few are stored
    n_cells, least = (40, 14) if tokens_per_cell is None else (36, 3)
    run = make_run(
        n_cells, validation__builtin=False, validation__gmt=[str(gmt)], validation__rank_by=rank_by, validation__shuffles=1,
        validation__top_genes=12, validation__background=background, associations__min_gene_tokens=least, **more,
    )  # fmt: skip
    associate(run, 0)
    tokens = tokens_of_genes(run)
    can_be_listed = tokens.index[tokens >= (least if rank_by == "specificity" else 1)].to_numpy(object)
    if rank_by == "specificity" or tokens_per_cell is not None:
        assert 30 < len(can_be_listed) < 0.85 * len(tokens)
    # like published sets, these hold mostly genes that are seen often
    pool = tokens if background == "listable" else tokens.sample(frac=0.7, random_state=0)
    sets = [pool.sample(30, weights=pool**4 + 1, random_state=i).index for i in range(N_SETS)]
    gmt.write_text("".join(f"s{i}\tx\t" + "\t".join(each) + "\n" for i, each in enumerate(sets)))
    folder = run.layer_results(1)
    lists = random_lists(can_be_listed, N_LISTS, 12, rng)
    FEATURE_GENES.write(folder / FEATURE_GENES.file, lists)
    validate(run, 0)
    terms = FEATURE_TERMS.read(folder / FEATURE_TERMS.file)
    named = set(can_be_listed) & set().union(*sets) if background == "source" else set(can_be_listed)
    assert (len(named) < len(can_be_listed)) == (background == "source")
    assert (terms["n_background"] == len(named)).all()
    n_top = lists["gene_symbol"].isin(named).groupby(lists["feature"]).sum().to_numpy()
    assert stats.kstest(randomised_p(terms, n_top, rng), "uniform").pvalue > 0.01


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3000))
def test_bins_hold_neighbours_and_enough_genes(seed, n_genes):
    rng = np.random.default_rng(seed)
    tokens, expression = rng.integers(10, 400, n_genes), rng.lognormal(0, 1, n_genes)
    bins = matched_bins(tokens, expression)
    sizes = np.bincount(bins)
    assert sizes.min() >= min(n_genes, LEAST_IN_BIN)
    assert len(sizes) <= DECILES**2
    # a decile's bins are numbered one after the other, so tokens never fall and expression rises within a decile
    order = np.argsort(bins, kind="stable")
    frame = pd.DataFrame({"bin": bins, "tokens": tokens, "expression": expression}).iloc[order]
    low, high = frame.groupby("bin").min(), frame.groupby("bin").max()
    new_decile = low["expression"].to_numpy()[1:] < high["expression"].to_numpy()[:-1]
    decile = np.concatenate([[0], np.cumsum(new_decile)])
    tokens_of = frame.assign(decile=decile[frame["bin"].to_numpy()]).groupby("decile")["tokens"].agg(["min", "max"])
    assert (tokens_of["min"].to_numpy()[1:] >= tokens_of["max"].to_numpy()[:-1]).all()
    if n_genes >= 2 * DECILES * LEAST_IN_BIN:
        assert len(sizes) >= 2 * DECILES


def test_an_untrained_model_has_a_background_of_its_own():
    genes = pd.DataFrame(
        {"gene_symbol": ["A", "B", "C"], "n_tokens_stored": [50, 50, 5], "mean_expression": [1.0, 2.0, 3.0]}
    )
    assert listable(genes, "untrained", "specificity", 10)["gene_symbol"].tolist() == ["A", "B"]
    genes["n_tokens_untrained"] = [0, 12, 11]
    assert listable(genes, "untrained", "specificity", 10)["gene_symbol"].tolist() == ["B", "C"]
    assert listable(genes, "pca", "specificity", 10)["gene_symbol"].tolist() == ["A", "B"]
    assert listable(genes.assign(n_tokens_untrained=None), "untrained", "score", 10).empty
