"""Printed commands, typed as they stand: each acts on the run that it was printed for, also on one that --set named."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sae_genomics.cluster.arrays import Array
from sae_genomics.cluster.profile import Profile
from sae_genomics.cluster.sbatch import make_call
from sae_genomics.commands import REPOSITORY, command, config_words
from sae_genomics.config import dump_config, load_config
from sae_genomics.run import Run
from sae_genomics.stages import stage_named
from tests.cluster.tiny import TinyRun

SETTINGS = ("run.name=x", "validation.gmt=[]", "report.top_features=7")
SET = [word for each in SETTINGS for word in ("--set", each)]


@pytest.fixture
def tiny(tmp_path: Path) -> TinyRun:
    environment = {**os.environ, "SAE_GENOMICS_PYTHON": sys.executable}
    environment.pop("SLURM_CONF", None)
    return TinyRun(tmp_path / "a folder", environment, layers=(0,), shards=1)


def typed(line: str, tiny: TinyRun, folder: Path, code: int = 0) -> str:
    """Type a line into bash in some folder; returns what it said."""
    done = subprocess.run(["bash", "-c", line], env=tiny.environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == code, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def test_the_reports_and_the_statuss_command_act_on_the_run_that_set_named(tiny, tmp_path):
    tiny.pipeline(*SET)
    results = tiny.folder / "results"
    report = (results / "x" / "report.md").read_text()
    following = report[report.index("## What to do next") :]
    printed = re.search(r"```bash\n(bash .*)\n```", following)
    assert printed, following
    assert "`run.name=x`" in following
    (results / "x" / "layer_00" / "features.parquet").unlink()

    status = typed(re.sub("00_full_pipeline", "status", printed[1]), tiny, tmp_path)
    assert status.startswith("run x ")
    next_step = status.strip().splitlines()[-1].removeprefix("next: ")
    assert next_step.startswith("bash ")
    for line in (next_step, printed[1]):
        said = typed(line, tiny, tmp_path)
        assert "run x:" in said
    assert (results / "x" / "layer_00" / "features.parquet").exists()
    assert sorted(path.name for path in results.iterdir()) == ["x"]


def test_the_command_that_an_error_names_makes_what_is_missing(tiny):
    script = f"{sys.executable} {REPOSITORY}/scripts/03_train.py --config '{tiny.config}' {' '.join(map(repr, SET))}"
    said = typed(script, tiny, REPOSITORY, code=2)
    for code in (2, 0):  # extract needs prepare
        said = typed(re.search(r"; run (.*)", said)[1], tiny, REPOSITORY, code)
    assert (tiny.folder / "results" / "x" / "prepare" / "plan.json").exists()
    assert not (tiny.folder / "results" / "tiny").exists()


def test_a_job_knows_the_settings_that_its_report_repeats(make_run):
    run = make_run()
    run.overrides = SETTINGS
    call = make_call(run, Profile(), Array("report", stage_named("report"), None, 0, 1, (0,), ()), Path("copy.yaml"))
    given = [value for word, value in zip(call.arguments, call.arguments[1:], strict=False) if word == "--set"]
    assert given == list(SETTINGS)


def test_settings_may_be_set_once_more_on_the_copy_that_holds_them(tiny):
    """What a job does."""
    once = load_config(tiny.config, SETTINGS)
    copy = tiny.folder / "copy.yaml"
    copy.write_text(dump_config(once))
    assert load_config(copy, SETTINGS) == once


def test_commands_are_short_in_the_repository_and_whole_elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(REPOSITORY)
    demo = REPOSITORY / "configs" / "demo.yaml"
    run = Run(load_config(demo, ["run.name=x"]), demo, ["run.name=x"])
    assert command("status", run, "--watch") == "bash slurm/status.sh configs/demo.yaml --set run.name=x --watch"
    own = tmp_path / "own.yaml"
    own.write_text("data: {path: x.h5ad}\n")
    assert command("resubmit", Run(load_config(own), own)) == f"bash {REPOSITORY}/slurm/resubmit_failed.sh {own}"
    monkeypatch.chdir(tmp_path)  # relative paths of the config count from here
    assert command("pipeline", Run(load_config(own), own)) == f"{sys.executable} -m sae_genomics.cli pipeline own.yaml"
    assert config_words(Run(load_config(own), own, ["a.b=[1, 2]"])) == "own.yaml --set 'a.b=[1, 2]'"
