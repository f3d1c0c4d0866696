"""Features that merely track expression: Fisher's test alone calls them annotated, the test among genes of their expression does not.

Tokens are simulated, summed and ranked by the code of the stage `associate`, then tested by the stage `validate`.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sae_genomics.artifacts import ANNOTATION_NULLS, FEATURE_GENES, FEATURE_TERMS, GENE_TOKENS, NEURON_GENES
from sae_genomics.associations.gene_ranking import rank_genes
from sae_genomics.associations.gene_sums import GeneSums
from sae_genomics.associations.gene_tokens import GeneTokens
from sae_genomics.associations.triples import TokenBlock, Triples
from sae_genomics.config import parse_config
from sae_genomics.data.units import Units
from sae_genomics.run import Run
from sae_genomics.validation.task import run_task

N_CELLS, N_GENES, N_FEATURES = 150, 1000, 60
TASTE = 1.0
FDR = 0.05


def simulated(rng: np.random.Generator, planted: float) -> tuple[TokenBlock, Triples, np.ndarray]:
    """Tokens of cells whose genes differ in expression alone, and features that see a token's count alone.

    planted: what a feature adds for the genes of its own set (gene g is in set g mod 20), whatever their expression.
    Returns the block, its triples and each gene's level, the mean count.
    """
    level = np.exp(rng.normal(0.5, 1.2, N_GENES))
    counts = rng.poisson(rng.gamma(2.0, level / 2.0, (N_CELLS, N_GENES)))
    cell, slot = np.nonzero(counts)
    expression = counts[cell, slot].astype(np.float32)
    block = TokenBlock(
        slot.astype(np.int32), expression, np.searchsorted(cell, np.arange(N_CELLS + 1)), np.zeros(N_CELLS, bool)
    )
    threshold = rng.uniform(0.0, 3.0, N_FEATURES)
    activation = np.log1p(expression)[:, None] - threshold + rng.normal(0, 0.5, (len(slot), N_FEATURES))
    activation += rng.normal(0, TASTE, (N_GENES, N_FEATURES))[
        slot
    ]  # each feature has genes that it likes for no reason
    activation += planted * ((slot % 20)[:, None] == np.arange(N_FEATURES) % 20)
    token, feature = np.nonzero(activation > 0)
    return block, Triples.ordered(token, feature, activation[token, feature]), level


@pytest.fixture
def validated(tmp_path):
    """validated(planted, seed) -> the features' rows of annotation_nulls.parquet, and feature_terms.parquet, of a run of such features."""

    def make(planted: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        rng = np.random.default_rng(seed)
        block, triples, level = simulated(rng, planted)
        # half of the sets follow expression, as those of ribosome and respiration do; half are drawn whatever the expression
        by_level = np.argsort(level)
        sets = [by_level[start : start + 100][rng.random(100) < 0.35] for start in range(500, 950, 50)]
        sets += [np.flatnonzero(np.arange(N_GENES) % 20 == number) for number in range(20)]
        gmt = tmp_path / "sets.gmt"
        gmt.write_text(
            "".join(f"set {i}\tx\t" + "\t".join(f"SYM{g}" for g in each) + "\n" for i, each in enumerate(sets))
        )
        values = {
            "run": {"name": "r"},
            "paths": {name: str(tmp_path / name) for name in ("checkpoints", "results", "logs")},
            "data": {"path": "unused.h5ad"},
            "associations": {"min_gene_tokens": 10},
            "validation": {"builtin": False, "gmt": [str(gmt)], "shuffles": 20, "baselines": ["neurons"]},
        }
        run = Run(parse_config(values, "test"))
        run.__dict__.update(layers=[0], model_info=SimpleNamespace(name="toy", identity="m", n_layers=1))
        names = np.array([f"SYM{g}" for g in range(N_GENES)], object)
        units = Units(np.arange(N_GENES, dtype=np.int32), names, names, np.ones(N_GENES))
        sums, tokens = GeneSums(N_FEATURES, N_GENES), GeneTokens(N_GENES)
        sums.add(block, triples)
        tokens.add(block)
        ranked = rank_genes(sums.by_feature(), sums.tokens, names, names, 50, 10)
        folder = run.layer_results(0)
        FEATURE_GENES.write(folder / FEATURE_GENES.file, ranked.table)
        NEURON_GENES.write(folder / NEURON_GENES.file, ranked.table.head(0))
        GENE_TOKENS.write(folder / GENE_TOKENS.file, tokens.table(units, None))
        run_task(run, 0)
        nulls = ANNOTATION_NULLS.read(folder / ANNOTATION_NULLS.file)
        return nulls.query("units == 'features' and collection == 'all'"), FEATURE_TERMS.read(
            folder / FEATURE_TERMS.file
        )

    return make


def of(nulls: pd.DataFrame, source: str, column: str = "n_annotated") -> np.ndarray:
    return nulls.loc[nulls["source"] == source, column].to_numpy()


SEEDS = [7, 8, 9]


@pytest.mark.parametrize("seed", SEEDS)
def test_features_that_track_expression_are_not_annotated(validated, seed):
    nulls, terms = validated(planted=0.0, seed=seed)
    by_fisher_alone = terms.loc[terms["q_value"] < FDR, "feature"].nunique()
    assert by_fisher_alone > N_FEATURES / 4
    assert of(nulls, "features")[0] <= FDR * N_FEATURES
    assert terms.loc[terms["q_matched"] < FDR, "feature"].nunique() == of(nulls, "features")[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_matched_shuffles_annotate_at_most_one_feature_in_twenty(validated, seed):
    nulls, _ = validated(planted=0.0, seed=seed)
    for null in ("matched_genes", "shuffled_genes"):
        share = of(nulls, null, "share")
        assert len(share) == 20
        assert share.mean() <= FDR
        assert (
            share > 0
        ).mean() <= 0.2  # a rejection anywhere, under the null, in at most 5 % of the draws but for chance


def test_features_that_read_a_set_are_annotated(validated):
    nulls, _ = validated(planted=3.0, seed=7)
    observed, plain, matched = of(nulls, "features")[0], of(nulls, "shuffled_genes"), of(nulls, "matched_genes")
    assert observed > N_FEATURES / 4
    assert plain.max() < 0.1 * observed
    assert matched.mean() <= FDR * N_FEATURES
    assert matched.max() < 0.5 * observed
