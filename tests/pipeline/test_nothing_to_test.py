"""Data in which no gene set fits: nothing is broken, so nothing fails, and the report says what to set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sae_genomics.cli import main
from sae_genomics.config import load_config
from sae_genomics.run import Run
from sae_genomics.stages import stages_of
from tests.pipeline.conftest import ROOT

ENSEMBL_MODEL = ROOT / "tests" / "fixtures" / "tx1_parity" / "relu_70m_style"


def ensembl_cells(path: Path) -> Path:
    """Cells whose genes are Ensembl ids, without a column of symbols."""
    names = [name for name in json.loads((ENSEMBL_MODEL / "vocab.json").read_text()) if name.startswith("ENSG")]
    counts = np.random.default_rng(0).poisson(1.0, (90, len(names))).astype(np.float32)
    ad.AnnData(sparse.csr_matrix(counts), var=pd.DataFrame(index=names)).write_h5ad(path)
    return path


def test_ensembl_ids_without_symbols_end_well_with_a_report_that_says_what_to_set(
    tmp_path: Path, write_config: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(
        data={"path": str(ensembl_cells(tmp_path / "cells.h5ad")), "cell_type_key": None},
        model={"name": None, "path": str(ENSEMBL_MODEL), "layers": [2]},
    )
    assert main(["pipeline", str(config), "--local"]) == 0, capsys.readouterr().err
    run = Run(load_config(config), config)
    assert {state.status for stage in stages_of(run) for state in run.states(stage)} == {"done"}
    report = run.report_file.read_text()
    assert "Nothing to test: no gene set has" in report
    assert "the data like ENSG00000" in report
    assert "set data.symbol_key to the var column of gene symbols" in report
    assert "tasks before this report are done" in report
    assert "could not be" not in report
    assert main(["pipeline", str(config), "--local"]) == 0
