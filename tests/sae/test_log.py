"""Loggers beside the JSON lines."""

from __future__ import annotations

import builtins
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sae_genomics.errors import UserError
from sae_genomics.sae.log import WeightsAndBiases, open_loggers


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboard"), ("wandb", "wandb")])
def test_a_missing_logger_says_how_to_install_it(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(module: str, *arguments: Any, **keywords: Any) -> Any:
        if package in module.split("."):
            raise ImportError(module)
        return real(module, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=f"pip install {package}"):
        open_loggers([name], tmp_path, "run", {}, "id", 0)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_tensorboard_takes_the_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for logger in open_loggers(["tensorboard"], tmp_path, "run", {}, "id", 0):
        logger.log({"step": 5, "loss": 1.5, "fvu": None})
        logger.close()
    assert list((tmp_path / "tensorboard").glob("events*"))


@pytest.mark.slow
def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    for logger in open_loggers(["wandb"], tmp_path, "run", {"k": 4}, "id-1", 0):
        logger.log({"step": 5, "loss": 1.5, "fvu": None})
        logger.close()
    assert list((tmp_path / "wandb").rglob("*.wandb"))


@pytest.mark.slow
def test_wandb_runs_of_several_layers_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    together, runs, streams = threading.Barrier(2), {}, (sys.stdout, sys.stderr)

    def work(layer: int) -> None:
        _, logger = open_loggers(["wandb"], tmp_path / str(layer), f"layer {layer}", {}, f"at-once-{layer}", 0)
        together.wait(60)  # both are open
        assert isinstance(logger, WeightsAndBiases)
        logger.log({"step": 5, "loss": float(layer)})
        runs[layer] = (logger._run.id, logger._run.name, logger._run.step)
        together.wait(60)
        logger.close()

    threads = [threading.Thread(target=work, args=(layer,)) for layer in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for layer in (1, 2):
        assert runs[layer] == (f"at-once-{layer}", f"layer {layer}", 5)
        assert len(list((tmp_path / str(layer)).rglob("*.wandb"))) == 1
    assert wandb.run is None
    assert (sys.stdout, sys.stderr) == streams


def test_an_old_wandb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(__version__="0.18.7"))
    with pytest.raises(UserError, match=r"wandb 0\.18\.7 is too old; pip install --upgrade wandb"):
        open_loggers(["wandb"], tmp_path, "run", {}, "id", 0)
