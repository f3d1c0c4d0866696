"""Sweeps: the grid, a real one on this machine and on Slurm, coming back to one, and its table and figure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import hypothesis.strategies as st
import pandas as pd
import pytest
from hypothesis import given

from sae_genomics.atomic import read_json
from sae_genomics.cluster.sweep import make_sweep, parse_axis
from sae_genomics.cluster.sweep_figure import frontier
from sae_genomics.errors import UserError
from tests.cluster.tiny import ROOT


def sweep_command(run, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "scripts/sweep.py", "--config", str(run.config), *arguments],
        cwd=ROOT, env=run.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
        # Under nohup, or in a CI that ignores it, SIGHUP would be ignored by whatever is started from here.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )  # fmt: skip


def finish(started: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    output, error = started.communicate(timeout=600)
    return subprocess.CompletedProcess(started.args, started.returncode, output, error)


def check_table(path: str, layers: set[int]) -> None:
    table = pd.read_csv(path, sep="\t")
    assert set(table["layer"]) == layers
    assert sorted(set(table["k"])) == [2, 4]
    assert len(table) == 4 * len(layers)
    assert table.groupby("k")["l0"].mean().is_monotonic_increasing
    assert table["fvu"].between(0, 1.5).all()
    # Every SAE of the table is one of its own, where the table says.
    assert table["fvu"].nunique() == len(table)


@pytest.mark.slow
def test_on_this_machine_surviving_its_terminal(template, tmp_path, shared_run):
    run = shared_run(template, tmp_path / "run")
    arguments = ["--grid", "sae.k=2,4", "--grid", "sae.d_sae=16,32", "--layers", "0", "--local", "--name", "s"]
    first = sweep_command(run, *arguments)
    jobs = run.run.logs / "sweeps" / "s" / "jobs.json"
    deadline = time.monotonic() + 120
    while not jobs.exists():
        assert time.monotonic() < deadline, first.communicate()
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGHUP)  # the terminal closes: everything in its session hears it
    first.wait(60)
    assert first.returncode != 0
    again = finish(sweep_command(run, *arguments))
    assert again.returncode == 0, again.stderr
    assert "attached to" in again.stderr
    check_table(again.stdout.strip(), {0})
    assert len(read_json(jobs)) == 1
    assert (run.run.results / "sweeps" / "s" / "frontier.png").stat().st_size > 5000
    third = finish(sweep_command(run, *arguments))
    assert "4 of 4 SAEs trained" in third.stderr
    assert len(read_json(jobs)) == 1
    # The run's own SAEs are no business of a sweep.
    assert run.state("train", 0) == "missing"


@pytest.mark.slurm
def test_on_slurm(extracted, quiet):
    run = extracted
    arguments = ["--grid", "sae.k=2,4", "--grid", "sae.d_sae=16,32", "--layers", "1", "--name", "s"]
    detached = finish(sweep_command(run, *arguments, "--detach"))
    assert detached.returncode == 0, detached.stderr
    assert len(quiet.queue()) == 4
    assert len(finish(sweep_command(run, *arguments, "--detach")).stderr.splitlines()) >= 1
    assert len(quiet.queue()) == 4, "attached, not submitted again"
    done = finish(sweep_command(run, *arguments))
    logs = "\n".join(path.read_text() for path in (run.run.logs / "sweeps/s").glob("*.err"))
    assert done.returncode == 0, done.stderr + logs
    check_table(done.stdout.strip(), {1})
    assert quiet.queue() == []


def test_mistakes(template, tmp_path, shared_run):
    run = shared_run(template, tmp_path / "run")

    def refused(*grid: str, layers: str | None = None) -> str:
        with pytest.raises(UserError) as error:
            make_sweep(run.config, [], grid, layers, None)
        return str(error.value)

    assert "expected sae.key=value" in refused("k=1,2")
    assert "names a value twice" in refused("sae.k=2,2")
    assert "a sweep needs a grid" in refused()
    assert "unknown key sae.kk; did you mean" in refused("sae.kk=2")
    assert "expected sae.key=value" in refused("model.hook=mlp_out,attn_out")
    assert "has no layer 7; it has 0, 1, 2" in refused("sae.k=2", layers="0,7")
    assert "k = 64 is more than" in refused("sae.k=64")
    run.run.tokens_file(0).unlink()
    assert "1 of 2 shards are not done" in refused("sae.k=2")


def test_axis_values_are_read_as_yaml():
    assert parse_axis("sae.lr=1e-3,0.5") == [("sae.lr", 1e-3), ("sae.lr", 0.5)]
    assert parse_axis("sae.architecture=topk,batchtopk")[1] == ("sae.architecture", "batchtopk")


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1)), max_size=30))
def test_frontier_is_what_nothing_beats(points):
    best = frontier(points)
    beaten = {p for p in points if any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)}
    assert set(best) == set(points) - beaten
