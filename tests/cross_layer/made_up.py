"""Activations of made-up layers."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from sae_genomics.cross_layer.activations import LayerActivations, SparseRows


def rows_of(dense: np.ndarray) -> SparseRows:
    """Tokens x features, as a layer's sparse rows."""
    matrix = sparse.csr_matrix(dense.astype(np.float32))
    return SparseRows(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data)


def activations_of(
    layers: dict[int, np.ndarray], unit: np.ndarray, second: dict[int, np.ndarray] | None = None
) -> LayerActivations:
    """Of dense layers on the same tokens; every ten tokens are an item."""
    return LayerActivations(
        unit.astype(np.int32), np.arange(len(unit)) // 10, {layer: rows_of(x) for layer, x in layers.items()},
        {layer: x.shape[1] for layer, x in layers.items()}, int(unit.max()) + 1, True,
        {layer: rows_of(x) for layer, x in (second or {}).items()},
    )  # fmt: skip


def random_layer(rng: np.random.Generator, n_tokens: int, d_sae: int, share: float) -> np.ndarray:
    """Log-normal activations of a share of the features of each token."""
    return (rng.lognormal(0, 1, (n_tokens, d_sae)) * (rng.random((n_tokens, d_sae)) < share)).astype(np.float32)
