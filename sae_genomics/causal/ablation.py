"""What the stage makes of a feature that it ablates: `causal.ablation`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sae_genomics.causal.edits import Edit, new_values
from sae_genomics.causal.encoded import Encoded
from sae_genomics.causal.statistics import FeatureStatistics


@dataclass(frozen=True)
class Ablation:
    """z' of an ablated feature, at the tokens where it is active. statistics: of training items; None for `zero` alone.

    seed: of the tokens that `resample` draws.
    """

    replacement: Literal["zero", "mean", "resample"] = "zero"
    statistics: FeatureStatistics | None = None
    seed: int = 0

    def edit(self, feature: int, **nulls: Any) -> Edit:
        """One feature ablated. nulls: `turned` or `permuted`."""
        return Edit("ablate", np.array([feature]), replacement=self.replacement, seed=self.seed, **nulls)

    def left_of(self, active: Encoded) -> npt.NDArray[np.float32]:
        """z' of every activation of a batch, each feature ablated by itself: float32 [n]."""
        if self.replacement == "zero":
            return np.zeros(len(active.token), np.float32)
        assert self.statistics is not None
        every = Edit("ablate", np.arange(len(active.feature_ptr) - 1), replacement=self.replacement, seed=self.seed)
        feature = active.feature.astype(np.int64)
        return new_values(active, every, self.statistics, active.token, feature, active.activation)


TO_ZERO = Ablation()
