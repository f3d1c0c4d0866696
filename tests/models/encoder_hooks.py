"""What transformers' own hooks see in an encoder like BERT."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


@torch.inference_mode()
def seen_by_hooks(
    network: Any, blocks: Any, rows: list[list[int]], pad: int
) -> dict[tuple[str, int], list[np.ndarray]]:
    """(hook, layer) -> activations of each row, from one padded pass through transformers with forward hooks."""
    longest = max(map(len, rows))
    token = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    found: dict[tuple[str, int], torch.Tensor] = {}

    def keep(hook: str, layer: int) -> Any:
        def listener(module: Any, given: Any, output: Any) -> None:
            found[hook, layer] = output[0] if isinstance(output, tuple) else output

        return listener

    handles = []
    for layer, block in enumerate(blocks):
        handles.append(block.register_forward_hook(keep("resid_post", layer)))
        handles.append(block.attention.output.dense.register_forward_hook(keep("attn_out", layer)))
        handles.append(block.output.dense.register_forward_hook(keep("mlp_out", layer)))
    try:
        network(input_ids=token, attention_mask=mask)
    finally:
        for handle in handles:
            handle.remove()
    return {key: [x[number, : len(row)].numpy() for number, row in enumerate(rows)] for key, x in found.items()}
