"""What `causal` costs."""

from __future__ import annotations

from sae_genomics.causal.section import PROBES
from sae_genomics.data.plan import BASE_MEMORY, Cost, Workload

_BACKWARD = 2  # forward passes that a backward pass costs
_SCREEN = 1 + PROBES * _BACKWARD  # of an item: one forward pass, and a backward pass for each probe
_MOST_TOKENS = 1 << 16  # of the items that are stopped at the hook together
_COPIES = 12  # of their activations, among them a batch's edited ones and what backward passes keep of a few layers


def cost(work: Workload) -> Cost:
    """Tables; items that are stopped at the hook; the layers behind the hook for every edit, with the model's arithmetic alone."""
    tokens = work.n_tokens / max(work.n_cells, 1)
    per_token = 24 * work.d_model**2 + 4 * tokens * work.d_model
    behind = (
        work.n_layers * work.deepest - work.summed_depth + work.n_layers
    )  # layers, added up; the decoder counts as one
    passes = work.causal_passes + _SCREEN * work.causal_screen_items
    seconds = passes * tokens * per_token * behind / work.extract_rate
    disk = work.n_layers * (work.d_sae * 40 + 400_000)
    memory = BASE_MEMORY + 4 * _COPIES * min(_MOST_TOKENS, work.n_tokens) * work.d_model
    return Cost(disk, memory + work.d_sae * (8 * work.d_model + 100), seconds + 2 * work.n_layers)
