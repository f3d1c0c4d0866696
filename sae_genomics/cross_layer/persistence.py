"""How many features of one layer another layer has too, beside the most and the least that there can be.

    share      features of layer a whose best partner in layer b correlates above `min_correlation` and above chance
    ceiling    the same of layer a's features among those of a second seed's SAE on layer a: no other layer can be asked for more
    floor      the same of permuted tokens: each draw in turn is taken for the data, and the other draws are its null
    untrained  share of layer a's features, on a part of the tokens, among the features of an SAE on layer b of an untrained model
    relative   (share - floor) / (ceiling - floor)

A feature that does not vary on the sampled tokens counts nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.cross_layer.correlations import chance_bound

Float64 = npt.NDArray[np.float64]
NO_CEILING = "no ceiling: there is no SAE of a second seed; set sae.stability to true where SAEs are trained here"


class Found(NamedTuple):
    """Features of one layer in another. best: float64 [features], largest correlation, 0 without one. null: float64 [draws, features].
    live: bool [features]."""

    best: Float64
    null: Float64
    live: npt.NDArray[np.bool_]

    def is_found(self, min_correlation: float) -> npt.NDArray[np.bool_]:
        """Whether each feature has a partner above its null and of at least that correlation: bool [features]."""
        return _found(self.best, self.null, min_correlation)

    def share(self, min_correlation: float) -> float:
        """Share of the live features that are found."""
        return _share(self.best, self.null, self.live, min_correlation)

    def floor(self, min_correlation: float) -> float:
        """Mean over the draws of the share that is found in a draw, by the null of the others."""
        draws = np.arange(len(self.null))
        shares = [
            _share(self.null[draw], self.null[draws != draw], self.live, min_correlation) for draw in draws.tolist()
        ]
        return float(np.mean(shares))

    def by_unit(self, min_correlation: float) -> float:
        """Share that reaches the correlation, and no more than it does when tokens are permuted within their unit."""
        alone = (self.best >= min_correlation) & (self.best <= chance_bound(self.null))
        return float(alone[self.live].mean()) if self.live.any() else float("nan")


def _found(best: Float64, null: Float64, min_correlation: float) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (best > chance_bound(null)) & (best >= min_correlation)
    return found


def _share(best: Float64, null: Float64, live: npt.NDArray[np.bool_], min_correlation: float) -> float:
    found = _found(best, null, min_correlation)
    return float(found[live].mean()) if live.any() else float("nan")


def persistence_table(
    found: Iterable[tuple[int, int, Found]],
    second: Mapping[int, Found],
    untrained: Mapping[tuple[int, int], Found],
    min_correlation: float,
) -> pd.DataFrame:
    """Rows of persistence.parquet.

    found: layer a, layer b, features of a in b. second: layer -> its features in its second seed's SAE. untrained: layers a and b -> features
    of a in an SAE on layer b of an untrained model.
    """
    rows = []
    for layer_a, layer_b, each in found:
        share, floor = each.share(min_correlation), each.floor(min_correlation)
        ceiling = _share_of(second.get(layer_a), min_correlation)
        without_learning = _share_of(untrained.get((layer_a, layer_b)), min_correlation)
        rows.append(
            {
                "layer_a": layer_a, "layer_b": layer_b, "n_features": int(each.live.sum()), "share": share, "ceiling": ceiling,
                "floor_permuted": floor, "floor_untrained": without_learning, "relative": relative(share, ceiling, floor),
                "by_unit": each.by_unit(min_correlation),
                "mean_correlation": float(each.best[each.live].mean()) if each.live.any() else float("nan"),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _share_of(found: Found | None, min_correlation: float) -> float:
    return float("nan") if found is None else found.share(min_correlation)


def relative(share: float, ceiling: float, floor: float) -> float:
    """Where the share stands between both; NaN where the ceiling is not above the floor, or not known."""
    return (share - floor) / (ceiling - floor) if ceiling > floor else float("nan")


def missing(second: Mapping[int, Found], no_untrained: str) -> str:
    """What the table lacks, and why; empty where it lacks nothing. no_untrained: why `floor_untrained` is empty; empty where it is not."""
    lacking = [] if second else [NO_CEILING]
    return "; ".join(lacking + ([f"floor_untrained is empty: {no_untrained}"] if no_untrained else []))
