"""Directions that move items of one label toward another, and random ones of the same length.

All come from training items. Of each item the mean over its tokens counts once. Activations are taken as the SAE reads them: with
`sae.centre: unit` the mean of each token's unit is subtracted, so that a direction does not say which units an item has.

    means      m_B - m_A, the difference of the labels' mean items
    features   sum over the features j whose mean differs most clearly of (z_jB - z_jA) d_j, d_j the feature's decoder row
    concept    the vector of the concept B, where the stage `concepts` left one
    random     normal in every coordinate
    shuffled   difference of means between two random halves of the same items, each with as many items of either label: it lies
               where items really differ, and says nothing about the labels

Each is scaled to the length of `means`, so that every token is moved equally far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from sae_genomics.causal.samples import Sample, mean_rows, paused_batches, rows32
from sae_genomics.checked_json import read_checked_json

if TYPE_CHECKING:
    from sae_genomics.models.base import FoundationModel
    from sae_genomics.sae.load import Encoder

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
MEANS, FEATURES, CONCEPT = "means", "features", "concept"


@dataclass(frozen=True)
class ItemMeans:
    """What a layer has of training items, each item once."""

    inputs: Float64
    """[items, d_model], mean over tokens of what the SAE reads"""
    features: csr_matrix
    """[items, d_sae], mean activation over tokens, zeros included"""
    embedding: Float64
    """[items, d_model], the items' own embeddings"""

    def take(self, items: slice) -> ItemMeans:
        """Some of the items."""
        return ItemMeans(self.inputs[items], self.features[items], self.embedding[items])


@dataclass(frozen=True)
class Direction:
    """One way to move items, as long as the difference of means."""

    method: str
    vector: Float32
    features: tuple[int, ...] = ()
    """features that it is made of, the clearest first"""


def item_means(
    model: FoundationModel, encoder: Encoder, sample: Sample, layer: int, hook: str, batch_tokens: int
) -> ItemMeans:
    """One pass over the sample, unedited."""
    import torch

    n, width, usual = len(sample.rows), model.info.d_model, sample.usual
    inputs, sums = np.zeros((n, encoder.d_in)), csr_matrix((n, encoder.d_sae))
    embedding, n_tokens = np.zeros((n, width)), np.zeros(n)
    weight = np.zeros(n)
    item_of = sample.of_tokens()
    for sequences, rows, paused in paused_batches(model, sample, layer, hook, batch_tokens):
        kept = usual[rows]
        item = item_of[rows][kept]
        x = encoder.input(rows32(paused.activations)[kept], paused.batch.token[kept])
        counts = np.bincount(item, minlength=n)
        inputs += mean_rows(x, item, n) * counts[:, None]
        n_tokens += counts
        token, feature, activation = encoder.encode_sparse(x)
        sums = sums + csr_matrix((activation, (item[token], feature)), shape=sums.shape)
        with torch.inference_mode():
            found = model.resume(paused).embedding
        assert found is not None
        lengths = paused.batch.lengths.astype(np.float64)
        np.add.at(embedding, sample.item[sequences], rows32(found) * lengths[:, None])
        weight += np.bincount(sample.item[sequences], lengths, minlength=n)
    share = 1 / np.maximum(n_tokens, 1)
    return ItemMeans(
        inputs * share[:, None],
        csr_matrix(sums.multiply(share[:, None])),
        embedding / np.maximum(weight, 1)[:, None],
    )


def between(means: ItemMeans, is_b: Bools, encoder: Encoder, n_features: int) -> list[Direction]:
    """The directions from the other items toward those of `is_b`: difference of means, and features. is_b: bool [items]."""
    difference = means.inputs[is_b].mean(axis=0) - means.inputs[~is_b].mean(axis=0)
    length = float(np.linalg.norm(difference))
    found = [Direction(MEANS, difference.astype(np.float32))]
    chosen, change = clearest_features(means.features, is_b, n_features)
    if len(chosen):
        vector = change @ encoder.W_dec[chosen.tolist()].double().cpu().numpy()
        if np.linalg.norm(vector) > 0:
            found.append(Direction(FEATURES, scaled(vector, length), tuple(chosen.tolist())))
    return found


def clearest_features(features: csr_matrix, is_b: Bools, wanted: int) -> tuple[Int64, Float64]:
    """The features whose mean differs most clearly between two sets of items, and by how much.

    Clearly: the largest |m_B - m_A| / sqrt(v_A / n_A + v_B / n_B), Welch's t. Returns int64 [n], float64 [n].
    """
    means, spread = [], np.zeros(features.shape[1])
    for side in (is_b, ~is_b):
        some, n = features[np.flatnonzero(side)], int(side.sum())
        mean = np.asarray(some.mean(axis=0)).ravel()
        square = np.asarray(some.multiply(some).mean(axis=0)).ravel()
        means.append(mean)
        spread += np.maximum(square - mean**2, 0) / max(n - 1, 1)
    change = means[0] - means[1]
    least = 1e-3 * float(np.abs(change).max(initial=0.0)) ** 2 + 1e-30  # a feature that hardly fires is not clear
    clear = np.abs(change) / np.sqrt(spread + least)
    order = np.argsort(-clear, kind="stable")[:wanted]
    order = order[np.abs(change[order]) > 0]
    return order.astype(np.int64), change[order]


def scaled(vector: npt.NDArray[np.floating], length: float) -> Float32:
    """The vector with another length; zeros stay zeros."""
    norm = np.linalg.norm(vector, axis=-1, keepdims=True)
    return np.asarray(vector * (length / np.where(norm > 0, norm, 1)), dtype=np.float32)


def shuffled_directions(inputs: Float64, is_b: Bools, length: float, n: int, generator: np.random.Generator) -> Float32:
    """Differences of means of two random halves, each with as many items of either label: float32 [n, d_model]."""
    half = np.zeros((n, len(inputs)))
    for side in (np.flatnonzero(is_b), np.flatnonzero(~is_b)):
        order = np.argsort(generator.random((n, len(side))), axis=1)
        half[:, side] = order < len(side) // 2
    weights = half / half.sum(axis=1, keepdims=True) - (1 - half) / (1 - half).sum(axis=1, keepdims=True)
    return scaled(weights @ inputs, length)


def concept_vectors(folder: Path) -> dict[str, Float32]:
    """Name of a label -> its concept's unit vector, of what the stage `concepts` left in a layer's folder; empty without it."""
    listed, stored = folder / "concepts.json", folder / "concepts.safetensors"
    if not listed.exists() or not stored.exists():
        return {}
    from safetensors.numpy import load_file

    said = read_checked_json(listed)
    concepts: Sequence[dict[str, str]] = [] if said is None else said["concepts"]
    vectors = load_file(stored)["vectors"]
    return {each["name"]: vector for each, vector in zip(concepts, vectors, strict=True) if each["kind"] == "label"}
