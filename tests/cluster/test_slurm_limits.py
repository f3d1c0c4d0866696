"""Time limits: a training that is cut three times, and an extraction that never fits, on a real Slurm."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

from sae_genomics.cluster.attempts import attempts_of
from sae_genomics.cluster.jobs import read_jobs
from sae_genomics.stages import stage_named
from tests.cluster.slurm_cluster import SlurmCluster
from tests.cluster.slurm_cluster import cluster as slurm_cluster
from tests.cluster.tiny import TinyRun, write_cells

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(2400)]

# Slurm's time limits are whole minutes, and it looks at them twice a minute. Of training, a limit of a minute with a
# signal 55 s before it leaves between 5 s and 35 s at a time; 30 s before it, between 30 s and 60 s.
SECONDS_OF_TRAINING = 90


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    with slurm_cluster(nodes=3, cpus=1) as made:
        yield made


def one_layer(template: Path, folder: Path, cluster: SlurmCluster, steps: int) -> TinyRun:
    shutil.copytree(template, folder)
    run = TinyRun(folder, cluster.environment, layers=(0,))
    run.values["sae"].update(steps=steps, log_every=1000)
    run.write()
    return run


def limited(run: TinyRun, stage: str, signal_seconds: int, most: int) -> None:
    """A limit of one minute, Slurm's shortest, for a stage."""
    run.profile.update(signal_seconds=signal_seconds, max_requeues=most, stages={stage: {"time": "00:01:00"}})
    run.write()


def test_training_cut_three_times_and_extraction_cut_for_good(template, tmp_path, cluster, steps_a_second, figure):
    steps = int(SECONDS_OF_TRAINING * steps_a_second)
    whole = one_layer(template, tmp_path / "whole", cluster, steps)
    cut = one_layer(template, tmp_path / "cut", cluster, steps)
    limited(cut, "train", 55, 60)
    wide = TinyRun(tmp_path / "wide", cluster.environment, layers=(0, 1, 2))
    second_shard_takes_long(wide)
    limited(wide, "extract", 30, 2)

    background = threading.Thread(target=whole.stage, args=("train",))
    background.start()
    cut.pipeline()
    wide.pipeline()
    cluster.wait_until_empty(1500)
    background.join()

    outcomes = [attempt.outcome for attempt in attempts_of(cut.run, stage_named("train"), 0)]
    assert outcomes.count("interrupted") >= 3, cut.logs()
    assert outcomes[-1] == "done"
    assert set(outcomes) == {"interrupted", "done"}
    # on a busy machine a signal may come while Python still starts: back in the queue, and no attempt yet
    requeued = cut.logs().count("saved and requeued: restart")
    assert outcomes.count("interrupted") <= requeued == cut.logs().count("ended with exit code 75")
    assert cut.state("validate") == "done"
    for name in ("sae_weights.safetensors", "sparsity.safetensors", "cfg.json"):
        assert (cut.run.sae_dir(0) / name).read_bytes() == (whole.run.sae_dir(0) / name).read_bytes(), name

    starts = re.findall(r"goes on from step ([\d,]+)", cut.logs())
    figure(cuts=outcomes.count("interrupted"), steps=steps, went_on_from=starts)

    # Both shards of one array may be cut at the same moment: each is requeued, and counted, by itself.
    tried = [[each.outcome for each in attempts_of(wide.run, stage_named("extract"), shard)] for shard in (0, 1)]
    assert tried[0][-1] == "done"
    assert tried[1] == ["interrupted"] * 3
    # The shard that does not fit into its limit was tried as often as the profile allows; the other shard is kept.
    assert (wide.state("extract", 0), wide.state("extract", 1)) == ("done", "missing")
    task = wide.tasks()["extract", "shard_0001"]
    assert (task["state"], task["attempts"]) == ("failed", 3)
    assert "stopped by a signal after saving" in task["note"]
    assert "the most the profile allows (max_requeues: 2)" in wide.logs()
    report = wide.run.report_file.read_text()
    assert re.search(r"extract \| shard 0001 \| missing .*stopped by a signal after saving", report), report
    before = len(read_jobs(wide.run))
    wide.resubmit("--time", "00:20:00")
    again = {job.stage: job for job in read_jobs(wide.run)[before:]}
    assert again["extract"].array.partition("%")[0] == "1"
    assert again["extract"].time == "00:20:00"
    assert again["train"].time == "00:30:00"
    cluster.clear()


def second_shard_takes_long(run: TinyRun, cells: int = 30_000) -> None:
    """Cells of one gene, then as many with all: the first shard takes seconds, the second minutes.

    Compressed, because an interrupted shard then keeps nothing: otherwise it comes to its end in several attempts.
    """
    path = run.folder / "cells.h5ad"
    write_cells(path, 2 * cells)
    table = anndata.read_h5ad(path)
    counts = np.ones(table.shape, np.float32)
    counts[:cells, 1:] = 0
    counts += counts * np.arange(table.shape[1], dtype=np.float32)
    table.X = sp.csr_matrix(counts)
    table.write_h5ad(path)
    run.values["activations"].update(cells_per_shard=cells, batch_tokens=128, compression="lz4")
    run.values["sae"]["k"] = 4
    run.write()
