"""Stage associate: a layer's features against genes, cells and cell types, in one pass over its activations."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from sae_genomics import artifacts
from sae_genomics.activations.extract import use_allotted_cores
from sae_genomics.activations.token_store import read_item_ptr
from sae_genomics.associations.baselines import add_gene_values
from sae_genomics.associations.cell_matrix import CellMatrixWriter
from sae_genomics.associations.cell_sample import CellSample, sample_cells
from sae_genomics.associations.cell_sums import FeatureTotals, add_sampled
from sae_genomics.associations.cell_types import (
    UnitTests,
    best_types,
    best_units,
    compare_units,
    empty_baselines,
    empty_cell_types,
    feature_cell_types,
    inference,
)
from sae_genomics.associations.column_store import ColumnStore
from sae_genomics.associations.gene_ranking import RankedGenes, rank_genes
from sae_genomics.associations.gene_sums import GeneSums
from sae_genomics.associations.gene_tokens import GeneTokens
from sae_genomics.associations.linear_baselines import MOMENT_ROWS, NAMES, FoundUnits, LinearBaseline, find_units
from sae_genomics.associations.stream import (
    Slots,
    gene_token_counts,
    layer_blocks,
    read_cells,
    read_slots,
    training_rows,
)
from sae_genomics.associations.triples import TokenBlock, Triples
from sae_genomics.associations.untrained import UntrainedFeatures, untrained_features
from sae_genomics.atomic import atomic_path
from sae_genomics.data.h5ad import CellTable
from sae_genomics.leftovers import scratch_folder
from sae_genomics.models import pick_device
from sae_genomics.progress import Progress, stop_point
from sae_genomics.run import Run
from sae_genomics.sae.load import Encoder, load_encoder
from sae_genomics.stages import stage_named

if TYPE_CHECKING:
    from pathlib import Path

_KINDS = {"neurons": "neuron", "pca": "pca", "ica": "ica"}  # in cell_type_baselines.parquet


def run_task(run: Run, task: int) -> None:
    """Leave the files of stages.ASSOCIATE_FILES for the layer, and those of its baselines.

    Raises DamagedArtifact when an input cannot be read, Interrupted at a signal (the layer starts again then).
    """
    layer = run.layers[task]
    folder = run.layer_results(layer)
    folder.mkdir(parents=True, exist_ok=True)
    device = pick_device(run.config.sae.device)
    if device.type == "cpu":
        use_allotted_cores()
    slots, cells = read_slots(run), read_cells(run)
    sample = sample_cells(cells, run.config.associations.max_auroc_cells, run.config.run.seed)
    encoder = load_encoder(run.sae_dir(layer), device)
    untrained = _untrained(run, task, slots, cells, device)  # first, so that its memory is free again for the pass
    n_rows = sum(int(read_item_ptr(run.tokens_file(shard))[-1]) for shard in range(run.n_shards))
    progress = Progress(
        f"associate layer {layer}", n_rows, "tokens", run.heartbeat_file(stage_named("associate"), task)
    )
    with ExitStack() as stack:
        matrix_path = stack.enter_context(atomic_path(folder / "features.h5ad"))
        most = n_rows * (encoder.k or encoder.d_sae)
        writer = stack.enter_context(CellMatrixWriter(matrix_path, len(cells), encoder.d_sae, most))
        layer_pass = LayerPass(run, layer, slots, cells, sample, encoder, writer, stack)
        layer_pass.stream(progress)
        features = _write_tables(run, layer, layer_pass, untrained, folder)
        with CellTable(run.data_file) as table:
            writer.finish(
                table,
                cells["cell"].to_numpy(np.int64),
                layer_pass.heldout,
                features,
                _facts(run, layer, encoder),
            )
        writer.close()
    progress.finish()


def _untrained(
    run: Run, task: int, slots: Slots, cells: pd.DataFrame, device: torch.device
) -> UntrainedFeatures | None:
    if "untrained" not in run.config.validation.baselines:
        return None
    if device.type == "mps":  # as in training
        device = torch.device("cpu")
    with (
        scratch_folder(run, stage_named("associate"), task) as folder,
        ThreadPoolExecutor(torch.get_num_threads(), "sums") as threads,
    ):
        return untrained_features(run, run.layers[task], slots, cells, device, folder, threads)


def _facts(run: Run, layer: int, encoder: Encoder) -> dict[str, object]:
    """What features.h5ad says of itself. weights: content hash of the SAE weights that it describes."""
    return {
        "layer": layer,
        "hook": run.config.model.hook,
        "model": run.model_info.name,
        "run": run.name,
        "weights": encoder.weights,
        **({} if encoder.means is None else {"centre": "unit", "unit_means": encoder.means.content}),
    }


class LayerPass:
    """Everything one pass over a layer's activations accumulates.

    writer: takes features.h5ad's rows. stack: closes the temporary files and removes their folder.
    """

    def __init__(
        self,
        run: Run,
        layer: int,
        slots: Slots,
        cells: pd.DataFrame,
        sample: CellSample,
        encoder: Encoder,
        writer: CellMatrixWriter,
        stack: ExitStack,
    ):
        self.run, self.layer, self.slots, self.cells, self.sample = run, layer, slots, cells, sample
        self.encoder, self.writer = encoder, writer
        self.heldout = cells["heldout"].to_numpy(bool)
        self.n_threads = torch.get_num_threads()
        self.genes = GeneSums(encoder.d_sae, len(slots), self.n_threads, gene_token_counts(run, slots))
        self.gene_tokens = GeneTokens(len(slots))
        self.totals = FeatureTotals(encoder.d_sae)
        folder = stack.enter_context(scratch_folder(run, stage_named("associate"), run.layers.index(layer)))
        self.feature_cells = stack.enter_context(ColumnStore(len(sample), encoder.d_sae, folder))
        self.gene_cells = stack.enter_context(ColumnStore(len(sample), len(slots), folder))
        self.linear = {
            name: stack.enter_context(LinearBaseline(found, len(slots), len(sample), folder))
            for name, found in self._linear_units().items()
        }

    def _linear_units(self) -> dict[str, FoundUnits]:
        """Found on training cells; on all cells where none is a training cell."""
        heldout = self.heldout if not self.heldout.all() else np.zeros_like(self.heldout)
        names = [name for name in self.run.config.validation.baselines if name in NAMES]
        if not names:
            return {}
        rows = training_rows(self.run, self.layer, heldout, MOMENT_ROWS, self.encoder)
        heartbeat = self.run.heartbeat_file(stage_named("associate"), self.run.layers.index(self.layer))
        progress = Progress(f"associate layer {self.layer}: neurons and components", None, "steps", heartbeat)

        def pause() -> None:
            stop_point()
            progress.advance(1)

        return find_units(names, self.encoder.d_in, rows, self.run.config.run.seed, pause)

    def stream(self, progress: Progress) -> None:
        """Encode every block and add it up; a block is added up while the next one is encoded."""
        batch_tokens = self.run.config.associations.batch_tokens
        with ThreadPoolExecutor(1, "associate") as consumer, ThreadPoolExecutor(self.n_threads + 2, "sums") as threads:
            pending: Future[None] | None = None
            for block, x in layer_blocks(self.run, self.layer, self.slots, self.heldout, batch_tokens):
                stop_point()
                x = self.encoder.input(x, self.slots.tokens_of(block.slot))  # what follows reads what the SAE reads
                triples = encode_block(self.encoder, x)
                if pending is not None:
                    pending.result()
                pending = consumer.submit(self._add, block, x, triples, threads)
                progress.advance(len(block))
            if pending is not None:
                pending.result()

    def _add(
        self, block: TokenBlock, x: npt.NDArray[np.float32], triples: Triples, threads: ThreadPoolExecutor
    ) -> None:
        sample_row = self.sample.row[block.first_cell : block.first_cell + block.n_cells]
        rows = threads.submit(self.totals.add, block, triples)
        linear = [threads.submit(baseline.add, block, x, sample_row) for baseline in self.linear.values()]
        self.gene_tokens.add(block)
        self.genes.add(block, triples, threads)
        self.writer.append(rows.result())
        if len(self.sample):
            add_sampled(self.feature_cells, rows.result(), sample_row)
        for future in linear:
            future.result()


def encode_block(encoder: Encoder, x: npt.NDArray[np.float32]) -> Triples:
    """A block's triples. The encoder bounds its own memory, so a long cell does no harm."""
    return Triples.ordered(*encoder.encode_sparse(x))


