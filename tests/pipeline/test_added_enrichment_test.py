"""An enrichment test that another package brings: chosen by name, it makes the tables, and the report calls it by its own name."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sae_genomics.artifacts import ANNOTATION_NULLS, FEATURE_TERMS
from sae_genomics.errors import UserError
from sae_genomics.validation.enrichment_tests import TESTS, enrichment_test_named, register
from sae_genomics.validation.nulls import MATCHED, SHUFFLED
from tests.cluster.tiny import TinyRun
from tests.pipeline.packages import install

BINOMIAL = """
from scipy import stats

from sae_genomics.artifacts import Inference
from sae_genomics.validation.enrichment_test import EnrichmentTest
from sae_genomics.validation.overlaps import of_overlaps


def tail(k, set_size, n, n_background):
    return stats.binom.sf(k - 1, n, set_size / n_background)


BINOMIAL = EnrichmentTest(
    name="binomial",
    description="one-sided binomial test",
    inference=Inference(
        "one gene of the feature's list",
        "the feature's top genes (n_top)",
        "each gene of the list is in the set with the probability n_term / n_background (binomial)",
    ),
    run=lambda lists, sets, keep: of_overlaps(lists, sets, keep, tail),
)
WHOLE = EnrichmentTest("whole", "rank test", BINOMIAL.inference, BINOMIAL.run, reads="ranking")
"""
CHOSEN = ("--set", "validation.test=binomial")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A finished run, by Fisher's test, in an environment where a package with two tests is installed."""
    folder = tmp_path_factory.mktemp("added")
    names = "binomial = brought_tests:BINOMIAL\nwhole = brought_tests:WHOLE"
    environment = install(folder / "site", {"brought_tests.py": BINOMIAL}, {"sae_genomics.enrichment_tests": names})
    tiny = TinyRun(folder / "run", environment)
    tiny.values["validation"] = {"shuffles": 2, "fdr": 0.5}
    tiny.write()
    tiny.pipeline("--local")
    return tiny


def test_it_makes_the_tables_and_the_report_names_it(tiny: TinyRun) -> None:
    path = tiny.run.layer_results(0) / FEATURE_TERMS.file
    before, report = FEATURE_TERMS.read(path), tiny.run.report_file.read_text()
    assert "exact hypergeometric test, q < 0.5" in report
    assert FEATURE_TERMS.inference_of(path).null.endswith("(hypergeometric)")
    n, big_n, k, size = (before[name] for name in ("n_top", "n_background", "n_overlap", "n_term"))
    np.testing.assert_allclose(before["p_value"], stats.hypergeom.sf(k - 1, big_n, size, n), rtol=1e-9)

    done = tiny.pipeline("--local", *CHOSEN).stderr
    assert "validate layer_00: done" in done
    assert "associate layer_00: done" not in done  # nothing before it is made again
    terms, report = FEATURE_TERMS.read(path), tiny.run.report_file.read_text()
    keys = ["feature", "collection", "term"]
    both = terms.merge(before, on=keys, suffixes=("", "_fisher"))
    assert len(both) > 0
    n, big_n, k, size = (both[name] for name in ("n_top", "n_background", "n_overlap", "n_term"))
    np.testing.assert_allclose(both["p_value"], stats.binom.sf(k - 1, n, size / big_n), rtol=1e-12)
    np.testing.assert_array_equal(both["odds_ratio"], both["odds_ratio_fisher"])
    assert not np.allclose(both["p_value"], both["p_value_fisher"])
    assert FEATURE_TERMS.inference_of(path).null.endswith("(binomial)")
    nulls = ANNOTATION_NULLS.read(tiny.run.layer_results(0) / ANNOTATION_NULLS.file)
    assert {"features", "neurons", "pca", "ica", "untrained"} == set(nulls["units"])
    assert {SHUFFLED, MATCHED} <= set(nulls["source"])
    assert nulls["n_annotated"].iloc[0] == terms.loc[terms["q_matched"] < 0.5, "feature"].nunique()
    assert "one-sided binomial test, q < 0.5" in report
    assert "(binomial)" in report
    assert "hypergeometric" not in report


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("binomal", "validation.test: 'binomal' is not known; set it to fisher or binomial or whole"),
        ("whole", "set validation.test to fisher"),
    ],
)
def test_a_test_that_cannot_be_is_refused_before_anything_is_made(tiny: TinyRun, name: str, says: str) -> None:
    before = tiny.run.report_file.stat().st_mtime_ns
    refused = tiny.pipeline("--local", "--set", f"validation.test={name}", check=False)
    assert refused.returncode == 2
    assert len(refused.stderr.strip().splitlines()) == 1
    assert says in refused.stderr
    assert tiny.run.report_file.stat().st_mtime_ns == before


def test_a_name_is_taken_once_and_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="fisher: that name is taken"):
        register("fisher", "nowhere:TEST")
    monkeypatch.setitem(TESTS, "gone", "an_absent_package.tests:GONE")
    with pytest.raises(
        UserError, match=r"validation\.test: gone needs an_absent_package\.tests, which is not installed"
    ):
        enrichment_test_named("gone")
