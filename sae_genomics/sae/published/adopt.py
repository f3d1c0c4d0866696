"""The stage train with `sae.from`: a published SAE is checked, converted, and saved as one of the run's own. Nothing is trained.

What is saved is SAELens' format with everything folded in, so that later stages read it like any other SAE. `adopted.json` beside it says
where it is from. The metrics are measured on this run's rows, as for an SAE that was trained here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sae_genomics import __version__
from sae_genomics.activations.reading.heldout import spread_units
from sae_genomics.activations.reading.rows import RowSet, chosen_rows
from sae_genomics.checked_json import write_checked_json
from sae_genomics.errors import UserError
from sae_genomics.progress import say
from sae_genomics.sae.evaluate import EVALUATE_ROWS, Evaluation
from sae_genomics.sae.evaluate_layer import SavedSae, evaluate_sae
from sae_genomics.sae.export import save_sae
from sae_genomics.sae.measure_means import measure_means
from sae_genomics.sae.published import sources
from sae_genomics.sae.published.check import Stored, refuse_misfit, remarks, stored_activations
from sae_genomics.sae.published.convert import convert, is_scaled, read_tensors, settings_of
from sae_genomics.sae.published.hub import download
from sae_genomics.sae.published.sources import ADOPTED_FILE, MEANS, Release, file_state, hash_of
from sae_genomics.sae.quality import failed
from sae_genomics.sae.unit_means import UnitMeans, load_means

if TYPE_CHECKING:
    from sae_genomics.run import Run
    from sae_genomics.sae.load import Encoder

FORMAT_VERSION = 1
_SCALE_ROWS = 200_000


@dataclass(frozen=True)
class Found:
    """A published SAE's files. name: for people. commit: of a release. scale: s, where its publisher says it."""

    name: str
    cfg: dict[str, Any]
    weights: Path
    means: Path | None
    commit: str | None = None
    scale: float | None = None

    @property
    def files(self) -> list[Path]:
        return [self.weights, *([self.means] if self.means is not None else [])]


def adopt(run: Run, layer: int, fingerprint: str, device: torch.device) -> dict[str, Any]:
    """Leave the files of `files.train_files` for a layer. Returns what metrics.json holds.

    Raises UserError where there is no such SAE, it does not fit the activations, or reproduces them no better than their mean.
    """
    found = find(run, layer)
    cfg = settings_of(found.cfg, f"sae.from: {found.name}")
    stored = stored_activations(run, layer)
    refuse_misfit(cfg, stored, found.name)
    notes = remarks(cfg, stored)
    tensors = read_tensors(found.weights, cfg)
    rows = chosen_rows(run, layer, "train", run.config.sae.include_cls)
    means = _means(found, rows, stored, layer)
    scale = 1.0
    if is_scaled(cfg):
        scale = found.scale or measured_scale(rows, means)
        notes.append(
            f"its activations are scaled by {scale:.4g} ({'as its publisher says' if found.scale else 'measured on the training rows'}), "
            "which is folded into its weights"
        )
    for each in notes:
        say(f"train layer {layer}: {found.name}: {each}")
    encoder = replace(convert(cfg, tensors, scale), means=means)
    folder = run.sae_dir(layer)
    origin = _origin(found, cfg, scale, notes)
    save_sae(folder, encoder, _metadata(run, cfg, stored, fingerprint, origin))
    files = {path.name: {**file_state(path), "hash": hash_of(path)} for path in _read_files(run, layer, found)}
    facts = {"format_version": FORMAT_VERSION, "from": run.config.sae.from_, **origin, "files": files}
    write_checked_json(folder / ADOPTED_FILE, facts)
    saved = SavedSae(
        layer=layer, folder=folder, rows=rows, facts=_facts(encoder, cfg, scale, origin),
        refuse=lambda measured: _refuse_useless(found.name, layer, stored, measured),
    )  # fmt: skip
    return evaluate_sae(run, saved, None, device)


def find(run: Run, layer: int) -> Found:
    """The published SAE of a layer; a release's is downloaded. Raises UserError where there is none."""
    text = run.config.sae.from_
    assert text is not None
    source = sources.source_of(text)
    if isinstance(source, Release):
        before = sources.adopted(run, layer)
        pinned = before.get("commit") if before.get("from") == text else None  # a branch may have moved since
        got = download(source, layer, pinned or source.revision, run.config.paths.cache)
        return Found(source.of_layer(layer), got.cfg, got.weights, got.means, got.commit, got.place.scale)
    folder = sources.folder_of_layer(source, layer, run.config.model.hook, run.layers)
    means = folder / MEANS
    return Found(str(folder), sources.read_cfg(folder), folder / sources.WEIGHTS, means if means.is_file() else None)


