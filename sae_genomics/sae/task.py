"""The stage train: one SAE for one layer, from stored activations to SAELens files and held-out metrics."""

from __future__ import annotations

import math
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from sae_genomics import __version__
from sae_genomics.activations.batches import ShuffledBatches
from sae_genomics.activations.extract import use_allotted_cores
from sae_genomics.activations.heldout import heldout_blocks
from sae_genomics.activations.rows import chosen_rows
from sae_genomics.activations.store import open_activations
from sae_genomics.artifacts import FORMAT_VERSION
from sae_genomics.atomic import write_json
from sae_genomics.errors import UserError
from sae_genomics.models import pick_device
from sae_genomics.progress import Progress, say
from sae_genomics.run import Run
from sae_genomics.sae.evaluate import Evaluation, evaluate, firing_rate_histogram, mean_abs_cosine
from sae_genomics.sae.export import fold, save_sae
from sae_genomics.sae.load import Encoder
from sae_genomics.sae.log import Logger, open_loggers
from sae_genomics.sae.loss_recovered import loss_recovered
from sae_genomics.sae.spec import Spec, make_spec
from sae_genomics.sae.stability import stability
from sae_genomics.sae.train import Trained, fit
from sae_genomics.stages import stage_named

CHECKPOINT_FILE = "training.safetensors"
EVALUATE_ROWS = 4096


def run_task(run: Run, task: int) -> None:
    """Train, evaluate and save the SAE of layer run.layers[task].

    Leaves cfg.json, sae_weights.safetensors, sparsity.safetensors and metrics.json in run.sae_dir(layer), and metrics.jsonl
    beside them. Raises UserError for settings that do not fit the data, Interrupted when a signal asked to stop.
    """
    device = pick_device(run.config.sae.device)
    if device.type == "mps":  # no sparse products there; the kernels for CPUs are faster
        device = torch.device("cpu")
    if device.type == "cpu":
        use_allotted_cores()  # before the first product: their number decides how a product rounds
    with _own_stream(device):
        _train_layer(run, task, device)


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
    layer, config = run.layers[task], run.config.sae
    folder = run.sae_dir(layer)
    stage = stage_named("train")
    fingerprint = run.fingerprint(stage, layer=layer)
    rows = chosen_rows(run, layer, "train", config.include_cls)
    spec = make_spec(config, rows.d_model, rows.n_rows, _seed(run, layer))
    say(
        f"train layer {layer}: {spec.architecture}, d_in {spec.d_in}, d_sae {spec.d_sae:,}, k {spec.k}, {spec.steps:,} steps of "
        f"{spec.batch_rows:,} from {rows.n_rows:,} training tokens, on {device}"
        f"{', twice: sae.stability compares two seeds' if config.stability else ''}"
    )
    checkpoints = folder / "checkpoint"
    name = f"{run.name}_layer_{layer:02d}"

    def loggers(step: int) -> list[Logger]:
        return open_loggers(list(config.loggers), folder, name, spec.to_dict(), f"{name}-{fingerprint}", step)

    seeds = 2 if config.stability else 1
    progress = Progress(
        f"train layer {layer}", seeds * spec.steps * spec.batch_rows, "tokens", run.heartbeat_file(stage, task)
    )

    def train(
        spec: Spec, order: int, checkpoint: str, loggers: Callable[[int], list[Logger]], on_train_rows: bool
    ) -> _Result:
        with ShuffledBatches(rows, spec.batch_rows, order, pin_memory=device.type == "cuda") as batches:
            trained = fit(
                spec, batches, layer=layer, normalise=config.normalise, checkpoint=checkpoints / checkpoint,
                fingerprint=f"{fingerprint}-{order}", open_loggers=loggers, progress=progress, log_every=config.log_every,
                checkpoint_every_seconds=config.checkpoint_every_seconds, device=device,
            )  # fmt: skip
            encoder = fold(trained.state, spec, trained.scale)
            held_out, note = None, None
            try:
                held_out = evaluate(encoder, heldout_blocks(run, layer, config.evaluate_tokens, EVALUATE_ROWS))
            except UserError as error:
                note = f"not measured on held-out cells: {error}"
            on_train = None
            if on_train_rows or held_out is None:
                on_train = evaluate(encoder, _some(batches, min(config.evaluate_tokens, rows.n_rows)))
        return _Result(trained, encoder, on_train, held_out, note)

    result = train(spec, run.config.run.seed, CHECKPOINT_FILE, loggers, True)
    trained, encoder = result.trained, result.encoder
    if result.note:
        say(f"train layer {layer}: {result.note}")
    metrics = _metrics(run, layer, spec, result)
    if config.stability:
        other_seed = _seed(run, layer, b"sae.stability")
        other = train(replace(spec, seed=other_seed), other_seed, "other_seed.safetensors", lambda step: [], False)
        found = stability(encoder, result.measured, other.encoder, other.measured)
        metrics |= {"stability": found.share, "stability_mmcs": found.mmcs}
    metrics |= _worth(run, layer, encoder)
    metadata = _metadata(run, layer, spec, trained, fingerprint)
    save_sae(folder, encoder, result.measured.firing_rate, metadata)
    write_json(folder / "metrics.json", metrics)
    shutil.rmtree(checkpoints, ignore_errors=True)
    shown = {key: metrics[key] for key in ("fvu", "train_fvu", "l0", "dead_share", "loss_recovered", "stability")}
    progress.finish("  ".join(f"{key} {value:.4g}" for key, value in shown.items() if value is not None))


