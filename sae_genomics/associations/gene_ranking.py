"""Sums per (unit, gene) to ranked tables: specificity against independence, and each unit's top genes.

Specificity of feature f for gene g, in bits, with A the summed activation and T the number of gene tokens:

    log2( (A_fg + prior_f) / (E_fg + prior_f) ),    E_fg = A_f T_g / T

E is what the gene would get if activation were spread over tokens regardless of their gene: the pointwise mutual
information of feature and gene, weighted by activation (Church and Hanks 1990, Comput. Linguist. 16:22). The prior
is PRIOR_TOKENS tokens at the feature's own mean activation, so a gene met by chance in a token or two stays near 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.associations.gene_sums import PairSums

PRIOR_TOKENS = 5.0


@dataclass(frozen=True)
class RankedGenes:
    """The top genes of every unit.

    table: columns of artifacts.FEATURE_GENES, ordered by feature, then rank_score.
    top_unit: int32 [units], gene with the highest score; -1 for a unit that is never active.
    specificity: float64 [units], the largest among the unit's genes; NaN where no gene has one.
    """

    table: pd.DataFrame
    top_unit: npt.NDArray[np.int32]
    specificity: npt.NDArray[np.float64]


def specificity(
    pair_activation: npt.NDArray[np.number],
    unit_activation: npt.NDArray[np.number],
    unit_active: npt.NDArray[np.number],
    gene_tokens: npt.NDArray[np.int64],
    all_tokens: int,
) -> npt.NDArray[np.float64]:
    """The formula above, elementwise.

    pair_activation: A_fg; unit_activation: A_f; unit_active: tokens where the feature is above zero, for its mean
    activation; gene_tokens: T_g; all_tokens: T.
    """
    prior = PRIOR_TOKENS * unit_activation / np.maximum(unit_active, 1)
    expected = unit_activation * (gene_tokens / max(all_tokens, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        bits: npt.NDArray[np.float64] = np.log2((pair_activation + prior) / (expected + prior))
    return bits


def rank_genes(
    blocks: Iterable[PairSums],
    tokens: npt.NDArray[np.int64],
    gene_ids: npt.NDArray[np.object_],
    gene_symbols: npt.NDArray[np.object_],
    top: int,
    min_gene_tokens: int,
) -> RankedGenes:
    """Each unit's `top` genes by score and by specificity (their union), with both ranks.

    blocks: sums of consecutive units, in order.
    tokens: int64 [genes], tokens of each gene, active or not.
    gene_ids, gene_symbols: [genes].
    min_gene_tokens: genes with fewer tokens get no specificity (NaN, no rank).
    """
    all_tokens = int(tokens.sum())
    parts, tops, largest = [], [], []
    for block in blocks:
        n_units = len(block.ptr) - 1
        unit = np.repeat(np.arange(n_units), np.diff(block.ptr))
        active = np.bincount(unit, weights=block.n_active, minlength=n_units)
        total = np.bincount(unit, weights=block.activation, minlength=n_units)
        bits = specificity(block.activation, total[unit], active[unit], tokens[block.unit], all_tokens)
        bits[tokens[block.unit] < min_gene_tokens] = np.nan
        rank_score, rank_bits = _ranks(block.ptr, block.activation_weight), _ranks(block.ptr, bits)
        top_unit = np.full(n_units, -1, dtype=np.int32)
        first = rank_score == 1
        top_unit[unit[first]] = block.unit[first]
        most = np.full(n_units, np.nan)
        first = rank_bits == 1
        most[unit[first]] = bits[first]
        tops.append(top_unit)
        largest.append(most)

        keep = np.flatnonzero((rank_score <= top) | ((rank_bits > 0) & (rank_bits <= top)))
        keep = keep[np.lexsort((rank_score[keep], unit[keep]))]
        gene = block.unit[keep]
        parts.append(
            pd.DataFrame(
                {
                    "feature": (block.first + unit[keep]).astype(np.int32),
                    "gene_id": gene_ids[gene],
                    "gene_symbol": gene_symbols[gene],
                    "score": block.activation_weight[keep],
                    "mean_activation": block.activation[keep] / tokens[gene],
                    "firing_rate": block.n_active[keep] / tokens[gene],
                    "n_tokens": block.n_active[keep],
                    "specificity": bits[keep],
                    "rank_score": rank_score[keep],
                    "rank_specificity": pd.arrays.IntegerArray(rank_bits[keep], rank_bits[keep] == 0),
                }
            )
        )
    filled = [part for part in parts if len(part)] or parts[:1]
    return RankedGenes(pd.concat(filled, ignore_index=True), np.concatenate(tops), np.concatenate(largest))


def _ranks(ptr: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """1 = largest within each segment, ptr[i] to ptr[i + 1]; ties by position; 0 for NaN."""
    ranks = np.empty(len(values), dtype=np.int32)
    for start, stop in pairwise(ptr.tolist()):  # sorting all segments at once takes four times as long
        ranks[start + np.argsort(-values[start:stop], kind="stable")] = np.arange(1, stop - start + 1)
    ranks[np.isnan(values)] = 0
    return ranks
