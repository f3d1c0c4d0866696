"""A request from beginning to end: what is checked, read, run and counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sae_genomics.activations.extraction.extract import loaded_model
from sae_genomics.causal.samples import evenly_of, read_sample
from sae_genomics.causal.statistics import FeatureStatistics
from sae_genomics.causal.stored import fired_and_values
from sae_genomics.causal.targets import own_units, unit_bins
from sae_genomics.causal.task import why_not_edited
from sae_genomics.commands import command
from sae_genomics.errors import UserError
from sae_genomics.intervene.items import ALL, pool, spread
from sae_genomics.intervene.passes import Work, pass_all
from sae_genomics.intervene.request import Request
from sae_genomics.intervene.subject import Subject, subject_of
from sae_genomics.intervene.tables import Own, norm_of, size_rows, specificity_rows, unit_table
from sae_genomics.progress import say
from sae_genomics.run import Run
from sae_genomics.stages import stage_named


@dataclass(frozen=True)
class Answer:
    """facts: what was edited where, JSON-able. sizes, specificity: one row per outcome. units: see `tables.unit_table`."""

    facts: dict[str, Any]
    sizes: list[dict[str, Any]]
    specificity: list[dict[str, Any]]
    units: pd.DataFrame


def answer(run: Run, request: Request) -> Answer:
    """Raises UserError for whatever the reader can mend; nothing is written."""
    request.check()
    run.check(ask_hub=False)
    if request.layer not in run.layers:
        raise UserError(f"--layer {request.layer}: run {run.name} has the layers {', '.join(map(str, run.layers))}")
    refuse_unfinished(run, request)
    subject = subject_of(run, request)
    rows = pool(run, request.items)
    model = loaded_model(run, may_compile=False)
    if reason := why_not_edited(model):
        raise UserError(f"model.family {run.config.model.family}: {reason}, so nothing can be edited in this run")
    if request.masked and model.predicts_next:
        raise UserError("--masked: this model predicts the next token and never hides one; leave it out")
    chosen = spread(run, request.layer, subject, rows, request.max_items, request.needs_activity)
    values, own, features = _training(run, request, subject)
    work = Work(run, model, request, subject, values)
    passed = pass_all(work, read_sample(run, model, chosen))
    specificity = [] if own is None else specificity_rows(work, passed, own)
    units = unit_table(work, passed, run.kind.read_units(run), own)
    facts: dict[str, Any] = {
        "run": run.name, "layer": request.layer, "hook": run.config.model.hook, "subject": subject.name, "edit": request.words,
        "items": " ".join(request.items), "masked": request.masked, "outcome": model.outcome, "draws": request.draws, "seed": work.seed,
        "training_items_named": ALL in request.items, "n_chosen": len(chosen), "n_named": len(rows), **norm_of(passed),
        "features": features,
    }  # fmt: skip
    return Answer(facts, size_rows(work, passed), specificity, units)


def refuse_unfinished(run: Run, request: Request) -> None:
    """Raise UserError where a task that the request rests on is not done."""
    layer = request.layer
    at = run.layers.index(layer)
    wanted: list[tuple[str, int, int | None]] = [
        ("prepare", 0, None),
        *(("extract", shard, layer) for shard in range(run.n_shards)),
        ("train", at, layer),
    ]
    if request.concept is not None and run.config.concepts.enabled:
        wanted.append(("concepts", at, layer))
    for name, task, of_layer in wanted:
        state = run.state(stage_named(name), task, of_layer)
        if not state.done:
            raise UserError(
                f"run {run.name} is not finished: {run.label(stage_named(name), task)} is {state.status} ({state.why}); "
                f"finish it with: {command('pipeline', run)}"
            )


def _training(
    run: Run, request: Request, subject: Subject
) -> tuple[FeatureStatistics | None, Own | None, list[dict[str, Any]]]:
    """Of training items: values of the features, their own units, and what a reader is told of them. A direction has none of these."""
    if not subject.has_activations:
        return None, None, []
    training = np.flatnonzero(~run.kind.read_items(run, ["heldout"])["heldout"].to_numpy(bool))
    stored = evenly_of(training, run.config.causal.training_items)
    say(f"intervene: what {subject.name} does in {len(stored):,} training {run.kind.nouns.items}")
    units, features = run.kind.read_units(run), subject.features
    fired, values = fired_and_values(run, request.layer, subject.encoder, units, stored, features)
    own = np.asarray(own_units(fired, features, run.config.causal.own_units).any(axis=0))
    told = [
        {"feature": int(feature), "rate": float(fired.rate[feature]), "median": float(values.median[feature]), "p99": float(values.p99[feature])}
        for feature in features
    ]  # fmt: skip
    if request.kind == "clamp" and not any(each["p99"] > 0 for each in told):
        raise UserError(
            f"--edit clamp: {subject.name} is never active in training {run.kind.nouns.items}, so there is no value to clamp it at"
        )
    return values, Own(own, unit_bins(fired)), told
