"""The search behind the demo's settings sees training cells alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anndata
import pandas as pd
import pytest

from tests.pipeline.conftest import ROOT


@pytest.mark.slow
def test_it_searches_on_the_demos_training_cells(tmp_path: Path) -> None:
    grid = ["--grid", "sae.centre=unit", "--grid", "sae.k=2,3", "--grid", "sae.steps=30", "--layers", "1"]
    command = [sys.executable, "scripts/search_demo_settings.py", "--folder", str(tmp_path), *grid]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    demo = pd.read_parquet(tmp_path / "results" / "demo" / "prepare" / "cells.parquet")
    searched = anndata.read_h5ad(tmp_path / "training_cells.h5ad", backed="r").obs_names
    assert set(searched) == set(demo.loc[~demo["heldout"], "cell_id"])
    own = pd.read_parquet(tmp_path / "results" / "search" / "prepare" / "cells.parquet")
    assert own["heldout"].any(), "FVU is measured on held-out cells of its own"
    table = pd.read_csv(done.stdout.strip().splitlines()[-1], sep="\t")
    assert table["k"].tolist() == [2, 3]
    assert table[["fvu", "stability", "n_terms", "score", "beaten_by"]].notna().all(axis=None)
    assert "layer 1, highest stability x terms at its FVU" in done.stderr
