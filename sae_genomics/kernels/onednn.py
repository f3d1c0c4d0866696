"""oneDNN's matrix product, which comes with torch: on CPUs the one that is fastest.

torch gives float32 products to MKL, which on AMD processors runs at half their rate; oneDNN does not. Precision is that
of torch's own product; results differ in rounding.
"""

from __future__ import annotations

import os
import platform
from functools import cache

import torch
from torch import Tensor

from sae_genomics import cpu
from sae_genomics.kernels.choice import instead_of, plain_asked
from sae_genomics.kernels.plain import onednn as plain

# oneDNN, and torch's wrapper of it, each keep what they compiled for the last 1 024 shapes, some megabytes a shape: cells
# are of ever new lengths, and memory would grow with their number. A forward pass has a few dozen; the wrapper's own
# cache saves next to nothing over oneDNN's.
_CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "24", "LRU_CACHE_CAPACITY": "1"}


@instead_of(plain.product)
def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x weight^T + bias, without a gradient. x: [rows, n_in], contiguous. weight: [n_out, n_in], or `packed`. bias: [n_out].

    For dtypes that are `available`.
    """
    return _product(x, weight, bias)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


def traced_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The same inside of torch.compile."""
    wrapped: Tensor = torch.ops.sae_genomics.product(x, weight, bias)
    return wrapped


# torch.compile refuses the operator itself unless the weight is a constant of its graph; one of ours it calls as it is
_library = torch.library.Library("sae_genomics", "DEF")
_library.define("product(Tensor x, Tensor weight, Tensor? bias) -> Tensor")
for _kind in ("CPU", "MkldnnCPU"):  # plain weights, packed ones
    _library.impl("product", _product, _kind)
torch.library.register_fake(
    "sae_genomics::product", lambda x, weight, bias: x.new_empty(x.shape[0], weight.shape[0]), lib=_library
)


def packed(weight: Tensor, rows: int) -> Tensor:
    """A copy of a weight in the order in which products with about so many rows read it. Nothing else can read it."""
    copy: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return copy


def available(dtype: torch.dtype) -> bool:
    """Whether oneDNN's product is asked for, this torch offers it on this processor, and it gives what it should."""
    return not plain_asked("onednn") and works(dtype)


@cache
def works(dtype: torch.dtype) -> bool:
    """Whether this torch offers oneDNN's product on this processor, and it gives what it should."""
    if dtype not in (torch.float32, torch.bfloat16) or platform.machine() not in ("x86_64", "AMD64"):
        return False
    if not torch.backends.mkldnn.is_available() or (dtype == torch.bfloat16 and not cpu.multiplies("bfloat16")):
        return False
    for name, size in _CACHES.items():  # read at the first product
        os.environ.setdefault(name, size)
    # small whole numbers, which both dtypes hold; what a processor cannot compute may show only at a model's sizes
    return all(_right(dtype, *sizes) for sizes in ((2, 3, 4), (256, 512, 1024)))


def _right(dtype: torch.dtype, rows: int, n_in: int, n_out: int) -> bool:
    x, weight = (torch.arange(n * n_in).remainder(5).sub(2).reshape(n, n_in).to(dtype) for n in (rows, n_out))
    bias = torch.ones(n_out, dtype=dtype)
    try:  # the operator is torch.compile's own, and may change its arguments
        with torch.inference_mode():
            found, again = (_product(x, each, bias) for each in (weight, packed(weight, rows)))
    except (AttributeError, RuntimeError, TypeError):
        return False
    expected = (x.float() @ weight.float().T + 1).to(dtype)
    near = 0.0 if dtype == torch.float32 else 2**-6  # a bias may be added before or after rounding
    return all(torch.allclose(each, expected, rtol=near, atol=0) for each in (found, again))
