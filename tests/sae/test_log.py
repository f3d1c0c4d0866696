"""Loggers beside the JSON lines."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from sae_genomics.errors import UserError
from sae_genomics.sae.log import open_loggers


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
