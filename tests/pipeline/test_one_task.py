"""Single tasks by hand: a number out of range, a bug in one layer, a damaged input that two processes meet."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from sae_genomics.associations import task as associate_task
from sae_genomics.cli import main
from sae_genomics.cluster.attempts import attempts_of
from sae_genomics.config import load_config
from sae_genomics.run import Run
from sae_genomics.stages import stage_named
from tests.pipeline.conftest import ROOT, command, files_under, small_values
from tests.pipeline.test_resume import manifests, same_results
from tests.stage_names import EVERY


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run with everything up to the SAEs: its folder and config file."""
    folder = tmp_path_factory.mktemp("extracted")
    config = folder / "small.yaml"
    config.write_text(yaml.safe_dump(small_values(folder)))
    for stage in ("prepare", "extract", "train"):
        assert main(["stage", stage, "--config", str(config)]) == 0
    return folder, str(config)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["17", "-1"])
@pytest.mark.parametrize("stage", EVERY)
def test_a_task_out_of_range(
    stage: str, task: str, extracted: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, config = extracted
    before = files_under(folder)
    capsys.readouterr()
    assert main(["stage", stage, "--config", config, f"--task={task}"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert task in lines[0]
    assert "0 to " in lines[0] or "only task is 0" in lines[0] or "1 task" in lines[0]
    assert files_under(folder) == before, "nothing is written"


@pytest.mark.slow
def test_a_bug_in_one_layer_stops_that_layer_alone(
    extracted: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, config = extracted
    run, stage = Run(load_config(config)), stage_named("associate")
    open_layer = associate_task.open_layer

    def broken(run: Run, task: int, stack: object) -> object:
        return task + "0" if task == 0 else open_layer(run, task, stack)  # type: ignore[arg-type, operator]

    with monkeypatch.context() as patch:
        patch.setattr(associate_task, "open_layer", broken)
        assert main(["stage", "associate", "--config", config]) == 1
    assert [state.status for state in run.states(stage)] == ["missing", "done"]
    said = capsys.readouterr().err
    assert "TypeError" in said
    assert "Traceback (most recent call last)" in said
    attempt = attempts_of(run, stage, 0)[-1]
    assert (attempt.outcome, attempt.code) == ("failed", 1)
    assert "TypeError" in attempt.reason
    assert "in broken" in attempt.traceback
    assert attempts_of(run, stage, 1)[-1].outcome == "done"
    assert main(["stage", "associate", "--config", config]) == 0
    assert [state.status for state in run.states(stage)] == ["done", "done"]


@pytest.mark.slow
def test_two_processes_repair_what_both_read_once(tmp_path: Path, write_config: Callable[..., Path]) -> None:
    sound = tmp_path / "sound"
    paths = {root: str(sound / root) for root in ("checkpoints", "results", "logs")}
    config, undisturbed = str(write_config()), str(write_config("sound.yaml", paths=paths))
    for each in (config, undisturbed):
        for stage in ("prepare", "extract", "train"):
            assert main(["stage", stage, "--config", each]) == 0
    run = Run(load_config(config))
    damaged = run.tokens_file(1)
    state, content = damaged.stat(), bytearray(damaged.read_bytes())
    for at in range(len(content) // 4, len(content), 97):
        content[at] ^= 16
    damaged.write_bytes(content)
    os.utime(damaged, ns=(state.st_atime_ns, state.st_mtime_ns))
    before = manifests(tmp_path / "checkpoints")

    processes = [
        subprocess.Popen(
            command("stage", "associate", "--config", config, "--task", str(task)),
            stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for task in (0, 1)
    ]  # fmt: skip
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "".join(said).count("extract shard_0001: started") == 1, said
    assert str(damaged) in "".join(said)
    after = manifests(tmp_path / "checkpoints")
    assert {name.split("/")[-1] for name in before if after[name] != before[name]} == {"shard_0001.json"}
    assert main(["stage", "associate", "--config", undisturbed]) == 0
    same_results(sound / "results/small", tmp_path / "results/small")
