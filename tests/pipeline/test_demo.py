"""The bundled demonstration, whole: what the README promises of it, read from the files it leaves."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import anndata as ad
import h5py
import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from sae_genomics.activations import read_units
from sae_genomics.config import load_config
from sae_genomics.run import Run
from sae_genomics.sae.load import centre
from sae_genomics.stages import stages_of
from tests.cluster.slurm_cluster import cluster as slurm_cluster
from tests.cluster.slurm_cluster import why_not
from tests.pipeline.conftest import ROOT

matplotlib.use("Agg")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


@dataclass(frozen=True)
class Finished:
    """run: the finished run. typed: what a person adds to each command. environment: of a command on the cluster. tasks: as Slurm noted them; None without Slurm."""

    run: Run
    typed: list[str]
    environment: dict[str, str]
    tasks: list[dict[str, str]] | None


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """The demo as the README has it typed, in a folder of its own: by a real Slurm of two nodes where there is one, by this process without."""
    folder = tmp_path_factory.mktemp("demo")
    settings = [f"paths.{root}={folder / root}" for root in ("checkpoints", "results", "logs")]
    typed = [f"--set={each}" for each in settings]
    profile = folder / "site.yaml"
    profile.write_text(yaml.safe_dump({"defaults": {"cpus": 1, "memory": "3G", "time": "01:00:00"}}))
    ours = {"SAE_GENOMICS_CLUSTER": str(profile), "SAE_GENOMICS_PYTHON": sys.executable}
    config = ROOT / "configs" / "demo.yaml"
    if why_not() is not None:
        environment = {**os.environ, **ours}
        _pipeline([*typed, "--local"], environment)
        yield Finished(Run(load_config(config, settings), config), typed, environment, None)
        return
    with slurm_cluster(nodes=2, cpus=1) as cluster:
        environment = {**cluster.environment, **ours}
        _pipeline(typed, environment)
        cluster.wait_until_empty(1500)
        yield Finished(Run(load_config(config, settings), config), typed, environment, cluster.completed())


def _pipeline(typed: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "slurm/00_full_pipeline.sh", *typed],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def demo(finished: Finished) -> Run:
    return finished.run


def test_every_task_is_done(finished: Finished) -> None:
    run = finished.run
    logs = "\n".join(path.read_text() for path in run.logs.glob("*.err"))
    assert all(state.done for stage in stages_of(run) for state in run.states(stage)), logs
    size = sum(path.stat().st_size for path in run.results.parents[1].rglob("*") if path.is_file())
    assert size < 2 * 2**30
    report = run.report_file.read_text()
    assert "Nothing: all" in report
    assert "CD14" in report
    status = subprocess.run(
        ["bash", "slurm/status.sh", *finished.typed],
        cwd=ROOT, env=finished.environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert f"next: read {run.report_file}" in status.stdout


@pytest.mark.slurm
def test_each_task_is_one_job_and_layers_run_side_by_side(finished: Finished, figure: Callable[..., None]) -> None:
    tasks = finished.tasks
    assert tasks is not None
    rows = [row for row in tasks if row["Name"].startswith("sae-demo-")]
    assert {row["JobState"] for row in rows} == {"COMPLETED"}
    assert len(rows) == sum(finished.run.n_tasks(stage) for stage in stages_of(finished.run))
    spans = [
        (datetime.fromisoformat(row["StartTime"]), datetime.fromisoformat(row["EndTime"]), row["NodeList"])
        for row in rows
    ]
    together = [(a, b) for a in spans for b in spans if a[2] < b[2] and a[0] < b[1] and b[0] < a[1]]
    assert together, "no two tasks ran at once"
    seconds = (max(span[1] for span in spans) - min(span[0] for span in spans)).total_seconds()
    figure(tasks=len(rows), seconds=seconds, pairs_of_tasks_at_once=len(together))


def heldout_auroc(run: Run, kind: str) -> pd.Series:
    """Held-out AUROC of each type's best unit over layers, each chosen on training cells."""
    tables = [pd.read_parquet(run.layer_results(layer) / "cell_type_baselines.parquet") for layer in run.layers]
    table = pd.concat(tables)
    table = table[table["kind"] == kind]
    return (
        table.loc[table.groupby("cell_type")["auroc_train"].idxmax() if kind == "gene" else table.index]
        .groupby("cell_type")["auroc"]
        .max()
    )


def test_cell_types_have_features(demo: Run) -> None:
    auroc = heldout_auroc(demo, "feature")
    assert auroc["CD19+ B"] >= 0.92
    assert auroc["CD56+ NK"] >= 0.92
    assert auroc["CD14+ Monocyte"] >= 0.90
    assert auroc["Dendritic"] >= 0.90


@pytest.fixture(scope="module")
def nulls(demo: Run) -> pd.DataFrame:
    tables = [
        pd.read_parquet(demo.layer_results(layer) / "annotation_nulls.parquet").assign(layer=layer)
        for layer in demo.layers
    ]
    return pd.concat(tables, ignore_index=True).query("collection == 'all'")


