"""One step of a SparseArchitecture as the formula in `sae_genomics.sae.step` says it: dense, differentiated by autograd.

No run takes it. It is what the fast steps must agree with, and the file to read first. Any device, any float dtype.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sae_genomics.sae.adam import adam_tensor
from sae_genomics.sae.step import StepResult, auxk_size, clip_factor

if TYPE_CHECKING:
    from sae_genomics.sae.architecture import SparseArchitecture
    from sae_genomics.sae.spec import Spec
    from sae_genomics.sae.state import SaeState


class PlainStep:
    """Changes `state` in place."""

    def __init__(self, state: SaeState, spec: Spec, architecture: SparseArchitecture):
        self.state, self.spec, self._architecture = state, spec, architecture

    def __call__(self, x: torch.Tensor, lr: float) -> StepResult:
        state, spec = self.state, self.spec
        dead = state.tokens_since_fired > spec.dead_after_tokens
        n_dead = int(dead.sum())
        k_aux, aux_weight = auxk_size(spec, n_dead)
        leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in state.parameters.items()}
        W_enc, b_enc, W_dec, b_dec = (leaves[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
        with torch.enable_grad():
            h = (x - b_dec) @ W_enc.T + b_enc
            score = (h * W_dec.norm(dim=1)).detach()
            a = h.relu() * self._architecture.plain_choice(score, spec, state)
            errors = [a[:, :width] @ W_dec[:width] + b_dec - x for width in spec.widths]
            mse = [error.square().sum(dim=1).mean() for error in errors]
            auxk = torch.zeros(())
            if k_aux:
                among_dead = largest(score.masked_fill(~dead, -torch.inf), k_aux)
                residual = -errors[-1].detach()
                auxk = aux_weight * ((h * among_dead) @ W_dec - residual).square().sum(dim=1).mean()
            loss = torch.stack(mse).sum() + auxk
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        grad_norm = float(torch.cat([gradient.flatten() for gradient in gradients]).norm())
        state.step += 1
        for (name, parameter), gradient in zip(state.parameters.items(), gradients, strict=True):
            clipped = gradient * clip_factor(grad_norm)
            adam_tensor(parameter, clipped, state.exp_avg[name], state.exp_avg_sq[name], lr, state.step)
        fired = a.detach() > 0
        state.tokens_since_fired += len(x)
        state.tokens_since_fired[fired.any(dim=0)] = 0
        l0 = float(fired.sum()) / len(x)
        return StepResult(float(loss.detach()), float(mse[-1].detach()), float(auxk.detach()), l0, n_dead, grad_norm)


def largest(score: torch.Tensor, k: int) -> torch.Tensor:
    """1 at the k largest of each row, else 0."""
    return torch.zeros_like(score).scatter_(1, score.topk(k, dim=1).indices, 1)
