"""Folders that cannot be made or written to: one line before anything is run or submitted, and nothing written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sae_genomics.cli import main, stage_main
from sae_genomics.folders import check_folders
from sae_genomics.guard import guarded
from tests.cluster.tiny import TinyRun


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyRun:
    monkeypatch.setenv("PATH", str(tmp_path))
    return TinyRun(tmp_path / "run", dict(os.environ))


@pytest.fixture
def slurm(tmp_path: Path) -> Path:
    """A Slurm that takes everything; returns the file that would list what was submitted."""
    submitted = tmp_path / "submitted"
    for name, script in {
        "sbatch": f"echo x >>{submitted}; echo 7",
        "squeue": "",
        "scontrol": "",
        "scancel": "",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    return submitted


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


COMMANDS = {
    "local": lambda config: main(["pipeline", config, "--local"]),
    "stage": lambda config: stage_main("prepare", ["--config", config]),
    "slurm": lambda config: main(["pipeline", config, "--slurm"]),
    "dry": lambda config: main(["pipeline", config, "--slurm", "--dry-run"]),
    "resubmit": lambda config: main(["resubmit", config]),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("key", ["logs", "results", "checkpoints"])
@pytest.mark.parametrize(
    ("place", "words"), [("cells.h5ad", "cells.h5ad is not a folder"), ("/proc", "/proc takes no new folder")]
)
def test_one_line_and_nothing_submitted_or_written(tiny, slurm, capsys, command, key, place, words):
    tiny.values["paths"][key] = str(tiny.folder / place)
    tiny.write()
    before = files(tiny.folder)
    assert COMMANDS[command](str(tiny.config)) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(said) == 1, said
    assert words in said[0]
    assert f"set paths.{key} to a folder that you can write to" in said[0]
    assert files(tiny.folder) == before
    assert not slurm.exists()


def test_folders_that_can_be_made_are_not_there_afterwards(tiny):
    before = files(tiny.folder)
    check_folders(tiny.run)
    assert files(tiny.folder) == before
    tiny.run.results.mkdir(parents=True)
    check_folders(tiny.run)
    assert tiny.run.results.is_dir()
    assert not tiny.run.logs.exists()


def test_a_link_to_nowhere(tiny):
    (tiny.folder / "results").symlink_to(tiny.folder / "scratch-that-was-purged")
    with pytest.raises(Exception, match=r"results is a link to nowhere; set paths\.results"):
        check_folders(tiny.run)


def test_the_pipeline_without_a_yaml(tiny, capsys, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "scripts")
    import run_pipeline

    data = str(tiny.folder / "cells.h5ad")
    model = tiny.values["model"]["path"]
    arguments = ["--data", data, "--model-path", model, "--output", f"{data}/exp1"]
    assert guarded(lambda: run_pipeline.main(arguments)) == 2
    assert "cells.h5ad is not a folder" in capsys.readouterr().err
