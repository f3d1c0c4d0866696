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
from sae_genomics.cluster import sweep_jobs
from sae_genomics.cluster.lock import process_start
from sae_genomics.cluster.sweep import make_sweep, parse_axis, write_results
from sae_genomics.cluster.sweep_figure import frontier
from sae_genomics.cluster.sweep_worker import train_one
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
    assert {"stability", "n_annotated", "n_terms", "score", "beaten_by"} <= set(table)


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


@pytest.mark.slow
def test_on_this_machine_it_ends_by_itself(template, tmp_path, shared_run):
    """Nobody takes its children from it: those that ended are zombies until it asks."""
    run = shared_run(template, tmp_path / "run")
    started = sweep_command(run, "--grid", "sae.k=2,4", "--layers", "0", "--local", "--parallel", "2", "--name", "s")
    try:
        output, error = started.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        started.kill()
        raise AssertionError(f"still waiting: {started.communicate()[1]}") from None
    assert started.returncode == 0, error
    assert "2 of 2 SAEs trained" in error
    assert output.strip().endswith("sweep.tsv")


def test_centre_is_swept_and_compared_on_the_whole_activation(template, tmp_path, shared_run):
    run = shared_run(template, tmp_path / "run")
    grid = ["sae.centre=none,unit", "sae.expansion=1", "sae.k=2"]
    sweep = make_sweep(run.config, ["sae.stability=true"], grid, "0", "c")
    for point, task in sweep.open():
        assert train_one(sweep.at(point), task) == 0
        means = sweep.at(point).sae_dir(0) / "unit_means.safetensors"
        assert means.exists() == ("unit" in point.name)
    table = pd.read_csv(write_results(sweep), sep="\t", keep_default_na=False, na_values=[""])
    assert table["centre"].tolist() == ["none", "unit"]
    assert table[["fvu", "fvu_centred", "identity_variance", "stability"]].notna().all(axis=None)
    assert table["identity_variance"].nunique() == 1  # the rows and the means are the same
    rest = 1 - table["identity_variance"].to_numpy()
    assert (table["fvu"] / table["fvu_centred"]).to_numpy() == pytest.approx(rest, rel=1e-4)
    assert sweep.open() == []


def test_a_zombie_has_ended():
    child = subprocess.Popen([sys.executable, "-c", ""])
    deadline = time.monotonic() + 60
    while process_start(child.pid) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert child.wait() == 0


@pytest.fixture
def fake_slurm(tmp_path):
    """fake_slurm(answer of sbatch): PATH with a Slurm that notes how sbatch was called."""

    def make(sbatch: str) -> str:
        folder = tmp_path / "slurm tools"
        folder.mkdir()
        programs = {
            "scontrol": "exit 0",
            "squeue": "exit 0",
            "sbatch": f"printf '%s\\n' \"$@\" >'{tmp_path}/called'\n{sbatch}",
        }
        for name, body in programs.items():
            (folder / name).write_text(f"#!/bin/sh\n{body}\n")
            (folder / name).chmod(0o755)
        return f"{folder}:{os.environ['PATH']}"

    return make


