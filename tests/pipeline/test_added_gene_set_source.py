"""Gene sets that another package brings: a run that asks for them by name tests them, and its report names them."""

from __future__ import annotations

import anndata
import pytest

from sae_genomics.artifacts import FEATURE_TERMS
from sae_genomics.config import ValidationConfig
from sae_genomics.errors import UserError
from sae_genomics.validation.databases import SOURCES, load_collections, register
from tests.cluster.tiny import TinyRun
from tests.pipeline.packages import install

MODULE = """
from pathlib import Path

from sae_genomics.validation.gene_sets import Collection, GeneSet, Source


def load(settings):
    genes = (Path(__file__).parent / "genes.txt").read_text().split()
    return [Collection("pairs", tuple(GeneSet(f"set {i}", "made up", tuple(genes[i::4])) for i in range(4)))]


SOURCE = Source("pairs", load)
"""
ASKED = ("--set", "validation.sources=[pairs]")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A run in an environment where a package with gene sets is installed."""
    folder = tmp_path_factory.mktemp("added")
    groups = {"sae_genomics.gene_set_sources": "pairs = brought_sets:SOURCE"}
    environment = install(folder / "site", {"brought_sets.py": MODULE}, groups)
    tiny = TinyRun(folder / "run", environment, cells=30, layers=(1,))
    tiny.values["validation"] = {"shuffles": 2, "baselines": []}
    tiny.write()
    symbols = anndata.read_h5ad(tiny.folder / "cells.h5ad").var["symbol"].tolist()
    (folder / "site" / "genes.txt").write_text("\n".join(symbols))
    return tiny


def test_its_sets_are_tested_where_a_run_asks_for_them(tiny: TinyRun) -> None:
    tiny.pipeline("--local")
    path = tiny.run.layer_results(1) / FEATURE_TERMS.file
    assert "pairs" not in set(FEATURE_TERMS.read(path)["collection"])  # installing it changes nothing
    assert "pairs" not in tiny.run.report_file.read_text()

    done = tiny.pipeline("--local", *ASKED).stderr
    assert "validate layer_01: done" in done
    assert "associate layer_01: done" not in done
    terms = FEATURE_TERMS.read(path)
    mine = terms[terms["collection"] == "pairs"]
    assert set(mine["term"]) == {f"set {i}" for i in range(4)}
    assert len(terms) > len(mine)  # beside the built-in ones
    genes = (tiny.folder.parent / "site" / "genes.txt").read_text().split()
    for row in mine.itertuples():
        assert set(row.genes.split(",")) <= set(genes[int(row.term.split()[1]) :: 4])
    report = tiny.run.report_file.read_text()
    assert "| **Gene sets** | built-in and `pairs`;" in report


def test_a_source_that_is_not_installed_is_refused(tiny: TinyRun) -> None:
    refused = tiny.pipeline("--local", "--set", "validation.sources=[paris]", check=False)
    assert refused.returncode == 2
    assert refused.stderr.strip().endswith("validation.sources: 'paris' is not known; the sources are pairs")
    with pytest.raises(UserError, match="no package that brings sources is installed here"):
        load_collections(ValidationConfig(sources=["pairs"]))


def test_a_source_is_registered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "gone", "an_absent_package.sets:SOURCE")
    with pytest.raises(ValueError, match="gone: that name is taken"):
        register("gone", "another:SOURCE")
    with pytest.raises(UserError, match=r"validation\.sources: gone needs an_absent_package\.sets, which is not"):
        load_collections(ValidationConfig(sources=["gone"]))
    with pytest.raises(UserError, match="'built-in' is not known"):
        load_collections(ValidationConfig(sources=["built-in"]))
