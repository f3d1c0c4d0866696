"""Interrupted is uninterrupted, bit for bit: by a signal, by kill -9, at any step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sae_genomics import progress
from sae_genomics.errors import Interrupted
from sae_genomics.progress import Progress
from sae_genomics.run import Run
from sae_genomics.sae.checkpoint import earlier_checkpoint, load_checkpoint, save_checkpoint
from sae_genomics.sae.files import SECOND_SEED
from sae_genomics.sae.log import JsonLines, Logger
from sae_genomics.sae.spec import Spec
from sae_genomics.sae.state import initial_state
from sae_genomics.sae.task import run_task
from sae_genomics.sae.train import Trained, fit
from tests.sae.conftest import MemoryBatches, planted_rows
from tests.sae.test_step import spec_of

ROOT = Path(__file__).parents[2]


class StopAfter(MemoryBatches):
    """Asks the process to stop once `steps` batches were given out, as a signal would."""

    def __init__(self, rows: torch.Tensor, batch_rows: int, steps: int, monkeypatch: pytest.MonkeyPatch):
        super().__init__(rows, batch_rows)
        self.left, self._monkeypatch = steps, monkeypatch

    def __next__(self) -> torch.Tensor:
        self.left -= 1
        if self.left == 0:
            self._monkeypatch.setattr(progress, "_stop_signal", signal.SIGTERM)
        return super().__next__()


def train(spec: Spec, batches: MemoryBatches, folder: Path, every_seconds: float = 1e9) -> Trained:
    def loggers(step: int) -> list[Logger]:
        return [JsonLines(folder / "metrics.jsonl", step)]

    return fit(
        spec, batches, layer=0, normalise=True, checkpoint=folder / "checkpoint" / "c.safetensors", fingerprint="f",
        open_loggers=loggers, progress=Progress("train", None, "tokens"), log_every=2,
        checkpoint_every_seconds=every_seconds,
    )  # fmt: skip


def logged(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka", "jumprelu"])
def test_stopped_at_several_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str) -> None:
    rows, _ = planted_rows(700, 40, 24, 4, seed=2)
    # latents die within these steps, so the dead-latent loss and its counters take part
    spec = spec_of(
        24, architecture=architecture, d_sae=200, k=4, steps=41, batch_tokens=64, lr=3e-3, dead_after_tokens=256,
        lr_warmup_steps=4, auxk_coefficient=0.1,
    )  # fmt: skip
    whole = train(spec, MemoryBatches(rows, 64), tmp_path / "whole")
    assert logged(tmp_path / "whole")[-1]["dead_share"] > 0 or architecture == "jumprelu"
    for steps in (1, 2, 9, 17):
        with pytest.raises(Interrupted):
            train(spec, StopAfter(rows, 64, steps, monkeypatch), tmp_path / "cut")
        monkeypatch.setattr(progress, "_stop_signal", None)
    cut = train(spec, MemoryBatches(rows, 64), tmp_path / "cut")
    assert cut.state.step == whole.state.step == 41
    assert cut.tokens == whole.tokens
    assert cut.scale == whole.scale
    for name, tensor in whole.state.tensors().items():
        assert torch.equal(tensor, cut.state.tensors()[name]), name
    assert logged(tmp_path / "cut") == logged(tmp_path / "whole")


def test_a_checkpoint_of_another_config_is_left_alone(tmp_path: Path) -> None:
    spec = spec_of(8, d_sae=16, k=2)
    state = initial_state(spec, torch.zeros(8), 0)
    file = tmp_path / "c.safetensors"
    save_checkpoint(file, state, {"fingerprint": "a"})
    assert load_checkpoint(file, "b") is None
    assert load_checkpoint(file, "a") is not None
    file.write_bytes(file.read_bytes()[:100])
    assert load_checkpoint(file, "a") is None
    file.write_bytes(b"")
    assert load_checkpoint(file, "a") is None


def flip(path: Path, at: int) -> None:
    """Change a byte as a failing disk does it: neither size nor time tell."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_every_byte_of_a_checkpoint_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, copy = tmp_path / "c.safetensors", tmp_path / "copy.safetensors"
    save_checkpoint(file, initial_state(spec_of(4, d_sae=8, k=2), torch.ones(4), 0), {"fingerprint": "a", "tokens": 7})
    size = file.stat().st_size
    header = int.from_bytes(file.read_bytes()[:8], "little")
    for at in [*range(8 + header), *range(8 + header, size, 37), size - 1]:
        copy.write_bytes(file.read_bytes())
        flip(copy, at)
        assert load_checkpoint(copy, "a") is None, at
        assert str(copy) in capsys.readouterr().err, at
        assert not copy.exists()
    assert load_checkpoint(file, "a") is not None


