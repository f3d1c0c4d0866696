"""The test over the whole ranking, from `associate` to the report: its further tables, what becomes stale, and p checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sae_genomics.artifacts import ANNOTATION_NULLS, BASELINE_GENES, FEATURE_GENES, FEATURE_TERMS, GENE_TOKENS, RANKINGS
from tests.cluster.tiny import TinyRun

CHOSEN = ("--set", "validation.test=savage")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A finished run by Fisher's test."""
    tiny = TinyRun(tmp_path_factory.mktemp("ranked"), {}, layers=(0,))
    tiny.values["validation"] = {"shuffles": 2, "fdr": 0.5, "min_set_size": 2}
    tiny.values["associations"] = {"min_gene_tokens": 2}
    tiny.write()
    tiny.pipeline("--local")
    return tiny


def test_rankings_are_kept_only_for_a_test_that_reads_them(tiny: TinyRun) -> None:
    folder = tiny.run.layer_results(0)
    assert not list(folder.glob("*_rankings.parquet"))
    before = (folder / FEATURE_GENES.file).read_bytes()

    said = tiny.pipeline("--local", *CHOSEN).stderr
    assert "associate layer_00: done" in said
    assert "train layer_00: done" not in said
    assert (folder / FEATURE_GENES.file).read_bytes() == before
    tables = {name: table.read(folder / table.file) for name, table in RANKINGS.items()}
    for name, table in {"features": FEATURE_GENES, **BASELINE_GENES}.items():
        listed = table.read(folder / table.file)
        listed = listed[(listed["score"] > 0) & (listed["specificity"] > 0)]
        assert len(tables[name])
        assert (tables[name]["value"] > 0).all()
        ids = GENE_TOKENS.read(folder / GENE_TOKENS.file)["gene_id"].to_numpy(object)
        found = tables[name].assign(gene_id=ids[tables[name]["gene"]]).set_index(["feature", "gene_id"])["value"]
        expected = listed.set_index(["feature", "gene_id"])["specificity"].astype(np.float32)
        np.testing.assert_array_equal(found.loc[expected.index], expected)
        assert len(found) >= len(expected)

    terms = FEATURE_TERMS.read(folder / FEATURE_TERMS.file)
    assert len(terms)
    assert "saddlepoint" in FEATURE_TERMS.inference_of(folder / FEATURE_TERMS.file).null
    nulls = ANNOTATION_NULLS.read(folder / ANNOTATION_NULLS.file)
    assert {"features", "neurons", "pca", "ica", "untrained"} == set(nulls["units"])
    assert {"shuffled_genes", "matched_genes"} <= set(nulls["source"])
    assert "Savage scores over the whole ranking, q < 0.5" in tiny.run.report_file.read_text()


def test_another_ranking_makes_only_what_reads_it_again(tiny: TinyRun) -> None:
    tiny.pipeline("--local", *CHOSEN)
    folder = tiny.run.layer_results(0)
    before = RANKINGS["features"].read(folder / RANKINGS["features"].file)
    by_score = ("--set", "validation.rank_by=score")
    said = tiny.pipeline("--local", *CHOSEN, *by_score).stderr
    assert "associate layer_00: done" in said
    after = RANKINGS["features"].read(folder / RANKINGS["features"].file)
    assert len(after) > len(before)  # of every gene where the feature fires
    again = tiny.pipeline("--local", *CHOSEN, *by_score).stderr
    assert "associate layer_00: done" not in again
    back = tiny.pipeline("--local", *by_score).stderr  # Fisher's test reads the lists, which are there
    assert "associate layer_00: done" not in back
    assert "validate layer_00: done" in back
