"""attribution.parquet of a run: a layer's strongest features and their causes in an earlier layer."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable

import pandas as pd
import torch

from sae_genomics.activations.extraction.extract import loaded_model
from sae_genomics.artifacts import ATTRIBUTION
from sae_genomics.cross_layer.attribution import Attribution, Limits, Step, attribute
from sae_genomics.cross_layer.files import folder
from sae_genomics.cross_layer.settings import attribution_pairs
from sae_genomics.models import FoundationModel
from sae_genomics.progress import stop_point
from sae_genomics.run import Run
from sae_genomics.sae.load import load_encoder
from sae_genomics.sae.loss_recovered import heldout_tokens
from sae_genomics.tokens import Tokens, items_in_order

NO_ITEM = "no item is held out, so that causes were not looked for"
TURNED_OFF = "cross_layer.attribution_features is 0"
RANKS = "rank_correlation"  # the fact of that name: JSON, one entry per pair of layers


def write_attribution(run: Run, device: torch.device, advance: Callable[[float], None]) -> None:
    """Leave the table; without rows, and with the reason as its note, where nothing can be said. advance: told of each pair of layers."""
    path = folder(run) / ATTRIBUTION.file
    model, tokens, why = _ready(run)
    if model is None or tokens is None:
        ATTRIBUTION.write(path, pd.DataFrame({name: [] for name in ATTRIBUTION.schema.names}), note=why)
        advance(len(attribution_pairs(run)))
        return
    tables, checks = [], []
    for first, second in attribution_pairs(run):
        found = _between(run, model, tokens, (first, second), device)
        found.edges.insert(0, "layer_l", first)
        found.edges.insert(2, "layer_m", second)
        tables.append(found.edges)
        rank = None if math.isnan(found.rank_correlation) else found.rank_correlation
        checks.append({"layer_l": first, "layer_m": second, RANKS: rank, "n_checked": found.n_checked})
        advance(1)
    facts = {RANKS: json.dumps(checks)}
    ATTRIBUTION.write(path, pd.concat(tables, ignore_index=True), note=_told(checks), facts=facts)


def _ready(run: Run) -> tuple[FoundationModel | None, Tokens | None, str]:
    """The model and the items; or why there is nothing to do with them."""
    if run.config.cross_layer.attribution_features == 0:
        return None, None, TURNED_OFF
    model = loaded_model(run, may_compile=False)
    if not model.outcome:
        return (
            None,
            None,
            f"a model of the family {model.info.family} cannot be edited, so that causes were not looked for",
        )
    found = heldout_tokens(run, model, run.config.cross_layer.attribution_items)
    return (model, found[0], "") if found is not None else (None, None, NO_ITEM)


def _between(
    run: Run, model: FoundationModel, tokens: Tokens, layers: tuple[int, int], device: torch.device
) -> Attribution:
    settings = run.config.cross_layer
    encoders = load_encoder(run.sae_dir(layers[0]), device), load_encoder(run.sae_dir(layers[1]), device)
    seed = zlib.crc32(f"cross_layer.attribution {run.config.run.seed} {layers[0]}".encode())
    limits = Limits(settings.attribution_features, settings.attribution_edges, settings.attribution_checked, seed)
    item = items_in_order(tokens)[1]
    step = Step(model, tokens, item, run.config.model.hook, layers, encoders, run.config.activations.batch_tokens)
    return attribute(step, limits, stop_point)


def _told(checks: list[dict[str, float | int | None]]) -> str:
    """The check for a reader."""
    parts = []
    for each in checks:
        rank = each[RANKS]
        said = "was not measured" if rank is None else f"is {rank:.2f}"
        parts.append(f"layer {each['layer_l']} to {each['layer_m']}: it {said} ({each['n_checked']} pairs)")
    return "rank correlation of weight with the exact effect of removing the feature: " + "; ".join(parts)