def measured_scale(rows: RowSet, means: UnitMeans | None) -> float:
    """s = sqrt(d_in) / mean |x|, over at most so many training rows, as SAELens estimates it where it trains."""
    total, n = 0.0, 0
    for x, units in spread_units(rows, _SCALE_ROWS, EVALUATE_ROWS):
        read = x if means is None else means.centred(x, units)
        total += float(np.linalg.norm(read.astype(np.float64), axis=1).sum())
        n += len(read)
    if not total:
        raise UserError("the stored activations are all zero; extract them again with --set activations.dtype=float32")
    return math.sqrt(rows.d_model) * n / total


def _means(found: Found, rows: RowSet, stored: Stored, layer: int) -> UnitMeans | None:
    """What is subtracted: the SAE's own means, else those of this run's training rows; None without `sae.centre: unit`."""
    if not stored.centred:
        return None
    if found.means is None:
        if (found.cfg.get("metadata") or {}).get("sae_genomics"):
            raise UserError(
                f"sae.from: {found.name} has no {MEANS}, and reads activations minus these means; copy the whole folder"
            )
        say(f"train layer {layer}: measures the mean activation of each unit (sae.centre: unit)")
        return measure_means(rows)
    means = load_means(found.means)
    if means.d_model != rows.d_model:
        raise UserError(
            f"sae.from: {found.means} has means {means.d_model} wide, and the activations are {rows.d_model} wide"
        )
    return means


def _origin(found: Found, cfg: dict[str, Any], scale: float, notes: list[str]) -> dict[str, Any]:
    return {
        "name": found.name,
        "commit": found.commit,
        "weights": hash_of(found.weights),
        "architecture": cfg["architecture"],
        "scale": scale,
        "notes": notes,
    }


def _read_files(run: Run, layer: int, found: Found) -> list[Path]:
    """Those whose hashes `sources.identity` takes; of a release none, because its name counts there."""
    if found.commit is not None:
        return []
    return [path for name in sources.FILES if (path := found.weights.parent / name).is_file()]


def _metadata(
    run: Run, cfg: dict[str, Any], stored: Stored, fingerprint: str, origin: dict[str, Any]
) -> dict[str, Any]:
    """What its publisher says of the SAE, and beside it where it is used now."""
    header = stored.header
    said = {key: value for key, value in (cfg.get("metadata") or {}).items() if key != "sae_genomics"}
    before = (cfg.get("metadata") or {}).get("sae_genomics") or {}
    return {
        **said,
        "model_name": said.get("model_name") or header.model,
        "hook_name": header.hook_name,
        "hook_layer": header.layer,
        "sae_genomics": {
            "version": __version__, "run": run.name, "fingerprint": fingerprint, "model_identity": header.model_identity,
            **({"model_revision": run.model_info.revision} if run.model_info.revision else {}),
            "hook": header.hook, "layer": header.layer,
            "published": {**{key: value for key, value in origin.items() if key != "notes"}, "said": before},
        },
    }  # fmt: skip


def _facts(encoder: Encoder, cfg: dict[str, Any], scale: float, origin: dict[str, Any]) -> dict[str, Any]:
    """metrics.json of what is not measured: nothing was trained here."""
    before = ((cfg.get("metadata") or {}).get("sae_genomics") or {}).get("training") or {}
    return {
        "architecture": before.get("architecture") or cfg["architecture"],
        "d_in": encoder.d_in, "d_sae": encoder.d_sae, "k": encoder.k or None, "steps": None, "tokens_trained": None,
        "batch_tokens": None, "lr": None, "activation_scale": scale, "train_dead_share": None, "seconds": 0.0,
        "tokens_per_s": None, "from": origin,
    }  # fmt: skip


def _refuse_useless(name: str, layer: int, stored: Stored, measured: Evaluation) -> None:
    fvu = measured.fvu if measured.varies else measured.relative_error
    if failed(fvu):
        raise UserError(
            f"sae.from: {name} reproduces the activations of {stored.header.hook_name} of {stored.header.model} no better than their mean "
            f"does (FVU {fvu:.3g}; 1 is the mean, 0 is perfect): it was trained on other activations; choose one of this model and layer {layer}"
        )