@dataclass(frozen=True)
class _Result:
    """One training and what it measured. held_out: None, and a note why, where there are no such cells.

    on_train: None where it was not asked for and there are held-out cells.
    """

    trained: Trained
    encoder: Encoder
    on_train: Evaluation | None
    held_out: Evaluation | None
    note: str | None

    @property
    def measured(self) -> Evaluation:
        found = self.held_out or self.on_train
        assert found is not None
        return found


def _seed(run: Run, layer: int, purpose: bytes = b"sae.weights") -> int:
    return int(np.random.SeedSequence([run.config.run.seed, zlib.crc32(purpose), layer]).generate_state(1)[0])


def _some(batches: ShuffledBatches, n_rows: int) -> Iterator[torch.Tensor]:
    """The next n_rows rows."""
    while n_rows > 0:
        block = next(batches)[:n_rows]
        n_rows -= len(block)
        yield block


def _metrics(run: Run, layer: int, spec: Spec, result: _Result) -> dict[str, Any]:
    """metrics.json: held-out where not said otherwise, null where there are no held-out cells."""
    trained, on_train, held_out = result.trained, result.on_train, result.held_out
    assert on_train is not None
    mean_cosine, mean_max_cosine = mean_abs_cosine(result.encoder.W_dec)
    silent = trained.state.tokens_since_fired.cpu() > spec.dead_after_tokens
    return {
        "format_version": FORMAT_VERSION,
        "layer": layer,
        "hook": run.config.model.hook,
        "architecture": spec.architecture,
        "d_in": spec.d_in,
        "d_sae": spec.d_sae,
        "k": spec.k,
        "steps": spec.steps,
        "tokens_trained": trained.tokens,
        "batch_tokens": spec.batch_rows,
        "lr": spec.lr,
        "activation_scale": trained.scale,
        "fvu": _number(held_out and held_out.fvu),
        "explained_variance": _number(held_out and held_out.explained_variance),
        "l0": _number(held_out and held_out.l0),
        "dead_share": _number(held_out and held_out.dead_share),
        "heldout_tokens": held_out.tokens if held_out else 0,
        "train_fvu": _number(on_train.fvu),
        "train_l0": _number(on_train.l0),
        "train_dead_share": float(silent.double().mean()),
        "mean_abs_decoder_cosine": mean_cosine,
        "mean_max_decoder_cosine": mean_max_cosine,
        "stability": None,
        "stability_mmcs": None,
        "firing_rate_histogram": firing_rate_histogram(result.measured.firing_rate),
        "firing_rate_from": "heldout" if held_out else "train",
        "seconds": round(trained.seconds, 3),
        "tokens_per_s": round(trained.tokens / max(trained.seconds, 1e-9), 1),
        "note": result.note,
    }


def _worth(run: Run, layer: int, encoder: Encoder) -> dict[str, Any]:
    """What the reconstruction is worth to the model; nulls where no cell is held out or it is not asked for."""
    n_cells = run.config.sae.loss_recovered_cells
    found = loss_recovered(run, layer, encoder, n_cells) if n_cells else None
    return {
        "loss_recovered": _number(found and found.recovered),
        "loss_unchanged": _number(found and found.loss_unchanged),
        "loss_reconstructed": _number(found and found.loss_reconstructed),
        "loss_mean_ablated": _number(found and found.loss_mean_ablated),
        "loss_cells": found.cells if found else 0,
    }


def _number(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _metadata(run: Run, layer: int, spec: Spec, trained: Trained, fingerprint: str) -> dict[str, Any]:
    """What SAELens keeps in cfg.json beside the architecture's own values."""
    with open_activations(run.activations_file(layer, 0)) as file:
        header = file.header
    return {
        "model_name": header.model,
        "model_class_name": run.model_info.family,
        "hook_name": header.hook_name,
        "hook_layer": layer,
        "dataset_path": str(run.data_file.name),
        "context_size": run.model_info.max_length,
        "prepend_bos": True,
        "training_architecture": spec.architecture,
        "training_tokens": trained.tokens,
        "sae_genomics": {
            "version": __version__, "run": run.name, "fingerprint": fingerprint, "model_identity": header.model_identity,
            "hook": header.hook, "layer": layer, "activation_scale": trained.scale, "training": spec.to_dict(),
        },
    }  # fmt: skip