def test_shuffled_names_annotate_at_most_one_feature_in_twenty(nulls: pd.DataFrame) -> None:
    for _, rows in nulls[nulls["source"] != nulls["units"]].groupby("source"):
        shares = rows[rows["n_units"] > 0].groupby(["units", "layer"])["share"]
        assert (shares.size() == 20).all()
        assert shares.mean().max() <= 0.05


def test_more_features_are_annotated_than_with_shuffled_genes(nulls: pd.DataFrame) -> None:
    annotated = nulls.query("units == 'features'").groupby(["source", "repeat"])["n_annotated"].sum()
    found = annotated["features"].item()
    assert found > 10 * annotated["shuffled_genes"].max()
    assert found > annotated["matched_genes"].max()
    assert found > 3 * annotated["matched_genes"].mean()


def test_features_say_more_than_what_stands_beside_them(demo: Run, nulls: pd.DataFrame) -> None:
    own = nulls[nulls["source"] == nulls["units"]]
    features = own.query("units == 'features'")
    assert features["n_annotated"].sum() >= 0.1 * features["n_units"].sum()
    terms = own.pivot(index="layer", columns="units", values="n_terms")
    assert set(terms) == {"features", "neurons", "pca", "ica", "untrained"}
    assert (terms["features"] >= terms.drop(columns="features").max(axis=1)).sum() >= 2
    metrics = [json.loads((demo.sae_dir(layer) / "metrics.json").read_text()) for layer in demo.layers]
    assert min(each["stability"] for each in metrics) >= 0.4


def test_heldout_cells_are_the_models(demo: Run) -> None:
    card = json.loads((ROOT / "sae_genomics" / "assets" / "demo_model" / "heldout_cells.json").read_text())
    cells = pd.read_parquet(demo.cells_file)
    assert set(cells.loc[cells["heldout"], "cell_id"]) == set(card["names"])


def stored_activations(path: Path) -> np.ndarray:
    """Read the documented HDF5 with h5py alone."""
    with h5py.File(path) as file:
        raw = file["activations"][:]
        if file.attrs["dtype"] == "bfloat16":
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.astype(np.float32)


def test_saelens_reproduces_features_from_activations(demo: Run) -> None:
    from sae_lens import SAE

    layer = demo.layers[-1]
    sae = SAE.load_from_disk(str(demo.sae_dir(layer)))
    table = ad.read_h5ad(demo.layer_results(layer) / "features.h5ad")
    offset = 0
    for shard in range(demo.n_shards):
        with h5py.File(demo.tokens_file(shard)) as file:
            pointers, special = file["item_ptr"][:], file["special"][:]
        with torch.no_grad():
            rows = stored_activations(demo.activations_file(layer, shard))
            read = centre(rows, read_units(demo.tokens_file(shard), slice(0, len(rows))), demo.sae_dir(layer))
            features = sae.encode(torch.from_numpy(read)).numpy()
        for cell, (start, stop) in enumerate(itertools.pairwise(pointers)):
            tokens = features[start:stop][~special[start:stop]]
            np.testing.assert_allclose(table.X[offset + cell].toarray()[0], tokens.max(axis=0), rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(
                table.layers["mean"][offset + cell].toarray()[0], tokens.mean(axis=0), rtol=1e-3, atol=1e-4
            )
        offset += len(pointers) - 1
    assert offset == table.n_obs


def test_scanpy_plots_a_feature(demo: Run, tmp_path: Path) -> None:
    import scanpy as sc

    table = sc.read_h5ad(demo.layer_results(demo.layers[0]) / "features.h5ad")
    assert "bulk_labels" in table.obs
    strongest = table.var_names[np.asarray(table.X.sum(axis=0)).argmax()]
    figure = sc.pl.umap(table, color=[strongest, "bulk_labels"], show=False, return_fig=True)
    figure.savefig(tmp_path / "umap.png")
    assert os.path.getsize(tmp_path / "umap.png") > 5000


def test_the_report_reads_and_its_figures_are_there(demo: Run) -> None:
    text = demo.report_file.read_text()
    for words in ("CD19+ B", "shuffled", "held-out", "FVU"):
        assert words.lower() in text.lower()
    linked = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert linked
    for link in linked:
        assert (demo.results / link).exists()
    html = demo.dashboard_file.read_text()
    assert not re.search(r"""(?:src|href)=["']https?://""", html), "the dashboard opens offline"


def test_the_notebook_runs(demo: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    notebook = json.loads((ROOT / "notebooks" / "explore_a_run.ipynb").read_text())
    monkeypatch.setenv("SAE_RESULTS", str(demo.results))
    monkeypatch.setenv("SAE_CHECKPOINTS", str(demo.checkpoints))
    names: dict = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert "features a token" in capsys.readouterr().out
    assert names["b_cells"]["auroc"].iloc[0] > 0.9
