"""Stages that some runs have and others do not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from sae_genomics import cli
from sae_genomics.cluster.local import run_locally
from sae_genomics.cluster.pipeline import pipeline
from sae_genomics.cluster.plan import make_plan
from sae_genomics.cluster.resubmit import with_what_hangs_on
from sae_genomics.data.kinds import kind_named
from sae_genomics.errors import UserError
from sae_genomics.run import Run
from sae_genomics.stage import Stage
from sae_genomics.stages import STAGES, register, stage_named, stage_of, stages_of
from tests.stage_names import EVERY, TURNED_OFF

Add = Callable[[Callable[[Run], bool]], Stage]


@pytest.fixture
def add() -> Iterator[Add]:
    """add(applies): a stage `more`, after train, of the runs that `applies` tells, and of these `report` is made too."""
    before = list(STAGES)

    def files(run: Run, task: int) -> dict:
        return {run.layer_results(run.layers[task]) / "more.txt": {"layer": run.layers[task]}}

    def added(applies: Callable[[Run], bool]) -> Stage:
        needs = (stage_named("train"),)
        stage = Stage("more", 10, "layer", needs, needs, (), "results", "nowhere:work", files, applies=applies)
        register(stage)
        return stage

    yield added
    STAGES[:] = before


def test_gene_sets_are_for_cells():
    def run_of(kind: str) -> SimpleNamespace:
        off = SimpleNamespace(**{name: SimpleNamespace(enabled=False) for name in TURNED_OFF})
        return SimpleNamespace(name="r", kind=kind_named(kind), config=off)

    assert stage_named("validate") in stages_of(run_of("cells"))
    assert [stage.name for stage in stages_of(run_of("proteins"))] == [name for name in EVERY if name != "validate"]
    with pytest.raises(UserError, match=r"^stage validate does not apply to run r; its stages are prepare, .*report$"):
        stage_of(run_of("proteins"), "validate")


def test_a_stage_that_does_not_apply_changes_nothing(make_run, stages_write_files, add: Add):
    run = make_run()
    assert run_locally(run) == 0
    report = run.base_fingerprint(STAGES[-1])
    ran = list(stages_write_files)
    more = add(lambda run: False)
    again = make_run()
    assert again.base_fingerprint(STAGES[-1]) == report
    assert all(state.done for stage in stages_of(again) for state in again.states(stage))
    plans = make_plan(again, from_stage="prepare")
    assert more not in [plan.stage for plan in plans]
    assert len(with_what_hangs_on(plans, {("prepare", 0)}, {})) == len(plans)
    stages_write_files.clear()
    assert run_locally(again, from_stage="prepare") == 0
    assert stages_write_files == ran


def test_a_stage_that_applies_is_waited_for(make_run, stages_write_files, add: Add):
    run = make_run()
    assert run_locally(run) == 0
    add(lambda run: True)
    again = make_run()
    assert again.state(STAGES[-1], 0).status == "stale"
    stages_write_files.clear()
    assert run_locally(again) == 0
    assert stages_write_files == [("more", 0), ("more", 1), ("report", 0)]
    assert all(state.done for stage in stages_of(again) for state in again.states(stage))


def test_asking_for_a_stage_that_does_not_apply_is_refused_in_one_line(make_run, monkeypatch, add: Add, capsys):
    add(lambda run: False)
    run = make_run()
    monkeypatch.setattr("sae_genomics.cluster.pipeline.Run", lambda *arguments: run)
    words = "stage more does not apply to run t; its stages are prepare, extract, train, associate, validate, report"
    with pytest.raises(UserError, match=f"^{words}$"):
        pipeline(run.config_file, from_stage="more", local=True)
    assert not run.results.exists()

    monkeypatch.setattr(Run, "check", lambda self, *arguments, **named: None)
    monkeypatch.setattr(cli, "load_config", lambda *arguments: run.config)
    monkeypatch.setattr(cli, "Run", lambda *arguments: run)
    assert cli.main(["stage", "more", "--config", str(run.config_file)]) == 2
    assert f"error: {words}" in capsys.readouterr().err


def test_what_runs_stages_names_none():
    package = Path(cli.__file__).parent
    modules = [*package.glob("*.py"), *(package / "cluster").glob("*.py")]
    # (A sweep does one stage at each of its points, and says which in a constant.)
    names = re.compile(f'stage_named\\("|name [!=]= "({"|".join(stage.name for stage in STAGES)})"')
    named = {path for path in modules if path.name != "stages.py" and names.search(path.read_text())}
    assert not named
