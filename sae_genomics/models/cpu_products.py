"""Linear layers and attention of a loaded model on a CPU, made of oneDNN's products (`sae_genomics.onednn`).

Where the CPU has AVX-512 or AVX2, attention is compiled instead (`sae_genomics.models.cpu_attention`).

torch's own attention runs no faster in bfloat16 than in float32; made of oneDNN's products it is half as fast again
in float32, and twice as fast in bfloat16. Precision is that of torch's functions; results differ in rounding.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sae_genomics import onednn

PIECE_ELEMENTS = (
    1 << 21
)  # of a layer's widest result: larger ones come in fresh pages each time, at a third of the cost
MIN_PIECE_TOKENS = 512
MIN_WIDTH = 16  # narrower products are no faster
# A copy of all weights, packed for oneDNN, makes products 3 to 6 % faster: too little to pay much memory for.
PACK_BYTES = 1 << 30
MIN_HEAD_PRODUCTS = 2_500_000  # of a head's queries with its keys, per thread: below, calls cost more than they save


class Linear(nn.Linear):
    """nn.Linear, whose product oneDNN may make once `use_onednn` was called."""

    onednn = False
    packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        # the product has no gradient, and strided rows would go to oneDNN's slow reference code
        if self.onednn and not _followed(x, self.weight):
            return onednn.product(x.contiguous(), self.weight if self.packed is None else self.packed, self.bias)
        return F.linear(x, self.weight, self.bias)


class DotProductAttention(nn.Module):
    """softmax(q k^T / sqrt(d_head)) v, of each cell and head."""

    onednn = False

    def of_packed(self, qkv: Tensor, cell_ptr: npt.NDArray[np.int64], n_heads: int, kv_n_heads: int) -> Tensor | None:
        """Every cell's, where there is a compiled kernel for it (`cpu_attention`), or None: then ask `forward`.

        qkv: [T, (n_heads + 2 kv_n_heads) d_head]. cell_ptr: int64 [cells + 1]. Returns [T, n_heads d_head].
        """
        if not self.onednn or _followed(qkv):
            return None
        from sae_genomics.models import cpu_attention  # here, because commands that only plan load this module

        if not cpu_attention.takes(qkv.dtype, qkv.shape[1] // (n_heads + 2 * kv_n_heads)):
            return None
        return cpu_attention.attend(qkv.contiguous(), cell_ptr, n_heads, kv_n_heads)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """q, k, v: [cells, heads, length, d_head]. mask: bool, as in torch's function, or None. Returns q's shape."""
        products = q.shape[-2] * k.shape[-2] * q.shape[-1]
        if (
            self.onednn
            and mask is None
            and products >= MIN_HEAD_PRODUCTS * torch.get_num_threads()
            and not _followed(q, k, v)
        ):
            return _attend_by_head(q, k, v)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _attend_by_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    # laid out as the caller wants the result: heads of a token side by side
    mixed = q.new_empty(q.shape[0], q.shape[2], q.shape[1], q.shape[3]).transpose(1, 2)
    # scores stay float32 in any dtype, as in torch's function: eight bits of a score of 10 are 4 % of its weight
    q = (q.float() * q.shape[-1] ** -0.5).contiguous()
    k = k.float().contiguous()
    values = v.transpose(-1, -2).contiguous()
    for cell in range(q.shape[0]):
        for head in range(q.shape[1]):
            # one head's scores fit the cache, all heads' do not
            scores = onednn.product(q[cell, head], k[cell, head], None)
            shares = torch.softmax(scores, -1, out=scores).to(values.dtype)
            mixed[cell, head] = onednn.product(shares, values[cell, head], None)
    return mixed


def _followed(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def use_onednn(network: nn.Module, device: torch.device, dtype: torch.dtype) -> bool:
    """Let a network that will only be evaluated, with the weights it has now, use oneDNN's products, where they are there and right.

    Returns whether it does. Where gradients are asked for they flow, through torch's own functions.
    """
    if device.type != "cpu" or not onednn.available(dtype):
        return False
    linear = []
    for module in network.modules():
        if isinstance(module, Linear) and min(module.weight.shape) >= MIN_WIDTH and module.weight.is_contiguous():
            module.onednn = True
            linear.append(module)
        elif isinstance(module, DotProductAttention):
            module.onednn = True
    if sum(module.weight.nbytes for module in linear) <= PACK_BYTES:
        for module in linear:
            module.packed = onednn.packed(module.weight.detach(), tokens_at_once(max(module.weight.shape)))
    return True


def tokens_at_once(widest: int) -> int:
    """Tokens that a CPU core best takes through a network whose widest layer has so many outputs."""
    return max(MIN_PIECE_TOKENS, PIECE_ELEMENTS // widest)
