"""Sums per (feature, gene) pair over any number of tokens, in memory bounded by the pairs that occur.

Three float64 sums per pair: of activation x weight, of activation, and of tokens with activation > 0. Genes with the most tokens have a
dense row of all features, as many as fit DENSE_LIMIT (all of them in small problems); the pairs of the others stand in tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_genomics.associations.triples import TokenBlock, Triples
from sae_genomics.kernels.compiled import cpu_threads
from sae_genomics.kernels.pair_sums import add_pairs
from sae_genomics.kernels.pair_table import PairTable

DENSE_LIMIT = 2 << 30


@dataclass(frozen=True)
class PairSums:
    """Sums of some consecutive features, one entry a pair that occurred, ascending by feature, then gene.

    first: the first of these features.
    ptr: int64 [features + 1]; entries of feature first + i are ptr[i] to ptr[i + 1].
    unit: int32 [n].
    activation_weight, activation: float64 [n].
    n_active: int64 [n].
    """

    first: int
    ptr: npt.NDArray[np.int64]
    unit: npt.NDArray[np.int32]
    activation_weight: npt.NDArray[np.float64]
    activation: npt.NDArray[np.float64]
    n_active: npt.NDArray[np.int64]


class GeneSums:
    """Accumulates triples into sums per (feature, gene).

    d_sae: number of features.
    n_units: number of genes.
    expected: [units], tokens of each gene, to choose dense rows by; a guess costs time, never precision.
    dense_limit: bytes of dense rows.
    """

    def __init__(
        self,
        d_sae: int,
        n_units: int,
        expected: npt.NDArray[np.integer] | None = None,
        dense_limit: int = DENSE_LIMIT,
    ):
        self.d_sae, self.n_units = d_sae, n_units
        self.tokens = np.zeros(n_units, dtype=np.int64)
        n_dense = min(n_units, dense_limit // (24 * d_sae))
        common = np.argsort(-np.asarray(expected), kind="stable") if expected is not None else np.arange(n_units)
        self.pairs = PairTable(n_units, d_sae, np.sort(common[:n_dense]), cpu_threads())

    def add(self, block: TokenBlock, triples: Triples) -> None:
        """Add a block's triples; tokens with unit -1 do not count."""
        self.tokens += np.bincount(block.unit[block.unit >= 0], minlength=self.n_units)
        add_pairs(self.pairs, block.unit, block.weight, triples.by_token(len(block)))

    @property
    def n_bytes(self) -> int:
        """Memory the sums take."""
        return self.pairs.n_bytes

    def by_feature(self, features_at_once: int | None = None) -> Iterator[PairSums]:
        """The sums in blocks of consecutive features. May be called again."""
        if features_at_once is None:
            features_at_once = max(1, (1 << 23) // max(self.n_units, 1))
        other_unit, other_feature, other_sums = self.pairs.other_pairs()
        order = np.argsort(other_feature, kind="stable")
        other_unit, other_feature = other_unit[order], other_feature[order]
        for first in range(0, self.d_sae, features_at_once):
            n = min(features_at_once, self.d_sae - first)
            dense = np.ascontiguousarray(self.pairs.dense[:, first : first + n].transpose(1, 0, 2))
            feature, row = np.nonzero(dense[:, :, 2])
            start, stop = np.searchsorted(other_feature, [first, first + n])
            yield _pair_sums(
                first,
                n,
                np.concatenate([feature, other_feature[start:stop] - first]),
                np.concatenate([self.pairs.dense_rows[row], other_unit[start:stop]]),
                np.concatenate([dense[feature, row], other_sums[order[start:stop]]]),
            )


def _pair_sums(
    first: int, n: int, feature: npt.NDArray[np.int64], unit: npt.NDArray[np.int64], values: npt.NDArray[np.float64]
) -> PairSums:
    order = np.lexsort((unit, feature))
    feature, unit, values = feature[order], unit[order], values[order]
    ptr = np.searchsorted(feature, np.arange(n + 1))
    return PairSums(
        first, ptr, unit.astype(np.int32), values[:, 0].copy(), values[:, 1].copy(), values[:, 2].astype(np.int64)
    )
