"""What `train` costs."""

from __future__ import annotations

from sae_genomics.data.plan import BASE_MEMORY, Cost, Workload

HIDDEN_MEMORY = 3 * (64 << 20)  # latents before the k largest are taken
_BATCH_MEMORY = 3 << 30  # activations waiting to be trained on, at most, and
_BATCH_ROWS = 3 << 18  # so many rows of them
DENSE_NUMBERS = (
    12  # for each row and latent of a dense step: pre-activations, activations and what autograd keeps of them
)
_CHECKPOINTS = 3  # of one training: the last, the one before it, and the next one while it is written


def sae_parameters(work: Workload) -> int:
    """Of one SAE."""
    return 2 * work.d_model * work.d_sae + work.d_sae + work.d_model


def cost(work: Workload) -> Cost:
    """A step costs little more than its encoder's product. Training and held-out rows are evaluated."""
    # a layer's checkpoints (weights and two moments each) go when it is done
    weights = 4 * sae_parameters(work)
    disk = work.n_layers * (weights + 100_000) + work.layers_at_once * 3 * _CHECKPOINTS * weights
    activations = min(_BATCH_MEMORY, min(_BATCH_ROWS, 2 * work.n_stored) * work.d_model * work.item_bytes)
    means = 16 * work.n_units * work.d_model  # of each gene, and the sums that they are made of
    hidden = max(HIDDEN_MEMORY, 4 * DENSE_NUMBERS * work.dense_rows * work.d_sae)
    memory = BASE_MEMORY + work.layers_at_once * (5 * weights + activations + means + hidden)
    trained = work.train_tokens if work.trains else 0
    flops = (trained + 2 * work.evaluate_tokens) * 2 * work.d_model * work.d_sae
    return Cost(disk, memory, work.n_layers * (5 + work.seeds * flops / work.train_rate))
