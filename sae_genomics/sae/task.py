"""The stage train: one SAE for one layer, in two steps. `fit_layer` trains and saves it; `evaluate_layer` measures it.

A change of an evaluation setting asks for the second step alone. With `sae.from` the first step is `published.adopt`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sae_genomics.activations.extraction.extract import use_allotted_cores
from sae_genomics.activations.reading.rows import chosen_rows
from sae_genomics.hashes import hash_values
from sae_genomics.models import pick_device
from sae_genomics.progress import Progress, say
from sae_genomics.run import Run
from sae_genomics.sae.architectures import architecture_named
from sae_genomics.sae.evaluate_layer import evaluate_sae, of_training
from sae_genomics.sae.files import SECOND_SEED
from sae_genomics.sae.fit_layer import Training, train_sae
from sae_genomics.sae.log import Logger, open_loggers
from sae_genomics.sae.published.adopt import adopt
from sae_genomics.sae.settings import unused_settings
from sae_genomics.sae.spec import make_spec
from sae_genomics.stage import Stage
from sae_genomics.stages import stage_named


def run_task(run: Run, task: int) -> None:
    """Train, save and evaluate the SAE of layer run.layers[task].

    Leaves the files of `files.train_files`, and metrics.jsonl and training.json beside them. Raises UserError for settings that
    do not fit the data and for a training that failed, Interrupted when a signal asked to stop.
    """
    device = pick_device(run.config.sae.device)
    if device.type == "mps":  # no sparse products there; the kernels for CPUs are faster
        device = torch.device("cpu")
    if device.type == "cpu":
        use_allotted_cores()  # before the first product: their number decides how a product rounds
    with _own_stream(device):
        if run.config.sae.from_ is None:
            _train_layer(run, task, device)
        else:
            _adopt_layer(run, task, device)


@contextmanager
def _own_stream(device: torch.device) -> Iterator[None]:
    """On CUDA, a queue of this thread's own, so that layers trained at once do not wait for one another."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.stream(torch.cuda.Stream(device)):
        try:
            yield
        finally:
            torch.cuda.empty_cache()  # memory that was freed on one stream serves no other


def _train_layer(run: Run, task: int, device: torch.device) -> None:
    stage, layer, config = stage_named("train"), run.layers[task], run.config.sae
    training = _training(run, stage, task)
    spec = training.spec
    say(
        f"train layer {layer}: {spec.architecture}, d_in {spec.d_in}, d_sae {spec.d_sae:,}, {architecture_named(spec.architecture).in_words(config)}, {spec.steps:,} steps of "
        f"{spec.batch_rows:,} from {training.rows.n_rows:,} training tokens, on {device}"
        f"{', twice: sae.stability compares two seeds' if config.stability else ''}"
    )
    name = f"{run.name}_layer_{layer:02d}"

    def loggers(step: int) -> list[Logger]:
        identity = f"{name}-{training.fingerprint}"
        return open_loggers(list(config.loggers), training.folder, name, spec.to_dict(), identity, step)

    total = (2 if config.stability else 1) * spec.steps * spec.batch_rows
    progress = Progress(f"train layer {layer}", total, "tokens", run.heartbeat_file(stage, task))
    fitted = train_sae(run, training, device, progress, loggers)
    second = None
    if config.stability:
        second = _second(run, training)
        train_sae(run, second, device, progress, lambda step: [])
    progress.finish(_shown(evaluate_sae(run, of_training(training, fitted), second, device)))


def _adopt_layer(run: Run, task: int, device: torch.device) -> None:
    stage, layer, config = stage_named("train"), run.layers[task], run.config.sae
    say(f"train layer {layer}: nothing is trained: the SAE is that of sae.from, {config.from_}")
    for text in unused_settings(run):
        say(f"train layer {layer}: {text}")
    progress = Progress(f"train layer {layer}", 1, "SAEs", run.heartbeat_file(stage, task))
    metrics = adopt(run, layer, run.fingerprint(stage, layer=layer), device)
    progress.advance(1)
    progress.finish(_shown(metrics))


def _shown(metrics: dict[str, Any]) -> str:
    names = ("fvu", "train_fvu", "l0", "dead_share", "loss_recovered", "stability")
    return "  ".join(f"{name} {metrics[name]:.4g}" for name in names if metrics[name] is not None)


def _training(run: Run, stage: Stage, task: int) -> Training:
    layer, config = run.layers[task], run.config.sae
    rows = chosen_rows(run, layer, "train", config.include_cls)
    return Training(
        layer=layer,
        folder=run.sae_dir(layer),
        rows=rows,
        spec=make_spec(config, rows.d_model, rows.n_rows, _seed(run, layer)),
        order=run.config.run.seed,
        fingerprint=run.fingerprint(stage, layer=layer),
        inputs=hash_values(run.contents.read_by(stage, task)),
        centred=config.centre == "unit",
    )


def _second(run: Run, training: Training) -> Training:
    """The same with other weights at the start and another order of the rows."""
    seed = _seed(run, training.layer, b"sae.stability")
    spec = replace(training.spec, seed=seed)
    return replace(training, folder=training.folder / SECOND_SEED, spec=spec, order=seed, second=True)


def _seed(run: Run, layer: int, purpose: bytes = b"sae.weights") -> int:
    return int(np.random.SeedSequence([run.config.run.seed, zlib.crc32(purpose), layer]).generate_state(1)[0])
