"""Which features carry a concept: its pattern as a sum of few decoder directions, beside random patterns fitted alike.

A vector v weighs activations; decoder directions add up to activations. So what is written as their sum is the vector's pattern

    a = C v,   C the covariance of what the SAE reads:

how activations move with the score (Haufe et al. 2014, NeuroImage 87:96). A random concept's pattern has the covariance C, which is one of both nulls.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sae_genomics.artifacts import CONCEPT_FEATURES
from sae_genomics.concepts.decoder_sums import decompose
from sae_genomics.concepts.held_out import HeldOut
from sae_genomics.concepts.resampling import covariance_directions, generator, p_of, random_directions
from sae_genomics.concepts.vectors import ConceptVector
from sae_genomics.run import Run
from sae_genomics.sae.load import load_encoder

MOST_FEATURES = 5
DRAWS = 99
CARRIED = 0.05  # p-value


def write_concept_features(run: Run, layer: int, held_out: HeldOut) -> None:
    """Leave the layer's table: `MOST_FEATURES` rows for each concept."""
    encoder = load_encoder(run.sae_dir(layer))
    directions = encoder.W_dec.numpy()
    rows = encoder.input(held_out.rows, held_out.units.token[held_out.row_units])
    frame = features_of(held_out.vectors, rows, directions, run.config.run.seed, layer)
    CONCEPT_FEATURES.write(run.layer_results(layer) / CONCEPT_FEATURES.file, frame, weights=encoder.weights)


def features_of(
    concepts: Sequence[ConceptVector], rows: np.ndarray, directions: np.ndarray, seed: int, layer: int
) -> pd.DataFrame:
    """The table's rows. rows: float [n, d_model], what the SAE reads. directions: float [d_sae, d_model], of any length."""
    random = generator(seed, "concepts.sparse", layer)
    d = directions.shape[1]
    nulls = [random_directions(DRAWS, d, random), covariance_directions(rows, DRAWS, random)]
    found = decompose(patterns(concepts, rows), directions, MOST_FEATURES)
    null = [decompose(vectors, directions, MOST_FEATURES).share for vectors in nulls]  # [draws, ranks] each
    p_value = np.maximum(*(best_rank_p(found.share, shares) for shares in null))
    high = np.maximum(*(np.quantile(shares, 0.95, axis=0) for shares in null))
    parts = []
    for rank in range(MOST_FEATURES):
        parts.append(
            pd.DataFrame({
                "concept": [each.concept for each in concepts], "name": [each.name for each in concepts],
                "rank": rank + 1, "feature": pd.array(found.feature[:, rank], "Int32"), "weight": found.weight[:, rank],
                "cosine": found.cosine[:, rank], "share": found.share[:, rank],
                "share_random": null[0][:, rank].mean(), "share_covariance": null[1][:, rank].mean(),
                "share_null_high": high[rank], "p_value": p_value, "carried": p_value <= CARRIED,
            })
        )  # fmt: skip
    frame = pd.concat(parts, ignore_index=True)
    frame.loc[frame["feature"] < 0, "feature"] = pd.NA
    order = {each.concept: number for number, each in enumerate(concepts)}
    return frame.sort_values("concept", key=lambda column: column.map(order), kind="stable").reset_index(drop=True)


def patterns(concepts: Sequence[ConceptVector], rows: np.ndarray) -> np.ndarray:
    """C v of each vector: float64 [concepts, d_model]. rows: float [n, d_model]."""
    centred = np.asarray(rows, np.float64) - np.asarray(rows, np.float64).mean(axis=0)
    vectors = np.array([each.vector for each in concepts], np.float64).reshape(len(concepts), centred.shape[1])
    return (vectors @ centred.T) @ centred / max(len(centred) - 1, 1)


def best_rank_p(share: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Is a share unusual at any rank? float64 [vectors]. share: [vectors, ranks]; null: [draws, ranks].

    At each rank p = (1 + draws with at least that share) / (1 + draws), and the smallest of them is the statistic. The draws' own smallest p say
    how small it gets by chance, so that looking at several ranks costs nothing.
    """
    of_draws = np.stack([p_of(column, np.broadcast_to(column, (len(null), len(null)))) for column in null.T]).min(
        axis=0
    )
    of_vectors = np.stack(
        [
            p_of(own, np.broadcast_to(column, (len(share), len(null))))
            for own, column in zip(share.T, null.T, strict=True)
        ]
    ).min(axis=0)
    return p_of(-of_vectors, np.broadcast_to(-of_draws, (len(share), len(null))))
