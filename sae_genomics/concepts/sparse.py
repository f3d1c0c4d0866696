"""Which features carry a concept: its pattern as a sum of few decoder directions, beside random patterns fitted alike.

A vector v weighs activations; decoder directions add up to activations. So what is written as their sum is the vector's pattern

    a = C v,   C the covariance of what the SAE reads:

how activations move with the score (Haufe et al. 2014, NeuroImage 87:96). Four nulls are written as sums in the same way: random directions, directions
with the covariance C, and the patterns of vectors that were fitted to shuffled labels and to random concepts. The last two are what a concept without any
meaning has: it moves with what differs between items, and that is less than C. The largest of the p-values counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sae_genomics.artifacts import CONCEPT_FEATURES
from sae_genomics.concepts.decoder_sums import decompose
from sae_genomics.concepts.held_out import HeldOut, NullVectors
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
    frame = features_of(held_out.vectors, rows, directions, (run.config.run.seed, layer), held_out.null_vectors)
    CONCEPT_FEATURES.write(run.layer_results(layer) / CONCEPT_FEATURES.file, frame, weights=encoder.weights)


def features_of(
    concepts: Sequence[ConceptVector], rows: np.ndarray, directions: np.ndarray, seed: tuple[int, int],
    null_vectors: Mapping[str, NullVectors],
) -> pd.DataFrame:  # fmt: skip
    """The table's rows. rows: float [n, d_model], what the SAE reads. directions: float [d_sae, d_model], of any length.

    seed: that of the run, and the layer. null_vectors: by concept, as in `HeldOut`.
    """
    random = generator(seed[0], "concepts.sparse", seed[1])
    d = directions.shape[1]
    nulls = [random_directions(DRAWS, d, random), covariance_directions(rows, DRAWS, random)]
    fitted = np.array([each.vector for each in concepts], np.float64).reshape(len(concepts), d)
    found = decompose(patterns(fitted, rows), directions, MOST_FEATURES)
    null = [decompose(vectors, directions, MOST_FEATURES).share for vectors in nulls]  # [draws, ranks] each
    p_value = np.maximum(*(best_rank_p(found.share, shares) for shares in null))
    chance = np.full((len(concepts), MOST_FEATURES), np.nan)
    for number, each in enumerate(concepts):
        p_value[number], chance[number] = _beside_chance(
            found.share[number], p_value[number], null_vectors.get(each.concept, {}), rows, directions
        )
    parts = []
    for rank in range(MOST_FEATURES):
        parts.append(
            pd.DataFrame({
                "concept": [each.concept for each in concepts], "name": [each.name for each in concepts],
                "rank": rank + 1, "feature": pd.array(found.feature[:, rank], "Int32"), "weight": found.weight[:, rank],
                "cosine": found.cosine[:, rank], "share": found.share[:, rank],
                "share_random": null[0][:, rank].mean(), "share_covariance": null[1][:, rank].mean(),
                "share_chance": chance[:, rank], "p_value": p_value, "carried": p_value <= CARRIED,
            })
        )  # fmt: skip
    frame = pd.concat(parts, ignore_index=True)
    frame.loc[frame["feature"] < 0, "feature"] = pd.NA
    order = {each.concept: number for number, each in enumerate(concepts)}
    return frame.sort_values("concept", key=lambda column: column.map(order), kind="stable").reset_index(drop=True)


def _beside_chance(
    share: np.ndarray, p: float, vectors: NullVectors, rows: np.ndarray, directions: np.ndarray
) -> tuple[float, np.ndarray]:
    """The larger of p and that against each kind of vectors, and the larger mean share of both: float64 [ranks]. share: [ranks]."""
    mean = np.full(len(share), np.nan)
    for drawn in vectors.values():
        if len(drawn):
            shares = decompose(patterns(drawn, rows), directions, len(share)).share
            p = max(p, float(best_rank_p(share[None], shares)[0]))
            mean = np.fmax(mean, shares.mean(axis=0))
    return p, mean


def patterns(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """C v of each vector: float64 [vectors, d_model]. vectors: [vectors, d_model]. rows: float [n, d_model]."""
    centred = np.asarray(rows, np.float64) - np.asarray(rows, np.float64).mean(axis=0)
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
