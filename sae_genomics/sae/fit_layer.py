"""The first step of the stage train: one SAE trained and saved, unless the one that lies there is what it would become.

A training is a folder. `training.json` is written last, and names what the SAE was made from and the content of its files. As
long as that holds, the SAE is not trained again, whatever happened to the task's other files.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sae_genomics import __version__
from sae_genomics.activations.format.store import open_activations
from sae_genomics.activations.reading.batches import ShuffledBatches
from sae_genomics.activations.reading.heldout import heldout_rows, spread_units
from sae_genomics.activations.reading.rows import RowSet
from sae_genomics.checked_json import read_checked_json, write_checked_json
from sae_genomics.content import content_hash
from sae_genomics.errors import DamagedArtifact, UserError
from sae_genomics.progress import Progress, say
from sae_genomics.run import Run
from sae_genomics.sae.evaluate import EVALUATE_ROWS, Evaluation, evaluate
from sae_genomics.sae.export import fold, save_sae
from sae_genomics.sae.load import CFG_FILE, WEIGHTS_FILE, Encoder, load_encoder
from sae_genomics.sae.log import Logger
from sae_genomics.sae.measure_means import measure_means
from sae_genomics.sae.quality import failed
from sae_genomics.sae.spec import Spec, lower_lr
from sae_genomics.sae.train import fit
from sae_genomics.sae.unit_means import MEANS_FILE, UnitMeans

TRAINING_FILE = "training.json"
CHECKPOINT_FILE = "training.safetensors"
FORMAT_VERSION = 1
_CHECKED_ROWS = 16384  # on which an SAE is looked at before it is saved


@dataclass(frozen=True)
class Training:
    """One SAE to train.

    folder: where it goes. rows: training rows. order: seed of the order they come in.
    fingerprint: of the settings. inputs: of what the activations hold. second: whether it is the one that `sae.stability` compares with.
    centred: whether the SAE reads activations minus their units' means.
    """

    layer: int
    folder: Path
    rows: RowSet
    spec: Spec
    order: int
    fingerprint: str
    inputs: str
    second: bool = False
    centred: bool = False

    @property
    def made_from(self) -> dict[str, Any]:
        return {"fingerprint": self.fingerprint, "inputs": self.inputs, "seed": self.spec.seed, "order": self.order}

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint" / CHECKPOINT_FILE

    @property
    def label(self) -> str:
        return f"layer {self.layer}, second seed" if self.second else f"layer {self.layer}"


@dataclass(frozen=True)
class Fitted:
    """What metrics.json needs of a training. seconds: of stepping, over all attempts. scale: of the activations.

    silent_share: latents silent for `dead_after_tokens` tokens when it ended.
    """

    tokens: int
    seconds: float
    scale: float
    silent_share: float


def train_sae(
    run: Run, training: Training, device: torch.device, progress: Progress, open_loggers: Callable[[int], list[Logger]]
) -> Fitted:
    """Leave cfg.json, sae_weights.safetensors and training.json in the training's folder, unless they lie there.

    With `sae.centre: unit`, unit_means.safetensors too.

    Raises UserError when what came out is no better than the mean activation, Interrupted when a signal asked to stop.
    """
    fitted = finished(training)
    if fitted is not None:
        say(f"train {training.label}: its SAE is there already and is not trained again")
        progress.skip(fitted.tokens)
    else:
        fitted = _train(run, training, device, progress, open_loggers)
    shutil.rmtree(training.checkpoint.parent, ignore_errors=True)
    return fitted


def finished(training: Training) -> Fitted | None:
    """The facts of the training that lies in the folder; None where it is not this one, not complete, or damaged."""
    try:
        known = read_checked_json(training.folder / TRAINING_FILE)
    except DamagedArtifact as damage:
        say(f"train {training.label}: {damage}; the SAE is trained again")
        return None
    if known is None or known.get("format_version") != FORMAT_VERSION:
        return None
    if any(known.get(name) != value for name, value in training.made_from.items()):
        return None
    for name in (WEIGHTS_FILE, CFG_FILE, *([MEANS_FILE] if training.centred else [])):
        path = training.folder / name
        if not path.exists():
            return None
        if content_hash(path) != known.get("files", {}).get(name):
            say(f"train {training.label}: {path} is not what training wrote; it is trained again")
            return None
    if training.centred and training.second:  # its features can be compared with those of the same input alone
        first = content_hash(training.folder.parent / MEANS_FILE)
        if known["files"][MEANS_FILE] != first:
            say(f"train {training.label}: the first seed's means came out different; it is trained again")
            return None
    return Fitted(*(known[name] for name in Fitted.__dataclass_fields__))


def _train(
    run: Run, training: Training, device: torch.device, progress: Progress, open_loggers: Callable[[int], list[Logger]]
) -> Fitted:
    config, spec = run.config.sae, training.spec
    means = _unit_means(training) if training.centred else None
    subtract = means.subtract if means is not None else None
    with ShuffledBatches(
        training.rows, spec.batch_rows, training.order, pin_memory=device.type == "cuda", centre=subtract
    ) as batches:
        trained = fit(
            spec, batches, layer=training.layer, normalise=config.normalise, checkpoint=training.checkpoint,
            fingerprint=f"{training.fingerprint}-{training.inputs}-{training.order}", open_loggers=open_loggers, progress=progress,
            log_every=config.log_every, checkpoint_every_seconds=config.checkpoint_every_seconds, device=device,
        )  # fmt: skip
    encoder = replace(fold(trained.state, spec, trained.scale), means=means)
    _look_at(run, training, encoder)
    silent = trained.state.tokens_since_fired.cpu() > spec.dead_after_tokens
    fitted = Fitted(trained.tokens, round(trained.seconds, 3), trained.scale, float(silent.double().mean()))
    hashes = save_sae(training.folder, encoder, _metadata(run, training, fitted))
    facts = {"format_version": FORMAT_VERSION, **training.made_from, "files": hashes, **asdict(fitted)}
    write_checked_json(training.folder / TRAINING_FILE, facts)
    return fitted


def _unit_means(training: Training) -> UnitMeans:
    """Measured on the training rows. The second seed takes those of the first, which is trained by now."""
    if training.second:
        means = load_encoder(training.folder.parent).means
        assert means is not None
        return means
    say(f"train {training.label}: measures the mean activation of each unit (sae.centre: unit)")
    return measure_means(training.rows)


def _look_at(run: Run, training: Training, encoder: Encoder) -> None:
    """Raise UserError, before anything is saved, when training failed."""
    try:
        rows = heldout_rows(run, training.layer)
    except UserError:  # no such rows
        rows = training.rows
    blocks = spread_units(rows, _CHECKED_ROWS, EVALUATE_ROWS)
    measured = evaluate(encoder, (encoder.input(x, units) for x, units in blocks))
    assert measured is not None
    refuse_failed(training, measured)


def refuse_failed(training: Training, measured: Evaluation) -> None:
    """Raise UserError when the reconstruction is no better than the mean of what the SAE reads.

    Rows that do not vary have no FVU: there the error must be less than the activations themselves.
    """
    fvu = measured.fvu if measured.varies else measured.relative_error
    if not failed(fvu):
        return
    spec, what = training.spec, "centred activations" if training.centred else "activations"
    raise UserError(
        f"{training.label}: training failed: the SAE reproduces the {what} no better than their mean does (FVU {fvu:.3g}; "
        f"1 is the mean, 0 is perfect); lower the learning rate with --set sae.lr={lower_lr(spec):.2g} (now {spec.lr:.3g}), "
        f"or raise sae.steps (now {spec.steps:,})"
    )


def _metadata(run: Run, training: Training, fitted: Fitted) -> dict[str, Any]:
    """What SAELens keeps in cfg.json beside the architecture's own values. Nothing of time or machine."""
    with open_activations(run.activations_file(training.layer, 0)) as file:
        header = file.header
    return {
        "model_name": header.model,
        "model_class_name": run.model_info.family,
        "hook_name": header.hook_name,
        "hook_layer": training.layer,
        "dataset_path": str(run.data_file.name),
        "context_size": run.model_info.max_length,
        "prepend_bos": True,
        "training_architecture": training.spec.architecture,
        "training_tokens": fitted.tokens,
        "sae_genomics": {
            "version": __version__, "run": run.name, "fingerprint": training.fingerprint, "model_identity": header.model_identity,
            **({"model_revision": run.model_info.revision} if run.model_info.revision else {}),
            "hook": header.hook, "layer": training.layer, "activation_scale": fitted.scale, "training": training.spec.to_dict(),
        },
    }  # fmt: skip
