"""Stage associate: a layer's features against units, labels and spans, in one pass over its activations.

1. The untrained model's features and the linear baselines are found, where they are asked for.
2. One pass encodes every block of whole items with the layer's SAE; every accumulator of `accumulators.py` adds it up.
3. The accumulators write their tables, one after the other; the last one writes features.parquet and features.h5ad.
"""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pandas as pd
import torch

from sae_genomics.activations.extraction.extract import use_allotted_cores
from sae_genomics.associations.accumulators import accumulators_of
from sae_genomics.associations.cell_sample import sample_cells
from sae_genomics.associations.files import has_untrained
from sae_genomics.associations.item_matrix import stored_rows
from sae_genomics.associations.layer import Layer
from sae_genomics.associations.layer_pass import LayerPass
from sae_genomics.associations.linear_baselines import (
    MOMENT_ROWS,
    NAMES,
    RANDOM,
    FoundUnits,
    LinearBaseline,
    find_units,
)
from sae_genomics.associations.stream import training_rows
from sae_genomics.associations.untrained import UntrainedFeatures, untrained_features
from sae_genomics.data.units import Units
from sae_genomics.leftovers import scratch_folder
from sae_genomics.models import pick_device
from sae_genomics.progress import Progress, stop_point
from sae_genomics.run import Run
from sae_genomics.sae.load import load_encoder
from sae_genomics.stages import stage_named


def run_task(run: Run, task: int) -> None:
    """Leave the layer's files of `files.associate_files`.

    Raises DamagedArtifact when an input cannot be read, Interrupted at a signal (the layer starts again then).
    """
    number = run.layers[task]
    run.layer_results(number).mkdir(parents=True, exist_ok=True)
    heartbeat = run.heartbeat_file(stage_named("associate"), task)
    with ExitStack() as stack:
        layer = open_layer(run, task, stack)
        find_linear_units(layer)
        progress = Progress(f"associate layer {number}", stored_rows(run), "tokens", heartbeat)
        accumulators = [entry.make(layer) for entry in accumulators_of(run)]
        LayerPass(layer, accumulators).stream(progress)
        features = layer.totals.table()
        for accumulator in accumulators:
            stop_point()
            features = accumulator.finish(features)
    progress.finish()


def open_layer(run: Run, task: int, stack: ExitStack) -> Layer:
    """What is known of the layer before the pass, the untrained model's features among it."""
    device = pick_device(run.config.sae.device)
    if device.type == "cpu":
        use_allotted_cores()
    units, items = run.kind.read_units(run), read_items(run)
    untrained = _untrained(run, task, units, items, device)  # first, so that its memory is free again for the pass
    return Layer(
        run, run.layers[task], units, items,
        sample_cells(items, run.config.associations.max_auroc_cells, run.config.run.seed),
        load_encoder(run.sae_dir(run.layers[task]), device),
        stack.enter_context(scratch_folder(run, stage_named("associate"), task)),
        stack,
        torch.get_num_threads(),
        untrained,
        run.kind.read_spans(run),
    )  # fmt: skip


def read_items(run: Run) -> pd.DataFrame:
    """The run's items; what people call each of them is shown in examples, which cells have none of."""
    columns = ["item", "item_id", "heldout", "group", "label"]
    return run.kind.read_items(run, [*columns, "name"] if run.kind.named_items else columns)


def _untrained(
    run: Run, task: int, units: Units, items: pd.DataFrame, device: torch.device
) -> UntrainedFeatures | None:
    if not has_untrained(run):
        return None
    if device.type == "mps":  # as in training
        device = torch.device("cpu")
    with scratch_folder(run, stage_named("associate"), task) as folder:
        return untrained_features(run, run.layers[task], units, items, device, folder)


def find_linear_units(layer: Layer) -> None:
    """Find the linear baselines on training items; on all items where none is a training item."""
    wanted = [name for name in layer.run.config.validation.baselines if name in NAMES]
    names: list[str] = list(wanted) if _sums_linear(layer) else []
    for_spans = ["neurons", RANDOM] if layer.spans is not None and len(layer.spans) else []
    layer.found = _found(layer, list(dict.fromkeys([*names, *for_spans])))
    for name in names:
        baseline = LinearBaseline(layer.found[name], len(layer.units), len(layer.sample), layer.folder)
        layer.linear[name] = layer.stack.enter_context(baseline)


def _sums_linear(layer: Layer) -> bool:
    """Whether any table is made of the linear baselines' sums or maxima."""
    return layer.run.kind.units_are_genes or len(layer.sample) > 0


def _found(layer: Layer, names: list[str]) -> dict[str, FoundUnits]:
    if not names:
        return {}
    run, heldout = layer.run, layer.heldout
    heldout = heldout if not heldout.all() else np.zeros_like(heldout)
    rows = training_rows(run, layer.number, heldout, MOMENT_ROWS, layer.encoder)
    heartbeat = run.heartbeat_file(stage_named("associate"), run.layers.index(layer.number))
    progress = Progress(f"associate layer {layer.number}: neurons and components", None, "steps", heartbeat)

    def pause() -> None:
        stop_point()
        progress.advance(1)

    return find_units(
        names, layer.encoder.d_in, rows, run.config.run.seed, pause, run.config.associations.random_directions
    )
