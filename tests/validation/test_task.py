"""The whole stage on tables with a planted program."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sae_genomics.artifacts import (
    ANNOTATION_NULLS,
    FEATURE_GENES,
    FEATURE_NAMES,
    FEATURE_TERMS,
    GENE_TOKENS,
    NEURON_GENES,
)
from sae_genomics.config import parse_config
from sae_genomics.errors import UserError
from sae_genomics.run import Run
from sae_genomics.validation.settings import check_settings
from sae_genomics.validation.task import run_task

N_GENES, N_FEATURES = 300, 30


def gene_rows(feature, genes):
    n = len(genes)
    return pd.DataFrame(
        {
            "feature": np.int32(feature), "gene_id": [f"ENSG{g}" for g in genes], "gene_symbol": [f"SYM{g}" for g in genes],
            "score": np.linspace(9, 1, n), "mean_activation": 1.0, "firing_rate": 0.5, "n_tokens": 10,
            "specificity": np.linspace(3, 0.1, n), "rank_score": np.arange(1, n + 1), "rank_specificity": np.arange(1, n + 1),
        }
    )  # fmt: skip


@pytest.fixture
def make_run(tmp_path):
    """make_run(**validation settings) -> a run whose features 0 to 9 read gene sets off and whose neurons read nothing."""

    def make(**validation):
        (tmp_path / "planted.gmt").write_text(
            "".join(
                f"set {i}\tplanted\t" + "\t".join(f"sym{g}" for g in range(20 * i, 20 * i + 20)) + "\n"
                for i in range(15)
            )
        )
        values = {
            "run": {"name": "r"},
            "paths": {name: str(tmp_path / name) for name in ("checkpoints", "results", "logs")},
            "data": {"path": "unused.h5ad"},
            "associations": {"min_gene_tokens": 10},
            "validation": {
                "builtin": False,
                "gmt": [str(tmp_path / "planted.gmt")],
                "shuffles": 3,
                "baselines": ["neurons"],
                **validation,
            },
        }
        run = Run(parse_config(values, "test"))
        run.__dict__.update(layers=[2], model_info=SimpleNamespace(name="toy", identity="m", n_layers=3))
        rng = np.random.default_rng(0)
        tokens = np.arange(N_GENES) % 30 + 10
        tokens[-10:] = 9  # one token too few to be listed: not of the background
        order = np.arange(N_GENES)
        folder = run.layer_results(2)
        GENE_TOKENS.write(
            folder / "gene_tokens.parquet",
            pd.DataFrame(
                {
                    "gene_id": [f"ENSG{g}" for g in order], "gene_symbol": [f"SYM{g}" for g in order],
                    "n_tokens_stored": tokens, "mean_expression": 1.0 + order % 7, "n_tokens_untrained": tokens,
                }
            ),
        )  # fmt: skip
        seen = np.arange(N_GENES - 10)
        features = [
            gene_rows(
                f, [*rng.permutation(np.arange(20 * f, 20 * f + 20))[:12], *rng.choice(np.arange(200, 290), 13, False)]
            )
            if f < 10
            else gene_rows(f, rng.choice(seen, 25, replace=False))
            for f in range(N_FEATURES)
        ]
        neurons = [gene_rows(n, rng.choice(seen, 25, replace=False)) for n in range(8)]
        FEATURE_GENES.write(folder / "feature_genes.parquet", pd.concat(features))
        NEURON_GENES.write(folder / "neuron_genes.parquet", pd.concat(neurons))
        return run

    return make


def test_planted_programs_are_found_and_nulls_stay_low(make_run):
    run = make_run()
    run_task(run, 0)
    terms = FEATURE_TERMS.read(run.layer_results(2) / "feature_terms.parquet")
    nulls = ANNOTATION_NULLS.read(run.layer_results(2) / "annotation_nulls.parquet")
    assert (terms["n_background"] == N_GENES - 10).all()
    found = terms[terms["q_value"] < 0.05]
    for feature in range(10):
        assert f"set {feature}" in set(found.loc[found["feature"] == feature, "term"])
    row = found[(found["feature"] == 3) & (found["term"] == "set 3")].iloc[0]
    assert row["collection"] == "planted"
    assert row["n_overlap"] == 12
    assert row["n_term"] == 20
    assert row["n_top"] == 25
    assert row["p_value"] == pytest.approx(stats.hypergeom.sf(11, 290, 20, 25), rel=1e-9)
    shared = row["genes"].split(",")
    assert len(shared) == 12
    assert all(60 <= int(gene.removeprefix("SYM")) < 80 for gene in shared)
    first = terms[terms["feature"] == 3]
    assert first["p_value"].is_monotonic_increasing

    assert row["q_value"] <= row["q_matched"] < 0.05
    assert row["odds_ratio_low"] < row["odds_ratio"] < row["odds_ratio_high"]
    assert row["term_id"] == "set 3"
    assert (terms["p_matched"].notna() == (terms["p_value"] <= 0.05)).all()

    # a single collection: the same tests once more, under its name
    alone = nulls[nulls["collection"] == "planted"].drop(columns="collection").reset_index(drop=True)
    nulls = nulls[nulls["collection"] == "all"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, nulls.drop(columns="collection"))
    both = ["shuffled_genes"] * 3 + ["matched_genes"] * 3
    assert nulls["source"].tolist() == ["features", *both, "neurons", *both]
    assert nulls["units"].tolist() == ["features"] * 7 + ["neurons"] * 7
    assert nulls["repeat"].tolist() == [0, 0, 1, 2, 0, 1, 2] * 2
    assert nulls["n_units"].tolist() == [30] * 7 + [8] * 7
    assert nulls["n_tests"].tolist() == [450] * 7 + [120] * 7
    assert nulls["n_annotated"].iloc[0] >= 10
    assert nulls["n_annotated"].iloc[1:].max() <= 3
    own = nulls.iloc[0]
    passing = terms[terms["q_matched"] < 0.05]
    assert own["n_annotated"] == passing["feature"].nunique()
    assert own["n_terms"] == passing["term"].nunique()  # different terms, however many features have one
    np.testing.assert_allclose(nulls["terms_per_100_units"], 100 * nulls["n_terms"] / nulls["n_units"])


def test_features_that_read_a_planted_program_are_named_after_it(make_run):
    run = make_run()
    run_task(run, 0)
    names = FEATURE_NAMES.read(run.layer_results(2) / "feature_names.parquet").set_index("feature")
    assert list(names.index) == list(range(N_FEATURES))
    assert [names.loc[feature, "name"] for feature in range(10)] == [f"set {feature}" for feature in range(10)]
    assert set(names.loc[:9, "sources"]) == {"planted"}
    assert (names["name"] == "unnamed").sum() >= N_FEATURES - 12


def test_baselines_are_those_that_the_settings_name(make_run):
    run = make_run(baselines=[])
    run_task(run, 0)
    nulls = ANNOTATION_NULLS.read(run.layer_results(2) / "annotation_nulls.parquet")
    assert set(nulls["units"]) == {"features"}
    with pytest.raises(UserError, match=r"validation\.baselines"):
        make_run(baselines=["astrology"])


def test_ranked_by_score_every_gene_with_a_token_is_background(make_run):
    run = make_run(rank_by="score")
    run_task(run, 0)
    terms = FEATURE_TERMS.read(run.layer_results(2) / "feature_terms.parquet")
    assert (terms["n_background"] == N_GENES).all()


def test_where_no_gene_can_be_listed_the_note_says_what_to_set(make_run):
    run = make_run()
    folder = run.layer_results(2)
    genes = GENE_TOKENS.read(folder / "gene_tokens.parquet").assign(n_tokens_stored=9)
    GENE_TOKENS.write(folder / "gene_tokens.parquet", genes)
    run_task(run, 0)
    assert "set associations.min_gene_tokens lower" in ANNOTATION_NULLS.note(folder / "annotation_nulls.parquet")


def test_shared_genes_of_every_row_are_right(make_run):
    run = make_run(top_genes=7)
    run_task(run, 0)
    terms = FEATURE_TERMS.read(run.layer_results(2) / "feature_terms.parquet")
    table = FEATURE_GENES.read(run.layer_results(2) / "feature_genes.parquet")
    tops = table[table["rank_specificity"] <= 7].groupby("feature")["gene_symbol"].apply(set)
    for row in terms.itertuples():
        number = int(row.term.split()[1])
        members = {f"SYM{g}" for g in range(20 * number, 20 * number + 20)}
        assert set(row.genes.split(",")) == tops[row.feature] & members
        assert row.n_overlap == len(row.genes.split(","))


def test_more_genes_than_are_kept_are_refused_before_anything_is_written(make_run):
    run = make_run(top_genes=101)
    with pytest.raises(UserError, match=r"set associations\.top_genes to 101"):
        run_task(run, 0)
    assert not (run.layer_results(2) / "feature_terms.parquet").exists()


def test_where_no_set_fits_the_tables_are_empty_and_say_why(make_run, tmp_path):
    alien = tmp_path / "alien.gmt"
    alien.write_text("a\tb\tXENO1\tXENO2\tXENO3\n")
    run = make_run(gmt=[str(alien)])
    run_task(run, 0)
    for table in (FEATURE_TERMS, ANNOTATION_NULLS):
        path = run.layer_results(2) / table.file
        frame = table.read(path)
        assert len(frame) == 0
        assert list(frame.columns) == [column.name for column in table.columns]
        assert "XENO1" in table.note(path)
        assert "data.symbol_key" in table.note(path)


def test_a_bad_gene_set_file_is_refused(make_run, tmp_path):
    bad = tmp_path / "bad.gmt"
    bad.write_text("only a name\n")
    with pytest.raises(UserError, match=r"bad\.gmt, line 1"):
        run_task(make_run(gmt=[str(bad)]), 0)


def test_settings_can_be_checked_before_there_is_a_run(make_run, tmp_path):
    assert [collection.name for collection in check_settings(make_run().config)] == ["planted"]
    with pytest.raises(UserError, match=r"no such gene-set file: .*none\.gmt"):
        check_settings(make_run(gmt=[str(tmp_path / "none.gmt")]).config)
    with pytest.raises(UserError, match=r"validation\.min_set_size = 9"):
        check_settings(make_run(min_set_size=9, max_set_size=8).config)
