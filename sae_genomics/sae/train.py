"""The training loop: batches in, a trained state out, able to stop and go on at any step.

Nothing random happens here but the initial weights: the order of the rows is the batches' own state, the learning rate a
function of the step. So weights, moments, counters and the batches' state are all that a checkpoint needs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from sae_genomics.errors import UserError
from sae_genomics.progress import Progress, say, stop_point, stop_requested
from sae_genomics.sae.checkpoint import load_checkpoint, save_checkpoint
from sae_genomics.sae.log import Logger
from sae_genomics.sae.schedule import learning_rate
from sae_genomics.sae.spec import Spec, lower_lr
from sae_genomics.sae.state import SaeState, initial_state
from sae_genomics.sae.step import StepResult
from sae_genomics.sae.steps import make_step

SCALE_ROWS = 16384


class Batches(Protocol):
    """Shuffled training rows without end, float32 [batch, d_in] each; see `sae_genomics.activations.reading.batches`."""

    n_rows: int

    def __next__(self) -> torch.Tensor: ...

    def state(self) -> dict[str, Any]:
        """JSON values from which `restore` goes on after the last batch that was given out."""

    def restore(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Scaling:
    """Measured once on the first rows. scale: sqrt(d_in / mean |x|^2), or 1. mean: float32 [d_in], of the scaled rows."""

    scale: float
    mean: torch.Tensor


@dataclass
class Trained:
    """The outcome. seconds: spent stepping, over all attempts."""

    state: SaeState
    scale: float
    tokens: int
    seconds: float


def measure_scaling(batches: Batches, normalise: bool, layer: int) -> Scaling:
    """Scale and mean of the first SCALE_ROWS rows; the batches stand where they stood before.

    Raises UserError when the rows are all zero or not finite.
    """
    before = batches.state()
    rows, total, squared = 0, torch.zeros(1, dtype=torch.float64), 0.0
    while rows < min(SCALE_ROWS, batches.n_rows):
        block = next(batches).double()
        total = total + block.sum(dim=0)
        squared += float(block.square().sum())
        rows += len(block)
    batches.restore(before)
    mean, squared = total / rows, squared / rows
    if not math.isfinite(squared) or squared <= 0:
        problem = "are all zero" if squared == 0 else "hold values that are not finite"
        raise UserError(
            f"layer {layer}: the stored activations {problem}; extract them again with --set activations.dtype=float32"
        )
    scale = math.sqrt(len(mean) / squared) if normalise else 1.0
    return Scaling(scale, (mean * scale).float())


def fit(
    spec: Spec,
    batches: Batches,
    *,
    layer: int,
    normalise: bool,
    checkpoint: Path,
    fingerprint: str,
    open_loggers: Callable[[int], list[Logger]],
    progress: Progress,
    log_every: int = 50,
    checkpoint_every_seconds: float = 300,
    device: torch.device | None = None,
) -> Trained:
    """Train to spec.steps, from `checkpoint` where there is one with this fingerprint.

    open_loggers: given the step that training goes on from. Raises UserError when the loss is no number, and Interrupted,
    with everything saved, when a signal asked to stop.
    """
    device = device or torch.device("cpu")
    resumed = load_checkpoint(checkpoint, fingerprint)
    if resumed:
        state, facts = resumed
        batches.restore(facts["batches"])
        scale, tokens, earlier = float(facts["scale"]), int(facts["tokens"]), float(facts["seconds"])
        progress.skip(tokens)
    else:
        scaling = measure_scaling(batches, normalise, layer)
        state, scale, tokens, earlier = initial_state(spec, scaling.mean, spec.seed), scaling.scale, 0, 0.0
    step = make_step(state, spec, device)
    state = step.state
    if first_step := state.step:
        say(f"train layer {layer}: goes on from step {first_step:,} of {spec.steps:,}")
    loggers = open_loggers(state.step)
    started = saved = time.monotonic()

    def save() -> None:
        facts = {
            "fingerprint": fingerprint, "spec": spec.to_dict(), "batches": batches.state(), "scale": scale, "tokens": tokens,
            "seconds": earlier + time.monotonic() - started,
        }  # fmt: skip
        save_checkpoint(checkpoint, state, facts)

    try:
        while state.step < spec.steps:
            if stop_requested():
                save()
                stop_point()
            x = next(batches).to(device)
            x = x * scale if scale != 1.0 else x
            lr = learning_rate(spec, state.step)
            result = step(x, lr)
            tokens += len(x)
            if not math.isfinite(result.loss):
                raise UserError(_diverged(layer, state.step, spec, x))
            progress.advance(len(x), f"loss {result.mse:.4g}")
            if state.step % log_every == 0 or state.step == spec.steps:
                values = _values(state, result, x, lr, tokens)
                values["seconds"] = round(earlier + time.monotonic() - started, 3)
                for logger in loggers:
                    logger.log(values)
            if time.monotonic() - saved >= checkpoint_every_seconds:
                save()
                saved = time.monotonic()
        seconds = earlier + time.monotonic() - started
        if state.step > first_step:  # what follows may be killed too
            save()
    finally:
        for logger in loggers:
            logger.close()
    return Trained(state, scale, tokens, seconds)


def _values(state: SaeState, result: StepResult, x: torch.Tensor, lr: float, tokens: int) -> dict[str, Any]:
    variance = float((x - x.mean(dim=0)).square().sum(dim=1).mean())
    return {
        "step": state.step, "tokens": tokens, "lr": lr, "loss": result.loss, "mse": result.mse, "auxk": result.auxk,
        "fvu": result.mse / variance if variance > 0 else None,
        "l0": result.l0, "dead_share": result.dead / state.d_sae, "grad_norm": result.grad_norm,
    }  # fmt: skip


def _diverged(layer: int, step: int, spec: Spec, x: torch.Tensor) -> str:
    if not bool(np.isfinite(x.cpu().numpy()).all()):
        return (
            f"layer {layer}, step {step}: a batch of activations holds values that are not finite; extract them again"
        )
    return (
        f"layer {layer}, step {step}: the loss is no longer a number at learning rate {spec.lr:.3g}; "
        f"try --set sae.lr={lower_lr(spec):.2g}"
    )
