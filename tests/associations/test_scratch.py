"""What a layer's task writes on its way: scratch data goes to checkpoints, and results get nothing but their own files."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sae_genomics.associations import item_matrix, labels, untrained
from sae_genomics.associations import task as associate
from sae_genomics.associations.files import named_files
from sae_genomics.atomic import partial_named
from sae_genomics.data.plan_file import read_plan
from sae_genomics.leftovers import bytes_of, find_leftovers, remove_leftovers_of, scratch_path
from sae_genomics.run import Run
from sae_genomics.stages import stage_named

ASSOCIATE = stage_named("associate")
pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to see files without a name")


def files_being_written(folder: Path) -> dict[Path, int]:
    """Files below `folder`: those with a name, and those that this process holds open without one; with their sizes."""
    found = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target, size = Path(os.readlink(descriptor)), os.stat(descriptor).st_size
        except OSError:
            continue
        if target.is_relative_to(folder):
            found[target] = size
    return found


def test_scratch_data_never_goes_to_results(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(n_cells=60, validation__baselines=["neurons", "pca", "ica"])
    in_results: set[str] = set()
    scratch: dict[Path, int] = {}
    compare, before = labels.compare_units, files_being_written(run.results)

    def watched(*arguments: Any) -> Any:
        in_results.update(path.name for path in files_being_written(run.results) if path not in before)
        result = compare(*arguments)
        scratch.update(files_being_written(run.checkpoints / "scratch"))  # of the columns just read, all is on disk
        return result

    monkeypatch.setattr(labels, "compare_units", watched)
    associate.run_task(run, 0)
    for name in in_results:
        partial = partial_named(Path(name))
        assert (partial.final if partial else name) in set(named_files(run))
    assert list((run.checkpoints / "scratch").rglob("*")) == []

    written = sum(scratch.values())
    assert written > 12 * 60 * 3 * 96, "every sampled cell has a value of every neuron and component, both signs"
    assert written <= planned(run) < 1.5 * written


def planned(run: Run) -> int:
    estimates = read_plan(run)["estimates"]
    return int(next(each for each in estimates if each["stage"] == "associate")["scratch_bytes"])


def test_scratch_of_the_untrained_model_is_gone_before_the_pass(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(n_cells=60, types=None, sae__d_sae=128, validation__baselines=["untrained"])
    folder = run.checkpoints / "scratch"
    seen: list[int] = []
    fold = untrained.fold

    def watched(*arguments: Any) -> Any:
        seen.append(sum(files_being_written(folder).values()))
        return fold(*arguments)

    monkeypatch.setattr(untrained, "fold", watched)
    read_item_ptr = item_matrix.read_item_ptr

    def in_the_pass(*arguments: Any) -> Any:
        assert not any(path.is_file() for path in folder.rglob("*"))
        return read_item_ptr(*arguments)

    monkeypatch.setattr(item_matrix, "read_item_ptr", in_the_pass)
    associate.run_task(run, 0)
    assert seen[0] > 60 * 48 * 4, "the activations"
    assert seen[0] <= planned(run) < 4 * seen[0]


def test_a_dead_attempts_scratch_is_shown_and_removed_by_the_next(make_run: Callable[..., Run]) -> None:
    run = make_run(n_cells=20)
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    long_ago = time.time() - 3600
    left = []
    for process in (f"{socket.gethostname()}-{child.pid}.1", "gpu-7-4711.1"):
        path = scratch_path(run, ASSOCIATE, 0)
        folder = path.parent / f".partial-{process}-0-{path.name}"
        folder.mkdir(parents=True)
        (folder / "bucket").write_bytes(bytes(5000))
        os.utime(folder, (long_ago, long_ago))
        left.append(folder)
    other = path.parent / ".partial-gpu-7-4711.1-0-associate_layer_07"
    other.mkdir()
    os.utime(other, (long_ago, long_ago))
    assert sum(map(bytes_of, find_leftovers(run))) == 10000
    remove_leftovers_of(run, ASSOCIATE, 0)
    assert not any(folder.exists() for folder in left)
    assert other.exists(), "another task's, of a process that may be alive"
