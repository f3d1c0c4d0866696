"""Planted programmes among 2 000 decoys: is a feature named after its own one, and how many planted terms are found?

Tokens are simulated, summed and ranked by the code of the stage `associate`, then tested by the stage `validate`, by each test.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sae_genomics.artifacts import ANNOTATION_NULLS, FEATURE_GENES, FEATURE_TERMS, GENE_TOKENS, RANKINGS
from sae_genomics.associations.gene_ranking import rank_genes
from sae_genomics.associations.gene_sums import GeneSums
from sae_genomics.associations.gene_tokens import GeneTokens
from sae_genomics.associations.gene_values import gene_values
from sae_genomics.associations.triples import TokenBlock, Triples
from sae_genomics.config import parse_config
from sae_genomics.data.units import Units
from sae_genomics.run import Run
from sae_genomics.validation.task import run_task

N_CELLS, N_GENES, N_FEATURES, N_PLANTED, N_DECOYS = 200, 1500, 60, 20, 2000
SET_SIZE = 40
GAIN = {"strong": (0.9, 3.0), "weak": (0.6, 2.0)}  # share of a set that its feature answers to, and how much
LEAST, FDR = 10, 0.05


def programmes(rng: np.random.Generator) -> np.ndarray:
    """Members of the planted sets, which share genes: bool [genes, planted]."""
    members = np.zeros((N_GENES, N_PLANTED), bool)
    for number in range(N_PLANTED):
        members[rng.choice(N_GENES, SET_SIZE, replace=False), number] = True
    return members


def simulated(rng: np.random.Generator, members: np.ndarray, strength: str) -> tuple[TokenBlock, Triples]:
    """Tokens of cells, and features that see a token's count and like some genes for no reason.

    Feature f also answers to most genes of set f, in the cells where that programme is on.
    """
    level = np.exp(rng.normal(0.5, 1.0, N_GENES))
    counts = rng.poisson(rng.gamma(2.0, level / 2.0, (N_CELLS, N_GENES)))
    cell, gene = np.nonzero(counts)
    expression = counts[cell, gene].astype(np.float32)
    block = TokenBlock(
        gene.astype(np.int32), expression, np.searchsorted(cell, np.arange(N_CELLS + 1)), np.zeros(N_CELLS, bool)
    )
    activation = 0.5 * np.log1p(expression)[:, None] - rng.uniform(1.5, 2.5, N_FEATURES)
    activation = activation + rng.normal(0, 0.7, (len(gene), N_FEATURES))
    activation += rng.normal(0, 0.5, (N_GENES, N_FEATURES))[gene]
    share, gain = GAIN[strength]
    answers = members & (rng.random(members.shape) < share)
    on = rng.random((N_CELLS, N_PLANTED)) < 0.4
    activation[:, :N_PLANTED] += gain * (answers[gene] & on[cell])
    token, feature = np.nonzero(activation > 0)
    return block, Triples.ordered(token, feature, activation[token, feature])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[pd.DataFrame, pd.DataFrame]]:
    """Strength and test -> feature_terms.parquet and annotation_nulls.parquet of the same simulated layer."""
    return {
        (strength, test): tables
        for strength in GAIN
        for test, tables in tables_of(tmp_path_factory.mktemp("power"), strength).items()
    }


def tables_of(folder: Path, strength: str) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """The tables of both tests."""
    rng = np.random.default_rng(11)
    members = programmes(rng)
    block, triples = simulated(rng, members, strength)
    decoys = [rng.choice(N_GENES, SET_SIZE, replace=False) for _ in range(N_DECOYS)]
    sets = {f"planted {i}": np.flatnonzero(members[:, i]) for i in range(N_PLANTED)}
    sets |= {f"decoy {i}": genes for i, genes in enumerate(decoys)}
    lines = ("\t".join([name, "x", *(f"SYM{gene}" for gene in genes)]) for name, genes in sets.items())
    (folder / "sets.gmt").write_text("\n".join(lines) + "\n")
    names = np.array([f"SYM{gene}" for gene in range(N_GENES)], object)
    sums, tokens = GeneSums(N_FEATURES, N_GENES), GeneTokens(N_GENES)
    sums.add(block, triples)
    tokens.add(block)
    found = {}
    for test in ("fisher", "savage"):
        values = {
            "run": {"name": test},
            "paths": {name: str(folder / name) for name in ("checkpoints", "results", "logs", "databases")},
            "data": {"path": "unused.h5ad"},
            "associations": {"min_gene_tokens": LEAST},
            "validation": {
                "builtin": False, "gmt": [str(folder / "sets.gmt")], "shuffles": 3, "baselines": [], "test": test, "fdr": FDR,
            },
        }  # fmt: skip
        run = Run(parse_config(values, "test"))
        run.__dict__.update(layers=[0], model_info=SimpleNamespace(name="toy", identity="m", n_layers=1))
        results = run.layer_results(0)
        table = rank_genes(sums.by_feature(), sums.tokens, names, names, 100, LEAST).table
        FEATURE_GENES.write(results / FEATURE_GENES.file, table)
        units = Units(np.arange(N_GENES, dtype=np.int32), names, names, np.ones(N_GENES))
        GENE_TOKENS.write(results / GENE_TOKENS.file, tokens.table(units, None))
        blocks = gene_values(sums.by_feature(), sums.tokens, "specificity", LEAST)
        RANKINGS["features"].write_blocks(results / RANKINGS["features"].file, blocks)
        run_task(run, 0)
        found[test] = tuple(table.read(results / table.file) for table in (FEATURE_TERMS, ANNOTATION_NULLS))
    return found


def auroc(terms: pd.DataFrame, feature: int) -> float:
    """Share of decoys that the feature's own set is before, by p; equal p and tests without a row count half."""
    mine = terms[terms["feature"] == feature].set_index("term")["p_value"]
    own = mine.get(f"planted {feature}", 1.0)
    decoys = mine[mine.index.str.startswith("decoy")].to_numpy()
    before = (decoys > own).sum() + (decoys == own).sum() / 2
    without_row = N_DECOYS - len(decoys)
    return float((before + without_row * (1.0 if own < 1 else 0.5)) / N_DECOYS)


