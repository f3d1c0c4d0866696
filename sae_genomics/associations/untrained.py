"""Baseline `untrained`: what an SAE finds in a model of the same shape that has learned nothing.

The model gets the random weights that its training began with. It reads some of the run's cells, evenly spread over the file; an SAE of
the run's own settings is trained on its activations for a tenth of the steps; the SAE's features go through the same sums
as the run's, over those cells. What they match shows what data and architecture give by themselves: which gene a token is, above all.
The SAE is kept beside the run's own: `cross_layer` counts which of the trained model's features have a match among its features.
(Heap et al. 2025, arXiv:2501.17727.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from sae_genomics.activations.extraction.tokenised import TokenisedShard, tokenised_items
from sae_genomics.activations.format.store import open_activations
from sae_genomics.activations.format.token_store import TokenShard, write_tokens
from sae_genomics.activations.reading.batches import ShuffledBatches
from sae_genomics.activations.reading.rows import RowSet, ShardRows, unused_rows
from sae_genomics.associations.accumulators import keeps_rankings
from sae_genomics.associations.cell_sample import CellSample, sample_cells
from sae_genomics.associations.cell_sums import FeatureTotals, add_sampled
from sae_genomics.associations.cell_types import best_units, compare_units, empty_baselines
from sae_genomics.associations.column_store import ColumnStore
from sae_genomics.associations.files import UNTRAINED, untrained_sae_dir
from sae_genomics.associations.gene_ranking import rank_genes
from sae_genomics.associations.gene_sums import GeneSums
from sae_genomics.associations.gene_values import gene_values
from sae_genomics.associations.stream import file_blocks, tokens_of, unit_counts
from sae_genomics.associations.triples import Triples
from sae_genomics.associations.untrained_model import capture_untrained, load_untrained, seed_for
from sae_genomics.atomic import read_json
from sae_genomics.data.units import Units
from sae_genomics.errors import UserError
from sae_genomics.progress import Progress, stop_point
from sae_genomics.run import Run
from sae_genomics.sae.architectures import ARCHITECTURES
from sae_genomics.sae.export import fold, save_sae
from sae_genomics.sae.load import Encoder
from sae_genomics.sae.measure_means import measure_means
from sae_genomics.sae.section import DEFAULT_ARCHITECTURE, SaeConfig
from sae_genomics.sae.spec import Spec, make_spec
from sae_genomics.sae.train import fit
from sae_genomics.stages import stage_named

SHARE_OF_STEPS = 10  # one in so many of sae.steps


@dataclass(frozen=True)
class UntrainedFeatures:
    """genes: rows of untrained_genes.parquet. tokens: int64 [units], of each gene in the sample.

    best: rows of cell_type_baselines.parquet, on the sample's cells. rankings: rows of untrained_rankings.parquet, in blocks.
    """

    genes: pd.DataFrame
    tokens: npt.NDArray[np.int64]
    best: pd.DataFrame
    rankings: list[pd.DataFrame]


def spread_cells(heldout: npt.NDArray[np.bool_], n_cells: int) -> npt.NDArray[np.int64]:
    """At most `n_cells` rows of cells.parquet, ascending: at even distances among training cells and among held-out ones, in proportion.

    At least one is a training cell, where there is one. heldout: bool [cells of the run].
    """
    if n_cells >= len(heldout):
        return np.arange(len(heldout))
    train, other = np.flatnonzero(~heldout), np.flatnonzero(heldout)
    n_train = min(max(round(n_cells * len(train) / len(heldout)), min(1, len(train))), n_cells)
    return np.sort(np.concatenate([_spread(train, n_train), _spread(other, n_cells - n_train)]))


def _spread(cells: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    n = min(n, len(cells))
    return cells[np.arange(n) * len(cells) // max(n, 1)]


def untrained_features(
    run: Run, layer: int, units: Units, cells: pd.DataFrame, device: torch.device, folder: Path
) -> UntrainedFeatures:
    """Everything about the baseline; the activations stand in `folder` meanwhile.

    cells: as `DataKind.read_items` gives them. device: for the SAE. The result depends on run.seed, never on what ran before.
    Raises UserError when the SAE cannot be trained, Interrupted at a signal.
    """
    settings = run.config
    sample = cells.iloc[spread_cells(cells["heldout"].to_numpy(bool), settings.validation.untrained_cells)]
    with _named():
        file = folder / "untrained.h5"
        tokens_file = folder / "untrained_tokens.h5"
        stored, progress = _activations(run, layer, sample.index.to_numpy(np.int64), file)
        heldout = sample["heldout"].to_numpy(bool)
        write_tokens(tokens_file, stored)
        encoder = _trained(run, layer, file, tokens_file, stored, heldout, device, progress)
    _save(run, layer, encoder)
    ranked = sample_cells(sample, settings.associations.max_auroc_cells, settings.run.seed)
    with ColumnStore(len(ranked), encoder.d_sae, folder) as columns:
        sums = _add_up(run, file, stored, units, heldout, encoder, ranked, columns)
        progress.finish()
        best = empty_baselines()
        if len(ranked):
            numbers = np.arange(encoder.d_sae)
            best = best_units(compare_units(columns, ranked), "untrained", numbers, numbers.astype(str).astype(object))
    file.unlink()
    tokens_file.unlink()
    genes = rank_genes(
        sums.by_feature(), sums.tokens, units.unit_id, units.unit_name, settings.associations.top_genes,
        settings.associations.min_gene_tokens,
    )  # fmt: skip
    rankings: list[pd.DataFrame] = []
    if keeps_rankings(run):
        least = settings.associations.min_gene_tokens
        rankings = list(gene_values(sums.by_feature(), sums.tokens, settings.validation.rank_by, least))
    return UntrainedFeatures(genes.table, sums.tokens, best, rankings)


@contextmanager
def _named() -> Iterator[None]:
    """Errors say that they are about this baseline, which can be left out."""
    try:
        yield
    except UserError as error:
        raise UserError(
            f"baseline untrained: {error}; or leave the baseline out with --set validation.baselines=neurons,pca,ica"
        ) from None


def _activations(run: Run, layer: int, cells: npt.NDArray[np.int64], path: Path) -> tuple[TokenShard, Progress]:
    """Run the untrained model on the cells and store the layer's activations. Returns the stored tokens, and progress so far."""
    model = load_untrained(run)
    shard: TokenisedShard = tokenised_items(run, model, cells)
    heartbeat = run.heartbeat_file(stage_named("associate"), run.layers.index(layer))
    n_trained = _steps(run) * run.config.sae.batch_tokens
    progress = Progress(f"associate layer {layer}: untrained model", len(shard.tokens) + n_trained, "tokens", heartbeat)
    capture_untrained(run, model, shard, {layer: path}, progress)
    return shard.stored(run, "", 0), progress