def test_a_refusal_of_sbatch_is_one_line_and_nothing_is_noted(template, tmp_path, shared_run, fake_slurm):
    run = shared_run(template, tmp_path / "run")
    run.environment["PATH"] = fake_slurm("echo 'sbatch: error: invalid partition specified: nope' >&2; exit 1")
    before = {path for path in run.run.logs.rglob("*") if path.is_dir() or path.suffix == ".json"}
    done = finish(sweep_command(run, "--grid", "sae.k=2,4", "--name", "s", "--detach"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "error: sbatch refused the sweep: invalid partition specified: nope" in done.stderr
    after = {path for path in run.run.logs.rglob("*") if path.is_dir() or path.suffix == ".json"}
    assert after - before <= {run.run.logs / "sweeps", run.run.logs / "sweeps/s"}


def test_further_options_of_the_profile_reach_sbatch_as_they_were_typed(template, tmp_path, shared_run, fake_slurm):
    run = shared_run(template, tmp_path / "run")
    run.environment["PATH"] = fake_slurm("echo 7")
    run.profile.update(signal_seconds=33, max_requeues=4, environment={"kind": "conda", "conda": "mine"})
    run.profile["defaults"]["extra"] = ["-p", "shared", "--expo=NONE"]
    run.write()
    done = finish(sweep_command(run, "--grid", "sae.k=2,4", "--layers", "1", "--name", "s", "--detach"))
    assert done.returncode == 0, done.stderr
    words = (tmp_path / "called").read_text().splitlines()
    place = words.index("-p")
    assert words[place : place + 3] == ["-p", "shared", "--expo=NONE"]
    assert "--export=ALL" not in words
    assert {"--signal=B:USR1@33", "--requeue", "--array=0-1%20", "--time=00:30:00"} <= set(words)
    assert words[-2].endswith("slurm/sweep.sh")
    assert [job["id"] for job in read_json(run.run.logs / "sweeps/s/jobs.json")] == ["7_0", "7_1"]


@pytest.mark.slurm
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_at_the_time_limit_it_is_requeued_and_goes_on(extracted, quiet, steps_a_second):
    """The shortest limit of Slurm, a minute, and a signal 30 s before it: 80 s of training do not fit in."""
    run = extracted
    run.values["sae"].update(steps=int(80 * steps_a_second), log_every=1000)
    run.profile.update(signal_seconds=30, stages={"train": {"time": "00:01:00"}})
    run.write()
    done = finish(sweep_command(run, "--grid", "sae.k=2", "--layers", "1", "--name", "s"))
    logs = "\n".join(path.read_text() for path in (run.run.logs / "sweeps/s").glob("*.err"))
    assert done.returncode == 0, done.stderr + logs
    assert logs.count("saved and requeued: restart") >= 1, logs
    assert "goes on from step" in logs
    assert "ended with exit code 0" in logs
    assert "Traceback" not in logs


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


@pytest.mark.parametrize(
    ("variables", "environment", "words"),
    [
        ({"SBATCH_WAIT": "1"}, {}, "type: unset SBATCH_WAIT"),
        ({}, {"kind": "conda", "conda": "/nowhere/env"}, "there is no Python in /nowhere/env"),
    ],
)
def test_what_every_job_would_fail_with_is_told_before_anything_is_submitted(
    template, tmp_path, shared_run, fake_slurm, variables, environment, words
):
    run = shared_run(template, tmp_path / "run")
    run.environment.update(variables, PATH=fake_slurm("echo 7"))
    run.profile["environment"] = environment
    run.write()
    before = sorted(run.folder.rglob("*"))
    done = finish(sweep_command(run, "--grid", "sae.k=2,4", "--name", "s", "--detach"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert words in done.stderr
    assert sorted(run.folder.rglob("*")) == before
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("key", ["logs", "results", "checkpoints"])
@pytest.mark.parametrize("in_the_way", ["sweeps", "sweeps/s"])
def test_a_folder_that_cannot_be_made_is_told_before_anything_is_submitted(
    template, tmp_path, shared_run, fake_slurm, key, in_the_way
):
    run = shared_run(template, tmp_path / "run")
    run.environment["PATH"] = fake_slurm("echo 7")
    file = getattr(run.run, key) / in_the_way
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("somebody's")
    before = sorted(run.folder.rglob("*"))
    done = finish(sweep_command(run, "--grid", "sae.k=2,4", "--name", "s", "--detach"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert f"{file} is not a folder; set paths.{key} to a folder that you can write to" in done.stderr
    assert sorted(run.folder.rglob("*")) == before
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize(
    ("layers", "words"), [("1", "1 SAE was not trained: k=2 layer 1;"), ("0,1", "2 SAEs were not trained: k=2 layer 0")]
)
def test_one_sae_is_no_plural(template, tmp_path, shared_run, monkeypatch, capsys, layers, words):
    run = shared_run(template, tmp_path / "run")
    monkeypatch.setattr(sweep_jobs, "_submit", lambda *arguments: [])
    sweep = make_sweep(run.config, [], ["sae.k=2"], layers, "s")
    assert sweep_jobs.run_sweep(sweep, local=True, dry_run=True) == 0
    assert f"{words.partition(' w')[0]} to train" in capsys.readouterr().err
    assert sweep_jobs.run_sweep(sweep, local=True) == 2
    assert f"error: {words}" in capsys.readouterr().err


def test_axis_values_are_read_as_yaml():
    assert parse_axis("sae.lr=1e-3,0.5") == [("sae.lr", 1e-3), ("sae.lr", 0.5)]
    assert parse_axis("sae.architecture=topk,batchtopk")[1] == ("sae.architecture", "batchtopk")


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1)), max_size=30))
def test_frontier_is_what_nothing_beats(points):
    best = frontier(points)
    beaten = {p for p in points if any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)}
    assert set(best) == set(points) - beaten