@pytest.mark.parametrize("strength", GAIN)
@pytest.mark.parametrize("test", ["fisher", "savage"])
def test_a_feature_is_named_after_its_own_programme(results, strength, test):
    terms, _ = results[strength, test]
    aurocs = [auroc(terms, feature) for feature in range(N_PLANTED)]
    assert min(aurocs) >= 0.99
    first = terms.sort_values(["feature", "p_value"], kind="stable").groupby("feature").first()["term"]
    assert first.loc[: N_PLANTED - 1].tolist() == [f"planted {feature}" for feature in range(N_PLANTED)]


# Of weak programmes a list of 30 genes holds too few: Fisher's test leaves one of them, the whole ranking has all.
@pytest.mark.parametrize(
    ("strength", "test", "n_found"),
    [("strong", "fisher", 20), ("strong", "savage", 20), ("weak", "fisher", 19), ("weak", "savage", 20)],
)
def test_planted_terms_are_found_and_hardly_a_decoy(results, strength, test, n_found):
    terms, nulls = results[strength, test]
    found = terms[terms["q_matched"] < FDR]
    planted = found[found["term"] == "planted " + found["feature"].astype(str)]
    assert planted["term"].nunique() == n_found
    assert len(found) - len(planted) <= 2 * FDR * len(found)
    own = nulls[(nulls["source"] == "features") & (nulls["collection"] == "all")].iloc[0]
    assert own["n_terms"] == found["term"].nunique()
    assert own["n_annotated"] == found["feature"].nunique()
    shuffled = nulls[(nulls["source"] != "features") & (nulls["collection"] == "all")]
    assert len(shuffled) == 6
    assert (shuffled["n_annotated"] == 0).all()
