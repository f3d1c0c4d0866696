"""What a match between layers comes to without learning: features of one layer among those of an SAE on an untrained model."""

from __future__ import annotations

import zlib

import numpy as np
from scipy import sparse

from sae_genomics.cross_layer.activations import Int64, LayerActivations, SparseRows
from sae_genomics.cross_layer.correlations import Features, largest, permuted_within
from sae_genomics.cross_layer.matching import null_of
from sae_genomics.cross_layer.persistence import Found
from sae_genomics.cross_layer.untrained import Untrained


class UntrainedFloor:
    """activations: of all layers. untrained: of the untrained model's SAEs, on some of the same tokens. draws: times that tokens are permuted."""

    def __init__(self, activations: LayerActivations, untrained: Untrained, seed: int, draws: int):
        self.token, self.why = untrained.token, untrained.why
        rng = np.random.default_rng([seed, zlib.crc32(b"cross_layer.untrained")])
        self._orders = [permuted_within(activations.unit[self.token], rng) for _ in range(draws)]
        self._untrained = {layer: Features.of(rows, untrained.d_sae[layer]) for layer, rows in untrained.layers.items()}
        self._trained = {
            layer: Features.of(rows_of_tokens(rows, self.token, activations.d_sae[layer]), activations.d_sae[layer])
            for layer, rows in activations.layers.items()
            if layer in self._untrained
        }

    def of(self, a: int, b: int) -> Found | None:
        """Features of layer a among those of the untrained model's layer b, by the rule for two layers; None where there are none."""
        if a not in self._trained or b not in self._untrained:
            return None
        first, second = self._trained[a], self._untrained[b]
        null = null_of(first, second, self._orders)
        return Found(largest(first, second, np.arange(len(self.token)))[0], null.first, first.live)


def rows_of_tokens(rows: SparseRows, token: Int64, d_sae: int) -> SparseRows:
    """The rows of some tokens. token: int64 [n]."""
    every = sparse.csr_matrix((rows.value, rows.feature, rows.indptr), shape=(len(rows.indptr) - 1, d_sae))
    some = every[token]
    return SparseRows(some.indptr.astype(np.int64), some.indices.astype(np.int32), some.data)
