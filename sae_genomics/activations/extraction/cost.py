"""What `extract` costs."""

from __future__ import annotations

import numpy as np

from sae_genomics.activations.format import store
from sae_genomics.data.plan import BASE_MEMORY, Cost, Workload

TOKEN_BYTES = 29  # item, token, unit, position, weight, special, and a value that only one family reads
FILE_BYTES = 24_000  # HDF5's own structures in a file
_WINDOW_MEMORY = 2 * (256 << 20)  # activations waiting to be written


def cost(work: Workload) -> Cost:
    """The files' bytes follow from their format; the time is the model's arithmetic and the writing."""
    row_bytes = work.d_model * work.item_bytes
    chunk = max(store.CHUNK_BYTES // row_bytes, 1)
    # a shard's last chunk takes its full size, unless it is the only one
    padded = np.where(work.shard_stored > chunk, -(-work.shard_stored // chunk) * chunk, work.shard_stored)
    layer = int(padded.sum()) * row_bytes + len(padded) * FILE_BYTES
    disk = work.n_layers * layer + TOKEN_BYTES * work.n_stored + 8 * work.n_cells + len(padded) * FILE_BYTES
    memory = BASE_MEMORY + 4 * work.n_parameters + _WINDOW_MEMORY + 100 * work.max_shard_tokens
    memory += work.batch_tokens * work.d_model * 4 * 16
    mean_length = work.n_tokens / max(work.n_cells, 1)
    flops = work.n_tokens * work.deepest * (24 * work.d_model**2 + 4 * mean_length * work.d_model)
    return Cost(disk, memory, 10 + flops / work.extract_rate + disk / 1e9)
