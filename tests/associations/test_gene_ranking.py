import math

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.artifacts import FEATURE_GENES
from sae_genomics.associations.gene_ranking import PRIOR_TOKENS, rank_genes
from sae_genomics.associations.gene_sums import GeneSums
from sae_genomics.associations.triples import TokenBlock, Triples

from .conftest import blocks, looped_gene_sums


def names(n):
    return np.array([f"ID{i}" for i in range(n)], object), np.array([f"SYM{i}" for i in range(n)], object)


@settings(deadline=None, max_examples=40)
@given(blocks(max_tokens=30), st.integers(1, 5), st.integers(1, 6))
def test_table_is_what_the_formulas_say(batch, top, min_gene_tokens):
    block, triples, n_genes, d_sae = batch
    sums = GeneSums(d_sae, n_genes)
    sums.add(block, triples)
    ranked = rank_genes(sums.by_feature(7), sums.tokens, *names(n_genes), top, min_gene_tokens)
    expected = looped_gene_sums([(block, triples)])
    all_tokens = int((block.unit >= 0).sum())
    table = ranked.table.set_index(["feature", "gene_id"])
    assert table.index.is_unique
    kept = 0
    for feature in range(d_sae):
        pairs = {gene: values for (f, gene), values in expected.items() if f == feature}
        if not pairs:
            assert ranked.top_unit[feature] == -1
            assert math.isnan(ranked.specificity[feature])
            continue
        total, active = sum(v[1] for v in pairs.values()), sum(v[2] for v in pairs.values())
        prior = PRIOR_TOKENS * total / active
        bits = {
            gene: math.log2((v[1] + prior) / (total * sums.tokens[gene] / all_tokens + prior))
            for gene, v in pairs.items()
            if sums.tokens[gene] >= min_gene_tokens
        }
        by_score = sorted(pairs, key=lambda gene: (-pairs[gene][0], gene))
        by_bits = sorted(bits, key=lambda gene: -bits[gene])
        assert ranked.top_unit[feature] == by_score[0]
        np.testing.assert_allclose(ranked.specificity[feature], max(bits.values(), default=np.nan), rtol=1e-9)
        wanted = set(by_score[:top])
        rows = table.loc[[feature]]
        assert wanted <= {int(gene[2:]) for _, gene in rows.index}
        assert len(rows) <= 2 * top
        kept += len(rows)
        for (_, gene), row in rows.iterrows():
            gene = int(gene[2:])
            np.testing.assert_allclose(row["score"], pairs[gene][0], rtol=1e-12)
            np.testing.assert_allclose(row["mean_activation"], pairs[gene][1] / sums.tokens[gene], rtol=1e-12)
            assert row["firing_rate"] == pairs[gene][2] / sums.tokens[gene]
            assert row["n_tokens"] == pairs[gene][2]
            assert row["rank_score"] == by_score.index(gene) + 1
            if gene in bits:
                np.testing.assert_allclose(row["specificity"], bits[gene], rtol=1e-9, atol=1e-12)
                at_rank = bits[by_bits[row["rank_specificity"] - 1]]
                np.testing.assert_allclose(at_rank, bits[gene], atol=1e-12)  # equal ones may change places
            else:
                assert math.isnan(row["specificity"])
                assert pd.isna(row["rank_specificity"])
    assert kept == len(table)


def test_a_ubiquitous_gene_tops_the_score_but_not_the_specificity(tmp_path):
    """Gene 0 is in all 40 cells and highly expressed; the feature is active on it now and then, on gene 1 always."""
    genes, expression, token, activation = [], [], [], []
    rng = np.random.default_rng(0)
    for cell in range(40):
        genes += [0, *(2 + rng.choice(20, 8, replace=False))]
        expression += [100.0] + [1.0] * 8
        if cell % 4 == 0:
            token.append(len(genes) - 9)
        if cell < 10:
            genes.append(1)
            expression.append(2.0)
            token.append(len(genes) - 1)
    activation = np.ones(len(token), np.float32)
    block = TokenBlock(
        np.array(genes, np.int32), np.array(expression, np.float32), np.array([0, len(genes)]), np.array([False])
    )
    order = np.argsort(token)
    sums = GeneSums(1, 22)
    sums.add(block, Triples(np.array(token)[order], np.zeros(len(token), np.int32), activation))
    table = rank_genes(sums.by_feature(), sums.tokens, *names(22), 100, 5).table.set_index("gene_id")
    assert table["rank_score"].to_dict() == {"ID0": 1, "ID1": 2}
    assert table["rank_specificity"].to_dict() == {"ID1": 1, "ID0": 2}
    FEATURE_GENES.write(tmp_path / "t.parquet", table.reset_index())


def test_nothing_active_gives_an_empty_table_that_can_be_written(tmp_path):
    sums = GeneSums(3, 4)
    ranked = rank_genes(sums.by_feature(), sums.tokens, *names(4), 10, 5)
    FEATURE_GENES.write(tmp_path / "t.parquet", ranked.table)
    assert len(FEATURE_GENES.read(tmp_path / "t.parquet")) == 0
    assert ranked.top_unit.tolist() == [-1, -1, -1]
