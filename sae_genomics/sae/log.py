"""What training reports while it runs: a line of JSON every few steps, always; other loggers where asked for."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Protocol

from sae_genomics.atomic import write_text
from sae_genomics.errors import UserError


class Logger(Protocol):
    """Takes one dictionary of numbers a logged step."""

    def log(self, values: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """`metrics.jsonl`: one line a logged step, on disk as soon as it is logged.

    step: what training goes on from; later lines, which a killed attempt may have left, are dropped.
    """

    def __init__(self, path: Path, step: int):
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _lines(path) if line["step"] <= step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - open for as long as training lasts

    def log(self, values: dict[str, Any]) -> None:
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of an earlier attempt; what a kill cut short is left out."""
    lines = []
    if path.exists():
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                lines.append(line)
    return lines


class TensorBoard:
    """Event files in `folder`; view with `tensorboard --logdir`."""

    def __init__(self, folder: Path, step: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError("sae.loggers: tensorboard is not installed; pip install tensorboard") from None
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def log(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if name != "step" and isinstance(value, (int, float)):
                self._writer.add_scalar(name, value, values["step"])

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A wandb run in `folder`; offline unless WANDB_MODE says otherwise, because compute nodes have no network.

    A resumed run goes on under the same id; `wandb sync` uploads it later. Several layers of one process have a run each.
    """

    def __init__(self, folder: Path, name: str, config: dict[str, Any], identity: str):
        try:
            import wandb
        except ImportError:
            raise UserError("sae.loggers: wandb is not installed; pip install wandb") from None
        if [int(part) for part in re.findall(r"\d+", wandb.__version__)[:3]] < [0, 19, 10]:
            raise UserError(f"sae.loggers: wandb {wandb.__version__} is too old; pip install --upgrade wandb")
        folder.mkdir(parents=True, exist_ok=True)
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "sae-genomics"),
            name=name,
            id=identity,
            resume="allow",
            dir=str(folder),
            config=config,
            mode=mode,
            reinit="create_new",  # beside other runs of this process, instead of giving back the one that is open
            settings=wandb.Settings(console="off"),  # whose console is one for all of them
        )

    def log(self, values: dict[str, Any]) -> None:
        self._run.log(values, step=values["step"])

    def close(self) -> None:
        self._run.finish()


def open_loggers(
    names: list[str], folder: Path, run_name: str, config: dict[str, Any], identity: str, step: int
) -> list[Logger]:
    """The JSON lines and the loggers named in `sae.loggers`. Raises UserError how to install one that is missing."""
    extra: list[Logger] = []
    if "tensorboard" in names:
        extra.append(TensorBoard(folder / "tensorboard", step))
    if "wandb" in names:
        extra.append(WeightsAndBiases(folder / "wandb", run_name, config, identity))
    return [JsonLines(folder / "metrics.jsonl", step), *extra]
