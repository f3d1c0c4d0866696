"""What the metrics that `train` leaves are about."""

from __future__ import annotations

from sae_genomics.artifacts.table import Inference

# of metrics.json
RECONSTRUCTION = Inference(
    "none, these numbers describe and nothing is tested (for the interval of loss recovered: one held-out cell, or one group)",
    "held-out gene tokens, which are no replicates of each other",
    "none (with nothing but the mean activation FVU is 1 and loss recovered 0)",
)