def _write_tables(
    run: Run, layer: int, done: LayerPass, untrained: UntrainedFeatures | None, folder: Path
) -> pd.DataFrame:
    """Write the Parquet tables; returns features.parquet's rows."""
    settings, slots, weights = run.config.associations, done.slots, done.encoder.weights
    names = (slots.gene_id, slots.gene_symbol, settings.top_genes, settings.min_gene_tokens)
    ranked = rank_genes(done.genes.by_feature(), done.genes.tokens, *names)
    artifacts.FEATURE_GENES.write(folder / "feature_genes.parquet", ranked.table, weights=weights)
    stop_point()
    counted = done.gene_tokens.table(slots, done.genes.tokens, None if untrained is None else untrained.tokens)
    artifacts.GENE_TOKENS.write(folder / "gene_tokens.parquet", counted, weights=weights)
    for name, baseline in done.linear.items():
        stop_point()
        baseline.tell(f"associate layer {layer}")
        genes = rank_genes(baseline.sums.by_unit(), done.genes.tokens, *names).table
        table = artifacts.BASELINE_GENES[name]
        table.write(folder / table.file, genes, note=baseline.note, weights=weights)
    if untrained is not None:
        table = artifacts.BASELINE_GENES["untrained"]
        table.write(folder / table.file, untrained.genes, weights=weights)
    for name in set(artifacts.BASELINE_GENES) - set(run.config.validation.baselines):
        (folder / artifacts.BASELINE_GENES[name].file).unlink(missing_ok=True)  # of other settings
    stop_point()
    tests = compare_units(done.feature_cells, done.sample) if len(done.sample) else None
    said = inference(tests, run.config.data.group_key) if tests else None
    cell_types = feature_cell_types(tests) if tests else empty_cell_types()
    artifacts.FEATURE_CELL_TYPES.write(
        folder / "feature_cell_types.parquet", cell_types, weights=weights, inference=said
    )
    baselines = _baselines(run, done, tests, untrained) if tests else empty_baselines()
    artifacts.CELL_TYPE_BASELINES.write(
        folder / "cell_type_baselines.parquet", baselines, weights=weights, inference=said
    )
    features = _features(done, ranked, tests, cell_types)
    artifacts.FEATURES.write(folder / "features.parquet", features, weights=weights, inference=said)
    return features


