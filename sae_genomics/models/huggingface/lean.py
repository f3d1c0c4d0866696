"""Modules of transformers in the form that is fastest on a CPU, with the weights that they have and the same results but for rounding.

Linear, Conv1D      cpu_products.Linear, whose product may be oneDNN's
RMSNorm             x w / sqrt(mean(x^2) + eps) in three passes over the rows instead of eight; float32 alone
gelu_new            torch's own tanh approximation, which is the same formula, in one pass instead of eight
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sae_genomics.models.cpu_products import Linear, followed

_NEAR = 1e-6  # of the largest number: what a lean norm may differ from transformers' own


class LeanRmsNorm(nn.Module):
    """A root mean square norm. own: transformers' module, which computes what needs a gradient. scale: [width]."""

    def __init__(self, own: nn.Module, scale: Tensor, eps: float):
        super().__init__()
        self.own, self.eps = own, eps
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32 or followed(x, self.scale):  # type: ignore[arg-type]
            return self.own(x)  # type: ignore[no-any-return]
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        factor = norm.square_().div_(x.shape[-1]).add_(self.eps).rsqrt_()
        return (x * factor).mul_(self.scale)  # type: ignore[arg-type]


@torch.no_grad()
def make_lean(network: nn.Module) -> None:
    """Replace modules of a network that will only be evaluated, in place."""
    from transformers.activations import NewGELUActivation
    from transformers.pytorch_utils import Conv1D

    for parent in list(network.modules()):
        for name, module in list(parent.named_children()):
            found: nn.Module | None = None
            if type(module) is nn.Linear:
                found = _linear(module.weight, module.bias)
            elif isinstance(module, Conv1D):
                found = _linear(nn.Parameter(module.weight.t().contiguous(), requires_grad=False), module.bias)
            elif isinstance(module, NewGELUActivation):
                found = nn.GELU(approximate="tanh")
            elif type(module).__name__.endswith("RMSNorm"):
                found = _norm(module)
            if found is not None:
                setattr(parent, name, found.eval())


def _linear(weight: Any, bias: Any) -> Linear:
    made = Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    made.weight = weight
    if bias is not None:
        made.bias = bias
    return made


def _norm(module: Any) -> LeanRmsNorm | None:
    """The norm in its lean form, where it gives what transformers' own gives on some random rows; None for one of another formula."""
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if (
        not isinstance(weight, Tensor)
        or weight.ndim != 1
        or not isinstance(eps, float)
        or weight.dtype != torch.float32
    ):
        return None
    x = torch.randn(4, len(weight), generator=torch.Generator().manual_seed(0)).to(weight.device)
    expected = module(x)
    for scale in (weight.detach(), 1.0 + weight.detach()):  # Gemma's weights are what is added to 1
        made = LeanRmsNorm(module, scale, eps)
        if float((made(x) - expected).abs().max()) <= _NEAR * float(expected.abs().max()):
            return made
    return None
