"""Accumulator `items`: features.h5ad, items x features, and features.parquet, one row per feature. It finishes last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.activations.format.token_store import read_item_ptr
from sae_genomics.associations.accumulators import Accumulator
from sae_genomics.associations.cell_matrix import CellMatrixWriter
from sae_genomics.associations.layer import EncodedBlock, Layer
from sae_genomics.atomic import atomic_path
from sae_genomics.data.cells.h5ad import CellTable
from sae_genomics.run import Run


class ItemTable:
    """Annotations of items without embeddings, as `CellMatrixWriter.finish` takes them. obs: one row per item that is used."""

    def __init__(self, obs: pd.DataFrame):
        self._obs = obs

    @property
    def obs(self) -> pd.DataFrame:
        return self._obs

    @property
    def obsm_names(self) -> Sequence[str]:
        return ()

    def obsm(self, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        raise KeyError(name)


class ItemMatrix(Accumulator):
    """Writes each item's activations as the blocks come, and what all accumulators say of the features at the end."""

    def __init__(self, layer: Layer):
        self.layer = layer
        encoder = layer.encoder
        path = layer.stack.enter_context(atomic_path(layer.results / "features.h5ad"))
        most = stored_rows(layer.run) * (encoder.k or encoder.d_sae)
        writer = CellMatrixWriter(path, len(layer.items), encoder.d_sae, most)
        self.writer = layer.stack.enter_context(writer)

    def add(self, block: EncodedBlock, threads: Executor) -> Iterable[Future[Any]]:
        self.writer.append(block.item_rows.result())
        return ()

    def finish(self, features: pd.DataFrame) -> pd.DataFrame:
        layer = self.layer
        layer.write(layer.tables.features, features, inference=layer.features_inference)
        features = features.rename(columns=layer.tables.names)
        rows = layer.items["item"].to_numpy(np.int64)
        if layer.run.kind.units_are_genes:
            with CellTable(layer.run.data_file) as table:
                self.writer.finish(table, rows, layer.heldout, features, self._facts())
        else:
            items = ItemTable(layer.items.set_index("item_id")[["label", "group"]].rename_axis("accession"))
            self.writer.finish(items, np.arange(len(rows)), layer.heldout, features, self._facts())
        self.writer.close()
        return features

    def _facts(self) -> dict[str, object]:
        """What features.h5ad says of itself. weights: content hash of the SAE weights that it describes."""
        run, encoder = self.layer.run, self.layer.encoder
        return {
            "layer": self.layer.number,
            "hook": run.config.model.hook,
            "model": run.model_info.name,
            "run": run.name,
            "weights": encoder.weights,
            **({} if encoder.means is None else {"centre": "unit", "unit_means": encoder.means.content}),
        }


def stored_rows(run: Run) -> int:
    """Rows of one layer, special tokens among them."""
    return sum(int(read_item_ptr(run.tokens_file(shard))[-1]) for shard in range(run.n_shards))