@pytest.mark.parametrize("damaged", ["last", "both"])
@pytest.mark.parametrize("part", ["header", "weights"])
def test_a_damaged_checkpoint_is_named_and_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], damaged: str, part: str
) -> None:
    rows, _ = planted_rows(700, 40, 24, 4, seed=2)
    spec = spec_of(24, d_sae=40, k=4, steps=20, batch_tokens=64, lr=3e-3)
    whole = train(spec, MemoryBatches(rows, 64), tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(spec, StopAfter(rows, 64, 20, monkeypatch), tmp_path / "cut", every_seconds=0.0)  # 11 are for the scale
    monkeypatch.setattr(progress, "_stop_signal", None)
    last = tmp_path / "cut" / "checkpoint" / "c.safetensors"
    before = earlier_checkpoint(last)
    for file in [last] if damaged == "last" else [last, before]:
        at = file.read_bytes().index(b'\\"tokens\\": ') + 13 if part == "header" else file.stat().st_size - 1000
        flip(file, at)
    capsys.readouterr()
    cut = train(spec, MemoryBatches(rows, 64), tmp_path / "cut")
    said = capsys.readouterr().err
    assert f"{last} cannot be used: its content is not what was written" in said
    assert (f"{before} cannot be used" in said) == (damaged == "both")
    assert ("goes on from step" in said) == (damaged == "last")
    assert (cut.state.step, cut.tokens) == (whole.state.step, whole.tokens)
    for name, tensor in whole.state.tensors().items():
        assert torch.equal(tensor, cut.state.tensors()[name]), name
    assert logged(tmp_path / "cut") == logged(tmp_path / "whole")
    assert not before.exists() or load_checkpoint(before, "f") is not None, "no damaged one is kept"


def test_lines_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 2}\n{"step": 4}\n{"step": 6}\n{"st')
    log = JsonLines(file, 4)
    log.log({"step": 5})
    log.close()
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [2, 4, 5]


_CHILD = """
import sys, pickle
from pathlib import Path
import torch
torch.set_num_threads(1)
from sae_genomics.sae.task import run_task
from sae_genomics.config import RunConfig
from sae_genomics.run import Run
from sae_genomics.models import ModelInfo
folder = Path(sys.argv[1])
run = Run(RunConfig.model_validate_json((folder / "config.json").read_text()))
run.__dict__.update(layers=[1], model_info=ModelInfo("tx1", "toy", 2, 16, 2, 64, 0, "abc"),
                    content_hashes={"data": "d", "model": "m"}, n_items=40, data_files=[folder / "cells.h5ad"])
run_task(run, 0)
"""


@pytest.mark.slow
def test_killed_without_warning(make_run: Callable[..., Run], tmp_path: Path) -> None:
    """kill -9 at three moments; the task then ends with the weights of one that was never killed."""
    settings: dict[str, Any] = {"steps": 4000, "checkpoint_every_seconds": 0.02}
    whole = make_run(name="whole", **settings)
    run_task(whole, 0)
    cut = make_run(name="cut", **settings)
    (tmp_path / "config.json").write_text(cut.config.model_dump_json())
    checkpoint = cut.sae_dir(1) / "checkpoint" / "training.safetensors"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    stamps = set()
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(tmp_path)], env=environment, stderr=subprocess.DEVNULL
        )
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
        deadline = time.monotonic() + 120
        while child.poll() is None and time.monotonic() < deadline:
            if checkpoint.exists() and checkpoint.stat().st_mtime_ns != before:
                break
            time.sleep(0.005)
        time.sleep(0.05)
        assert child.poll() is None, "training ended before it could be killed"
        child.kill()
        child.wait()
        stamps.add(checkpoint.stat().st_mtime_ns)
    assert len(stamps) == 3
    subprocess.run([sys.executable, "-c", _CHILD, str(tmp_path)], env=environment, check=True, capture_output=True)
    theirs = load_file(whole.sae_dir(1) / "sae_weights.safetensors")
    ours = load_file(cut.sae_dir(1) / "sae_weights.safetensors")
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


@pytest.mark.slow
def test_killed_in_the_second_seed(make_run: Callable[..., Run], tmp_path: Path) -> None:
    """kill -9 while the second SAE is trained: the first is not trained again, the second goes on from its own checkpoint."""
    settings: dict[str, Any] = {"steps": 4000, "checkpoint_every_seconds": 0.02, "stability": True}
    whole = make_run(name="whole", **settings)
    run_task(whole, 0)
    cut = make_run(name="cut", **settings)
    (tmp_path / "config.json").write_text(cut.config.model_dump_json())
    first, second = cut.sae_dir(1), cut.sae_dir(1) / SECOND_SEED
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-c", _CHILD, str(tmp_path)]
    child = subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(second.glob("checkpoint/training.safetensors")) and time.monotonic() < deadline:
        assert child.poll() is None, "training ended before it could be killed"
        time.sleep(0.005)
    child.kill()
    child.wait()
    assert not (second / "sae_weights.safetensors").exists()
    assert not (first / "checkpoint").exists()
    before = (first / "sae_weights.safetensors").stat()
    again = subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True)
    assert again.stderr.count("goes on from step") == 1
    after = (first / "sae_weights.safetensors").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    for folder in ("", SECOND_SEED):
        theirs, ours = (load_file(run.sae_dir(1) / folder / "sae_weights.safetensors") for run in (whole, cut))
        assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