def _baselines(run: Run, done: LayerPass, features: UnitTests, untrained: UntrainedFeatures | None) -> pd.DataFrame:
    add_gene_values(run, done.gene_cells, done.sample, done.cells)
    genes = compare_units(done.gene_cells, done.sample)
    numbers = np.arange(len(features.auroc_train))
    parts = [
        best_units(features, "feature", numbers, numbers.astype(str).astype(object)),
        best_units(genes, "gene", done.slots.token, done.slots.gene_symbol),
    ]
    for name, baseline in done.linear.items():
        stop_point()
        if baseline.units.n_units:
            tests = compare_units(baseline.cells, done.sample)
            parts.append(best_units(tests, _KINDS[name], np.arange(baseline.units.n_units), baseline.units.names))
    if untrained is not None:
        parts.append(untrained.best)
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else empty_baselines()


def _features(done: LayerPass, ranked: RankedGenes, tests: UnitTests | None, cell_types: pd.DataFrame) -> pd.DataFrame:
    totals = done.totals
    with np.errstate(divide="ignore", invalid="ignore"):
        frame = pd.DataFrame(
            {
                "feature": np.arange(totals.d_sae, dtype=np.int32),
                "firing_rate": totals.n_active / max(totals.tokens, 1),
                "n_tokens": totals.n_active,
                "n_cells": totals.n_cells,
                "mean_activation": np.where(totals.n_active > 0, totals.activation / totals.n_active, 0.0),
                "max_activation": totals.maximum.astype(np.float64),
                "heldout_firing_rate": totals.heldout_active / np.float64(totals.heldout_tokens),
                "top_gene": pd.Series(done.slots.gene_symbol[ranked.top_slot]).where(ranked.top_slot >= 0, None),
                "specificity": ranked.specificity,
            }
        )
    if tests is None:
        return frame.assign(best_cell_type=None, best_cell_type_auroc=np.nan, best_cell_type_q_value=np.nan)
    return pd.concat([frame, best_types(tests, cell_types["q_value"].to_numpy(np.float64))], axis=1)
