"""Tahoe-x1's blocks through torch.compile: what lies between two listeners and needs no other token becomes one graph.

That is adding attention's part, norm and MLP; with norms behind the sums, adding the MLP's part too. A sum, its norm, and
activation and gate then are one pass over memory each, rather than one an operation. Attention stays as it is: its products have
nothing to fuse with, and where cells begin would be in the graph. So do listeners, which may do anything.

Weights are inputs of the graph and the number of tokens is a symbol in it: one compilation serves all blocks and lengths.
Values are those of the plain functions to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sae_genomics.errors import UserError
from sae_genomics.models.tx1_network import Block, Tx1Network, from_mlp, to_mlp

# Of the batch that is compiled with: loops are laid out for about so many, and a number that is no layer's width and no
# multiple of anything is not mistaken for a fixed one.
_TOKENS = 1021


def compile_blocks(network: Tx1Network, device: torch.device) -> None:
    """Put compiled parts into every block of a network that will only be evaluated. Names of modules and weights stay.

    Compiles at once, so that a machine where it cannot be done is told before any work: UserError.
    On a CPU for one thread, as a worker of extraction has; with another number it is compiled once more at the first batch.
    Where gradients are recorded, and for a single token, the blocks go on computing with the plain functions.
    """
    blocks: list[Block] = list(network.transformer_encoder.layers)  # type: ignore[arg-type]
    compiled_to_mlp = _compiled(to_mlp)
    compiled_from_mlp = from_mlp if network.config.pre_norm else _compiled(from_mlp)  # a sum alone: nothing to fuse
    weight = blocks[0].up_proj.weight
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
        _keep_apart_by_processor()
    try:
        with torch.inference_mode():  # tensors made outside would be of another kind than a batch's
            x, attention = (weight.new_zeros(_TOKENS, network.config.d_model) for _ in range(2))
            compiled_from_mlp(blocks[0], *compiled_to_mlp(blocks[0], x, attention))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # of which torch's own are kinds
        raise _cannot(device, error) from error
    finally:
        torch.set_num_threads(threads)
    for block in blocks:
        block.to_mlp, block.from_mlp = compiled_to_mlp, compiled_from_mlp


def _keep_apart_by_processor() -> None:
    """Have torch keep what it compiled for one instruction set apart from what it compiled for another.

    Its cache does not ask, and finds, in a folder that several kinds of CPU share, code that is laid out for other widths
    of vectors: that writes beyond its arrays.
    """
    mark = f"sae_genomics:{torch.backends.cpu.get_cpu_capability()}"
    tag = torch.compiler.config.cache_key_tag
    if mark not in tag:
        torch.compiler.config.cache_key_tag = f"{tag} {mark}".strip()


def _compiled(part: Callable[..., Any]) -> Callable[..., Any]:
    """part(block, x, y), compiled; x and y: [T, d_model]."""
    compiled: Callable[..., Any] = torch.compile(part, dynamic=True)

    def call(block: Block, x: Tensor, y: Tensor) -> Any:
        # sizes of 0 and 1 are never symbols, and a graph with gradients would be another one
        if len(x) < 2 or torch.is_grad_enabled():
            return part(block, x, y)
        return compiled(block, x.contiguous(), y.contiguous())

    return call


_NEEDS = {
    "cpu": "a C++ compiler (g++, or what CXX names)",
    "cuda": "Triton, and for it a C compiler (gcc, or what CC names)",
}


def _cannot(device: torch.device, error: RuntimeError) -> UserError:
    needs = _NEEDS.get(device.type, "a device that torch.compile supports")
    said = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return UserError(
        f"model.compile: cannot compile for {device.type}, which needs {needs}: {said[:200]}; "
        "make that available, or pass --set model.compile=false"
    )
