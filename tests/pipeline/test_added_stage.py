"""A stage that another package brings: one per layer, with a check, a cost and a file, through every command a person types."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from sae_genomics import stages
from sae_genomics.stage import Stage
from sae_genomics.stages import STAGES, register, stage_named
from tests.cluster.tiny import TinyRun
from tests.pipeline.packages import install
from tests.stage_names import EVERY

MODULE = """
import json

import pandas as pd

from sae_genomics.data.plan import Cost
from sae_genomics.errors import UserError
from sae_genomics.stage import Stage
from sae_genomics.stages import stage_named


def files(run, task):
    return {run.layer_results(run.layers[task]) / "count.json": {"layer": run.layers[task]}}


def work(run, task):
    folder = run.layer_results(run.layers[task])
    (folder / "count.json").write_text(json.dumps({"n_features": len(pd.read_parquet(folder / "features.parquet"))}))


def check(run):
    if run.config.report.top_features == 7:
        raise UserError("report.top_features = 7 cannot be counted; set another")


def cost(workload):
    return Cost(disk_bytes=11 * workload.n_layers, memory_bytes=12, seconds=13)


COUNT = Stage(
    name="count", number=10, unit="layer", needs=(stage_named("associate"),), reads=(stage_named("associate"),),
    keys=("report.top_features",), root="results", function="counting:work", files=files,
    check="counting:check", cost="counting:cost", contributions=("counting_report:COUNTS",),
)
"""
REPORT = """
from sae_genomics.report.contribution import Contribution


def section(contents):
    return f"## Counts\\n\\n{len(contents.layers)} layers were counted."


COUNTS = Contribution(name="counts", order=70, section=section)
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A run in an environment where a package with a stage is installed, and Slurm's programs answer that nothing is queued."""
    folder = tmp_path_factory.mktemp("added")
    modules = {"counting_report.py": REPORT, "counting.py": MODULE}
    environment = install(folder / "site", modules, {"sae_genomics.stages": "count = counting:COUNT"})
    tools = folder / "bin"
    tools.mkdir()
    for name, script in {"sbatch": "", "squeue": "", "scontrol": "echo MaxArraySize = 1001"}.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    environment["PATH"] = f"{tools}:{environment['PATH']}"
    return TinyRun(folder / "run", environment)


def test_its_check_refuses_before_anything_is_written(tiny: TinyRun) -> None:
    refused = tiny.pipeline("--local", "--set", "report.top_features=7", check=False)
    assert refused.returncode == 2
    assert refused.stderr.strip() == "error: report.top_features = 7 cannot be counted; set another"
    assert not tiny.run.results.exists()


def test_it_is_planned_before_the_report(tiny: TinyRun) -> None:
    plan = tiny.pipeline("--slurm", "--dry-run")
    commands = dict(line.split("=$(", 1) for line in plan.stdout.splitlines())
    assert list(commands) == [*EVERY[:-1], "count", "report"]
    assert "--dependency=aftercorr:${associate}" in commands["count"]
    assert re.search(r"slurm/stage\.sh count \S+", commands["count"])
    assert ":${count}" in re.search(r"--dependency=(\S+)", commands["report"])[1]
    assert "10 count       0 of 2 done, 2 to do" in plan.stderr


def test_it_runs_is_shown_and_resubmitted(tiny: TinyRun) -> None:
    done = tiny.pipeline("--local")
    assert "count layer_01: done" in done.stderr
    tables = [tiny.run.layer_results(layer) / "count.json" for layer in (0, 1)]
    assert [json.loads(table.read_text())["n_features"] > 0 for table in tables] == [True, True]
    assert "## Counts\n\n2 layers were counted." in tiny.run.report_file.read_text()
    estimates = {each["stage"]: each for each in json.loads(tiny.run.plan_file.read_text())["estimates"]}
    assert (estimates["count"]["disk_bytes"], estimates["count"]["memory_bytes"]) == (22, 12)
    assert {state["state"] for state in tiny.tasks().values()} == {"done"}

    tables[1].unlink()
    states = {task: state["state"] for task, state in tiny.tasks().items()}
    assert {task: state for task, state in states.items() if state != "done"} == {
        ("count", "layer_01"): "missing",
        ("report", "run"): "stale",
    }
    again = tiny.resubmit("--dry-run")
    assert [line.split("=$(", 1)[0] for line in again.stdout.splitlines()] == ["count", "report"]
    assert re.search(r"--array=1(?:%\d+)? ", again.stdout)
    tiny.pipeline("--local")
    assert tables[1].exists()
    assert {state["state"] for state in tiny.tasks().values()} == {"done"}


@pytest.fixture
def added() -> Iterator[Stage]:
    """A stage that is in the list for one test."""
    before = list(STAGES)
    needs = (stage_named("train"),)
    stage = Stage("more", 11, "layer", needs, needs, (), "results", "nowhere:work", lambda run, task: {})
    register(stage)
    yield stage
    STAGES[:] = before


def test_what_is_made_of_everything_needs_an_added_stage(added: Stage) -> None:
    report = STAGES[-1]
    assert report.partial
    assert report.needs == tuple(STAGES[:-1])
    assert added in report.needs
    assert added in report.reads


def test_a_name_or_number_is_taken_once(added: Stage) -> None:
    for name, number in (("more", 12), ("others", 11), ("train", 12)):
        with pytest.raises(ValueError, match="there is a stage of that name or number"):
            register(Stage(name, number, "run", (), (), (), "results", "nowhere:work", lambda run, task: {}))
    assert len(stages.STAGES) == len({stage.name for stage in stages.STAGES})
