"""Features that merely track expression, tested over their whole ranking: annotated by p alone, not among genes of their expression."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sae_genomics.artifacts import ANNOTATION_NULLS, FEATURE_GENES, FEATURE_TERMS, GENE_TOKENS, RANKINGS
from sae_genomics.associations.gene_sums import GeneSums
from sae_genomics.associations.gene_tokens import GeneTokens
from sae_genomics.associations.gene_values import gene_values
from sae_genomics.config import parse_config
from sae_genomics.data.units import Units
from sae_genomics.run import Run
from sae_genomics.validation.task import run_task
from tests.validation.test_matched_null import N_FEATURES, N_GENES, simulated

FDR = 0.05


@pytest.fixture
def validated(tmp_path):
    """validated(planted, seed) -> annotation_nulls.parquet of all collections, and feature_terms.parquet."""

    def make(planted: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        rng = np.random.default_rng(seed)
        block, triples, level = simulated(rng, planted)
        by_level = np.argsort(level)
        sets = [by_level[start : start + 100][rng.random(100) < 0.35] for start in range(500, 950, 50)]
        sets += [np.flatnonzero(np.arange(N_GENES) % 20 == number) for number in range(20)]
        gmt = tmp_path / "sets.gmt"
        gmt.write_text(
            "".join(f"set {i}\tx\t" + "\t".join(f"SYM{g}" for g in each) + "\n" for i, each in enumerate(sets))
        )
        values = {
            "run": {"name": "r"},
            "paths": {name: str(tmp_path / name) for name in ("checkpoints", "results", "logs", "databases")},
            "data": {"path": "unused.h5ad"},
            "associations": {"min_gene_tokens": 10},
            "validation": {"builtin": False, "gmt": [str(gmt)], "shuffles": 20, "baselines": [], "test": "savage"},
        }
        run = Run(parse_config(values, "test"))
        run.__dict__.update(layers=[0], model_info=SimpleNamespace(name="toy", identity="m", n_layers=1))
        names = np.array([f"SYM{g}" for g in range(N_GENES)], object)
        sums, tokens = GeneSums(N_FEATURES, N_GENES), GeneTokens(N_GENES)
        sums.add(block, triples)
        tokens.add(block)
        folder = run.layer_results(0)
        units = Units(np.arange(N_GENES, dtype=np.int32), names, names, np.ones(N_GENES))
        GENE_TOKENS.write(folder / GENE_TOKENS.file, tokens.table(units, None))
        table = RANKINGS["features"]
        table.write_blocks(folder / table.file, gene_values(sums.by_feature(), sums.tokens, "specificity", 10), "abc")
        FEATURE_GENES.write(folder / FEATURE_GENES.file, FEATURE_GENES.schema.empty_table().to_pandas(), weights="abc")
        run_task(run, 0)
        nulls = ANNOTATION_NULLS.read(folder / ANNOTATION_NULLS.file)
        assert FEATURE_TERMS.weights(folder / FEATURE_TERMS.file) == "abc"
        return nulls[nulls["collection"] == "all"], FEATURE_TERMS.read(folder / FEATURE_TERMS.file)

    return make


@pytest.mark.parametrize("seed", [7, 8, 9])
def test_features_that_track_expression_are_not_annotated(validated, seed):
    nulls, terms = validated(planted=0.0, seed=seed)
    assert terms.loc[terms["q_value"] < FDR, "feature"].nunique() > N_FEATURES / 4
    shares = nulls.set_index("source")["share"]
    assert shares["features"] <= FDR
    for null in ("matched_genes", "shuffled_genes"):
        assert len(shares[null]) == 20
        assert shares[null].mean() <= FDR
        assert (shares[null] > 0).mean() <= 0.2  # something anywhere, in at most 5 % of the draws but for chance


def test_features_that_read_a_set_are_annotated(validated):
    nulls, _ = validated(planted=3.0, seed=7)
    shares = nulls.set_index("source")["share"]
    assert shares["features"] > 0.25
    assert shares["matched_genes"].mean() <= FDR
