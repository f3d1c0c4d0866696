"""Mistakes that can be known before anything is submitted or run: told in one line, and sbatch is never called."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from sae_genomics.cluster import ready
from sae_genomics.cluster.local import run_locally
from sae_genomics.cluster.pipeline import pipeline
from sae_genomics.cluster.profile import Profile
from sae_genomics.cluster.ready import check_jobs, check_packages
from sae_genomics.errors import UserError
from tests.cluster.tiny import TinyRun


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    for name in ("SAE_GENOMICS_PYTHON", "SAE_GENOMICS_VENV", "SAE_GENOMICS_CONDA", "SAE_GENOMICS_IMAGE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"kind": "conda"}, "environment.kind is conda, but no conda environment is named; set environment.conda"),
        ({"kind": "conda", "conda": "/nowhere/env"}, "environment.conda: there is no Python in /nowhere/env"),
        ({"kind": "apptainer"}, "environment.kind is apptainer, but no image is named; set environment.image"),
        ({"kind": "apptainer", "image": "/nowhere/i.sif"}, "there is no /nowhere/i.sif; build it with: apptainer build /nowhere/i.sif"),
        ({"venv": "/nowhere/venv"}, "environment.venv: there is no Python in /nowhere/venv; make it with: SAE_GENOMICS_VENV=/nowhere/venv bash"),
        ({"python": "/nowhere/python3"}, "environment.python: /nowhere/python3 was not found"),
    ],
)  # fmt: skip
def test_an_environment_that_is_not_there_is_told_before_anything_is_submitted(
    tmp_path, monkeypatch, environment, words
):
    tiny = TinyRun(tmp_path / "run", {})
    tiny.profile["environment"] = environment
    tiny.write()
    for name in ("sbatch", "squeue", "scontrol"):
        (tmp_path / name).write_text(f"#!/bin/sh\n[ {name} != sbatch ] || touch {tmp_path}/called\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for dry_run in (False, True):
        with pytest.raises(UserError) as error:
            pipeline(tiny.config, slurm=True, dry_run=dry_run)
        assert words in str(error.value)
        assert str(tiny.folder / "cluster.yaml") in str(error.value)
    assert not (tmp_path / "called").exists()
    assert not tiny.run.logs.exists()


def test_environments_that_are_there(make_run, tmp_path, monkeypatch):
    python = tmp_path / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    shutil.copy(shutil.which("true"), python)
    (tmp_path / "i.sif").touch()
    for environment in (
        {"kind": "venv", "venv": tmp_path / "env"},
        {"kind": "venv", "python": sys.executable},
        {"kind": "conda", "conda": str(tmp_path / "env")},
        {"kind": "conda", "conda": "by_name"},
        {"kind": "modules", "modules": ["python"]},
        {"kind": "apptainer", "image": tmp_path / "i.sif"},
    ):
        check_jobs(make_run(), Profile.model_validate({"environment": environment}))
    monkeypatch.setenv("SAE_GENOMICS_CONDA", "mine")
    check_jobs(make_run(), Profile.model_validate({"environment": {"kind": "conda"}}))


def test_a_logger_that_is_not_installed_is_told_before_training(make_run, stages_write_files, monkeypatch):
    run = make_run(sae={"loggers": ["wandb", "tensorboard"]})
    monkeypatch.setattr(ready, "_installed", lambda name: name == "wandb")
    words = r"sae.loggers: tensorboard is not installed; fix it with: \S+ -m pip install tensorboard"
    with pytest.raises(UserError, match=words):
        check_packages(run)
    here = Profile.model_validate({"environment": {"python": sys.executable}})
    with pytest.raises(UserError, match=words):
        check_jobs(run, here)
    elsewhere = Profile.model_validate({"environment": {"python": shutil.which("true")}})
    check_jobs(run, elsewhere)
    run_locally(run)
    check_packages(run)  # nothing is trained any more


def test_packages_are_found_as_import_finds_them(monkeypatch):
    assert ready._installed("torch")
    assert not ready._installed("no_such_package")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert not ready._installed("torch")


def test_the_local_run_looks_before_it_extracts(tmp_path, monkeypatch):
    tiny = TinyRun(Path(tmp_path) / "run", {})
    tiny.values["sae"]["loggers"] = ["tensorboard"]
    tiny.write()
    monkeypatch.setattr(ready, "_installed", lambda name: False)
    with pytest.raises(UserError, match="tensorboard is not installed"):
        pipeline(tiny.config, local=True)
    assert not tiny.run.results.exists()
