"""The second step of the stage train: how good the saved SAE is. It reads files alone, so it can run again without training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sae_genomics.activations.reading.heldout import heldout_rows, spread_units
from sae_genomics.activations.reading.rows import RowSet
from sae_genomics.artifacts import FORMAT_VERSION
from sae_genomics.atomic import write_json
from sae_genomics.errors import UserError
from sae_genomics.progress import say, stop_point
from sae_genomics.run import Run
from sae_genomics.sae.evaluate import EVALUATE_ROWS, Evaluation, firing_rate_histogram, mean_abs_cosine
from sae_genomics.sae.export import save_sparsity
from sae_genomics.sae.fit_layer import Fitted, Training, refuse_failed
from sae_genomics.sae.load import Encoder, load_encoder
from sae_genomics.sae.loss_recovered import loss_recovered
from sae_genomics.sae.measure_means import measure_means
from sae_genomics.sae.quality import doubts
from sae_genomics.sae.stability import stability
from sae_genomics.sae.unit_means import UnitMeans
from sae_genomics.sae.unit_variance import Measured, measure

METRICS_FILE = "metrics.json"


@dataclass(frozen=True)
class SavedSae:
    """A saved SAE that is to be measured, trained here or not.

    rows: training rows. facts: what metrics.json says of it that is not measured. refuse: raises UserError for one of no use.
    """

    layer: int
    folder: Path
    rows: RowSet
    facts: dict[str, Any]
    refuse: Callable[[Evaluation], None]


def of_training(training: Training, fitted: Fitted) -> SavedSae:
    """The SAE that a training left."""
    spec = training.spec
    facts = {
        "architecture": spec.architecture,
        "d_in": spec.d_in,
        "d_sae": spec.d_sae,
        "k": spec.k or None,
        "steps": spec.steps,
        "tokens_trained": fitted.tokens,
        "batch_tokens": spec.batch_rows,
        "lr": spec.lr,
        "activation_scale": fitted.scale,
        "train_dead_share": fitted.silent_share,
        "seconds": fitted.seconds,
        "tokens_per_s": round(fitted.tokens / max(fitted.seconds, 1e-9), 1),
    }
    return SavedSae(
        training.layer, training.folder, training.rows, facts, lambda measured: refuse_failed(training, measured)
    )


def evaluate_sae(run: Run, saved: SavedSae, second: Training | None, device: torch.device) -> dict[str, Any]:
    """Leave sparsity.safetensors and metrics.json in the SAE's folder. Returns what metrics.json holds.

    Everything is measured on held-out rows where there are any, else on training rows; which rows these are follows from the
    files and the settings alone. second: the finished training of another seed, for `sae.stability`. The units' means are measured for
    every SAE, so that those with and without `sae.centre: unit` can be compared.
    Raises UserError when the reconstruction is no better than the mean of what the SAE reads.
    """
    layer = saved.layer
    encoder = load_encoder(saved.folder, device)
    means = encoder.means or measure_means(saved.rows)
    held_out_rows, note = _heldout_rows(run, layer)
    on_train = _measured(run, encoder, means, saved.rows)
    held_out = _measured(run, encoder, means, held_out_rows) if held_out_rows is not None else None
    measured = held_out or on_train
    saved.refuse(measured.seen)
    stop_point()
    metrics = _metrics(run, saved, encoder, on_train, held_out)
    if second is not None:
        other = load_encoder(second.folder, device)
        same_rows = held_out_rows if held_out_rows is not None else saved.rows
        found = stability(encoder, measured.seen, other, _measured(run, other, means, same_rows).seen)
        metrics |= {"stability": found.share, "stability_mmcs": found.mmcs}
        del other
    metrics |= _worth(run, layer, encoder, means)
    notes = ([note] if note else []) + doubts(metrics, run.kind.nouns.units, run.kind.nouns.items)
    for each in notes:
        say(f"train layer {layer}: {each}")
    metrics["note"] = "; ".join(notes) or None
    save_sparsity(saved.folder, measured.seen.firing_rate)
    write_json(saved.folder / METRICS_FILE, metrics)
    return metrics


def _measured(run: Run, encoder: Encoder, means: UnitMeans, rows: RowSet) -> Measured:
    found = measure(encoder, means, spread_units(rows, run.config.sae.evaluate_tokens, EVALUATE_ROWS))
    assert found is not None
    return found


def _heldout_rows(run: Run, layer: int) -> tuple[RowSet | None, str | None]:
    """The rows, or None and why there are none."""
    try:
        return heldout_rows(run, layer), None
    except UserError as error:
        return None, f"not measured on held-out {run.kind.nouns.items}: {error}"


def _metrics(
    run: Run, saved: SavedSae, encoder: Encoder, on_train: Measured, held_out: Measured | None
) -> dict[str, Any]:
    """metrics.json: held-out where not said otherwise, null where there are no held-out cells."""
    mean_cosine, mean_max_cosine = mean_abs_cosine(encoder.W_dec)
    return {
        "format_version": FORMAT_VERSION,
        "layer": saved.layer,
        "hook": run.config.model.hook,
        "weights": encoder.weights,
        "centre": run.config.sae.centre,
        "unit_means": encoder.means.content if encoder.means is not None else None,
        **saved.facts,
        "fvu": _number(held_out and held_out.fvu),
        "explained_variance": _number(held_out and held_out.explained_variance),
        "fvu_centred": _number(held_out and held_out.fvu_centred),
        "identity_variance": _number(held_out and held_out.identity_variance),
        "l0": _number(held_out and held_out.seen.l0),
        "dead_share": _number(held_out and held_out.seen.dead_share),
        "heldout_tokens": held_out.seen.tokens if held_out else 0,
        "train_fvu": _number(on_train.fvu),
        "train_fvu_centred": _number(on_train.fvu_centred),
        "train_identity_variance": _number(on_train.identity_variance),
        "train_l0": _number(on_train.seen.l0),
        "train_tokens": on_train.seen.tokens,
        "mean_abs_decoder_cosine": mean_cosine,
        "mean_max_decoder_cosine": mean_max_cosine,
        "stability": None,
        "stability_mmcs": None,
        "firing_rate_histogram": firing_rate_histogram((held_out or on_train).seen.firing_rate),
        "firing_rate_from": "heldout" if held_out else "train",
        "note": None,
    }


def _worth(run: Run, layer: int, encoder: Encoder, means: UnitMeans) -> dict[str, Any]:
    """What the reconstruction is worth to the model; nulls where no cell is held out or it is not asked for."""
    n_cells = run.config.sae.loss_recovered_cells
    found = loss_recovered(run, layer, encoder, n_cells, means) if n_cells else None
    if found is None:
        names = (
            "recovered",
            "recovered_interval",
            "recovered_by_means",
            "unchanged",
            "reconstructed",
            "mean_ablated",
            "unit_means",
        )
        return {**{f"loss_{name}": None for name in names}, "loss_cells": 0, "loss_groups": None, "loss_name": None}
    interval = found.interval(run.config.run.seed)
    return {
        "loss_recovered": _number(found.recovered),
        "loss_recovered_interval": list(interval) if interval else None,
        "loss_recovered_by_means": _number(found.recovered_by_means),
        "loss_unchanged": _number(found.loss(found.unchanged)),
        "loss_reconstructed": _number(found.loss(found.reconstructed)),
        "loss_mean_ablated": _number(found.loss(found.mean_ablated)),
        "loss_unit_means": None if found.unit_means is None else _number(found.loss(found.unit_means)),
        "loss_cells": found.cells,
        "loss_groups": found.groups,
        "loss_name": found.loss_name,
    }


def _number(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
