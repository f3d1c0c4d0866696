"""steered.h5ad: items before and after steering, and items of the label they were moved toward, as AnnData.

X is what the model predicts of each unit, with nothing hidden: of values the prediction from the item's embedding where the model has
one, else from the token; of distributions the mean probability over the item's tokens. Units that an item lacks are 0. obsm has the
items' embeddings as `X_model`. obs says which item a row is, and its `state`: before, after or target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.sparse import csr_matrix, vstack

from sae_genomics.atomic import atomic_path
from sae_genomics.causal.directions import Direction
from sae_genomics.causal.samples import Sample, paused_batches, resumed_with, rows32

if TYPE_CHECKING:
    from sae_genomics.data.units import Units
    from sae_genomics.models.base import FoundationModel
    from sae_genomics.models.editing import Predictions
    from sae_genomics.run import Run

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Steered:
    """One pair of labels: the items that are moved, some that are there, and the ways to move, at dose 1."""

    start: str
    stop: str
    items: Sample
    targets: Sample
    directions: Sequence[Direction]


def write_steered(path: Path, run: Run, layer: int, model: FoundationModel, steered: Sequence[Steered]) -> None:
    """Write the file atomically; without a pair it has no rows."""
    from anndata import AnnData

    units, items = run.kind.read_units(run), run.kind.read_items(run, ["item_id", "label"])
    obs, values, embeddings = [], [csr_matrix((0, len(units)), dtype=np.float32)], [np.zeros((0, model.info.d_model))]
    for pair in steered:
        vectors = np.stack([each.vector for each in pair.directions])
        states = [("before", ""), *(("after", each.method) for each in pair.directions)]
        for sample, offered, names in (
            (pair.items, np.concatenate([np.zeros_like(vectors[:1]), vectors]), states),
            (pair.targets, np.zeros_like(vectors[:1]), [("target", "")]),
        ):
            predicted, embedding = _predicted(run, model, layer, sample, offered, units)
            values.append(predicted)
            embeddings.append(embedding)
            for state, method in names:
                about = {"from_label": pair.start, "to_label": pair.stop, "state": state, "method": method}
                obs.append(items.iloc[sample.rows].assign(**about))
    columns = ["item_id", "label", "from_label", "to_label", "state", "method"]
    table = pd.concat(obs, ignore_index=True)[columns] if obs else pd.DataFrame({name: [] for name in columns})
    table = table.astype(str)
    table.index = [
        ":".join(filter(None, (row.item_id, row.from_label, row.to_label, row.state, row.method)))
        for row in table.itertuples()
    ]
    var = pd.DataFrame({"unit_id": units.unit_id.astype(str), "unit_name": units.unit_name.astype(str)})
    var.index = var["unit_id"].to_numpy()
    adata = AnnData(csr_matrix(vstack(values), dtype=np.float32), table, var)
    adata.obsm["X_model"] = np.concatenate(embeddings).astype(np.float32)
    adata.uns["layer"] = layer
    with atomic_path(path) as temporary:
        adata.write_h5ad(temporary)


def _predicted(
    run: Run, model: FoundationModel, layer: int, sample: Sample, vectors: Float32, units: Units
) -> tuple[csr_matrix, Float64]:
    """Of every vector and item, the items of one vector after the other: predictions [n, units] and embeddings [n, d_model]."""
    n_items, usual = len(sample.rows), sample.usual
    embedding = np.zeros((len(vectors) * n_items, model.info.d_model))
    weight = np.zeros(len(embedding))
    values = csr_matrix((len(embedding), len(units)), dtype=np.float64)
    counts = values.copy()
    batch_tokens = run.config.activations.batch_tokens
    for sequences, rows, paused in paused_batches(model, sample, layer, run.config.model.hook, batch_tokens):
        for which, local, local_rows, found in resumed_with(model, paused, vectors, usual[rows], batch_tokens):
            assert found.embedding is not None
            lengths = paused.batch.lengths[local]
            at = which * n_items + sample.item[sequences[local]]
            np.add.at(embedding, at, rows32(found.embedding) * lengths.astype(np.float64)[:, None])
            weight += np.bincount(at, lengths, minlength=len(embedding))
            kept = usual[rows][local_rows] & (paused.batch.unit[local_rows] >= 0)
            added = _per_unit(
                model,
                found,
                np.repeat(at, lengths)[kept],
                paused.batch.unit[local_rows][kept],
                kept,
                units,
                values.shape,
            )
            values, counts = values + added[0], counts + added[1]
    counts.data = 1 / np.maximum(counts.data, 1)
    return csr_matrix(values.multiply(counts)), embedding / np.maximum(weight, 1)[:, None]


def _per_unit(
    model: FoundationModel,
    found: Predictions,
    at: Int64,
    unit: npt.NDArray[np.int32],
    kept: npt.NDArray[np.bool_],
    units: Units,
    shape: tuple[int, int],
) -> tuple[csr_matrix, csr_matrix]:
    """Sums and counts of predictions, [rows, units] each. at: row of each kept token. kept: bool [t]."""
    if model.outcome == "value":
        of_tokens = found.token if found.from_item is None else found.from_item
        assert of_tokens is not None
        values = rows32(of_tokens)[kept].astype(np.float64)
        return csr_matrix((values, (at, unit)), shape=shape), csr_matrix((np.ones(len(at)), (at, unit)), shape=shape)
    assert found.token is not None
    chances = found.token.float().softmax(dim=-1)[:, torch.from_numpy(units.token.astype(np.int64))]
    dense = csr_matrix((np.ones(len(at)), (at, np.arange(len(at)))), shape=(shape[0], len(at))) @ rows32(chances)[kept]
    n_tokens = np.bincount(at, minlength=shape[0])
    return csr_matrix(dense), csr_matrix(np.broadcast_to(n_tokens[:, None], shape).astype(np.float64))
