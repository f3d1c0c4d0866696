"""Linear layers and attention of a loaded model, which on a CPU may be kernels (`kernels.onednn`, `kernels.attention`).

Precision is that of torch's functions; results differ in rounding.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sae_genomics.kernels import onednn

PIECE_ELEMENTS = (
    1 << 21
)  # of a layer's widest result: larger ones come in fresh pages each time, at a third of the cost
MIN_PIECE_TOKENS = 512
MIN_WIDTH = 16  # narrower products are no faster
# A copy of all weights, packed for oneDNN, makes products 3 to 6 % faster: too little to pay much memory for.
PACK_BYTES = 1 << 30


class Linear(nn.Linear):
    """nn.Linear, whose product oneDNN may make once `use_kernels` was called."""

    onednn = False
    packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        # the product has no gradient, and strided rows would go to oneDNN's slow reference code
        if self.onednn and not followed(x, self.weight):
            product = onednn.traced_product if torch.compiler.is_compiling() else onednn.product
            return product(x.contiguous(), self.weight if self.packed is None else self.packed, self.bias)
        return F.linear(x, self.weight, self.bias)


class DotProductAttention(nn.Module):
    """softmax(q k^T / sqrt(d_head)) v, of each sequence and head."""

    compiled = False

    def of_packed(self, qkv: Tensor, ptr: npt.NDArray[np.int64], n_heads: int, kv_n_heads: int) -> Tensor | None:
        """Every sequence's, where there is a kernel for it, or None: then ask `forward`.

        qkv: [T, (n_heads + 2 kv_n_heads) d_head]. ptr: int64 [sequences + 1]. Returns [T, n_heads d_head].
        """
        if not self.compiled or followed(qkv):
            return None
        from sae_genomics.kernels import attention  # here, because commands that only plan load this module

        if not attention.takes(qkv.dtype, qkv.shape[1] // (n_heads + 2 * kv_n_heads)):
            return None
        return attention.attend(qkv.contiguous(), ptr, n_heads, kv_n_heads)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """q, k, v: [sequences, heads, length, d_head]. mask: bool, as in torch's function, or None. Returns q's shape."""
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def followed(*tensors: Tensor) -> bool:
    """Whether autograd follows one of them."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def use_kernels(network: nn.Module, device: torch.device, dtype: torch.dtype) -> bool:
    """Let a network that will only be evaluated, with the weights it has now, use kernels on a CPU, where they are there and right.

    Returns whether its products are oneDNN's. Where gradients are asked for they flow, through torch's own functions.
    """
    if device.type != "cpu":
        return False
    for module in network.modules():
        if isinstance(module, DotProductAttention):
            module.compiled = True
    if not onednn.available(dtype):
        return False
    linear = [
        module
        for module in network.modules()
        if isinstance(module, Linear) and min(module.weight.shape) >= MIN_WIDTH and module.weight.is_contiguous()
    ]
    pack = sum(module.weight.nbytes for module in linear) <= PACK_BYTES
    for module in linear:
        module.onednn = True
        if pack:
            module.packed = onednn.packed(module.weight.detach(), tokens_at_once(max(module.weight.shape)))
    return True


def tokens_at_once(widest: int) -> int:
    """Tokens that a CPU core best takes through a network whose widest layer has so many outputs."""
    return max(MIN_PIECE_TOKENS, PIECE_ELEMENTS // widest)