def _steps(run: Run) -> int:
    return max(1, run.config.sae.steps // SHARE_OF_STEPS)


def _size_of_published(run: Run, layer: int) -> dict[str, Any]:
    """With `sae.from`: as many features as the published SAE has, and as many active ones, so that the two can be compared."""
    if run.config.sae.from_ is None:
        return {}
    metrics = read_json(run.sae_dir(layer) / "metrics.json") or {}
    active = metrics.get("k") or round(metrics.get("train_l0") or run.config.sae.k)
    d_sae = int(metrics.get("d_sae") or run.d_sae)
    known = {each.name for each in ARCHITECTURES if each.section is SaeConfig}
    architecture = metrics.get("architecture")
    return {
        "d_sae": d_sae,
        "k": min(max(1, active), d_sae),
        "architecture": architecture if architecture in known else DEFAULT_ARCHITECTURE,
    }


def _trained(
    run: Run,
    layer: int,
    file: Path,
    tokens_file: Path,
    stored: TokenShard,
    heldout: npt.NDArray[np.bool_],
    device: torch.device,
    progress: Progress,
) -> Encoder:
    """An SAE of the run's settings on the training cells' rows, for a tenth of the steps."""
    config = run.config.sae
    with open_activations(file) as opened:
        special = np.flatnonzero(stored.special)
        left_out = unused_rows(stored.item_ptr, special, opened.nonfinite_rows, config.include_cls)
        shard = ShardRows(file, stored.item_ptr, ~heldout, left_out, opened.chunk_rows, tokens_file)
        rows = RowSet([shard], opened.d_model, opened.dtype, opened.row_bytes)
    shorter = config.model_copy(update={"steps": _steps(run), **_size_of_published(run, layer)})
    spec: Spec = make_spec(shorter, rows.d_model, rows.n_rows, seed_for(run, b"untrained sae", layer))
    means = measure_means(rows) if config.centre == "unit" else None
    centre = None if means is None else means.subtract
    with ShuffledBatches(rows, spec.batch_rows, spec.seed, pin_memory=device.type == "cuda", centre=centre) as batches:
        trained = fit(
            spec, batches, layer=layer, normalise=config.normalise, checkpoint=file.with_name("untrained.safetensors"),
            fingerprint="", open_loggers=lambda step: [], progress=progress, device=device,
        )  # fmt: skip
    file.with_name("untrained.safetensors").unlink(missing_ok=True)
    return replace(fold(trained.state, spec, trained.scale), means=means).to(device)


def _add_up(
    run: Run,
    file: Path,
    stored: TokenShard,
    units: Units,
    heldout: npt.NDArray[np.bool_],
    encoder: Encoder,
    ranked: CellSample,
    columns: ColumnStore,
) -> GeneSums:
    """One pass over the stored activations: gene sums, and the ranked cells' maxima into `columns`."""
    lookup = units.lookup()
    expected = unit_counts(stored, lookup, len(units))
    sums, totals = GeneSums(encoder.d_sae, len(units), expected), FeatureTotals(encoder.d_sae)
    with open_activations(file) as opened:
        for block, x in file_blocks(opened, stored, lookup, heldout, 0, run.config.associations.batch_tokens):
            stop_point()
            triples = Triples.ordered(*encoder.encode_sparse(encoder.input(x, tokens_of(units, block.unit))))
            sums.add(block, triples)
            rows = totals.add(block, triples)
            add_sampled(columns, rows, ranked.row[block.first_item : block.first_item + block.n_items])
    return sums


def _save(run: Run, layer: int, encoder: Encoder) -> None:
    """Keep the SAE as the run's own are kept: cross_layer asks which of its features the trained model's features go with."""
    metadata = {
        "model_name": f"{run.model_info.name} (untrained)",
        "model_class_name": run.model_info.family,
        "hook_name": f"blocks.{layer}.hook_{run.config.model.hook}",
        "hook_layer": layer,
        "dataset_path": str(run.data_file.name),
        "sae_genomics": {"run": run.name, "model_identity": UNTRAINED, "hook": run.config.model.hook, "layer": layer},
    }
    save_sae(untrained_sae_dir(run, layer), encoder, metadata)
