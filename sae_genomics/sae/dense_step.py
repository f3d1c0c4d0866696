"""The step of a DenseArchitecture: every latent of every token, differentiated by autograd, on any device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sae_genomics.sae.adam import adam_tensor
from sae_genomics.sae.step import StepResult, clip_factor

if TYPE_CHECKING:
    from sae_genomics.sae.architecture import DenseArchitecture
    from sae_genomics.sae.spec import Spec
    from sae_genomics.sae.state import SaeState


class DenseStep:
    """Changes `state` in place."""

    def __init__(self, state: SaeState, spec: Spec, architecture: DenseArchitecture):
        self.state, self.spec, self._architecture = state, spec, architecture

    def __call__(self, x: torch.Tensor, lr: float) -> StepResult:
        state, spec, tokens = self.state, self.spec, len(x)
        if not state.step:
            state.add_parameters(self._architecture.first_parameters(state, x, spec))
        n_dead = int((state.tokens_since_fired > spec.dead_after_tokens).sum())
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in state.parameters.items()}
        with torch.enable_grad():
            hidden = torch.addmm(leaves["b_enc"], x - leaves["b_dec"], leaves["W_enc"].T)
            active = self._architecture.activation(hidden, leaves, spec)
            mse = (active @ leaves["W_dec"] + leaves["b_dec"] - x).square().sum(dim=1).mean()
            loss = mse + self._architecture.sparsity_loss(hidden, active, leaves, spec)
        gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        grad_norm = float(torch.stack([gradient.norm() for gradient in gradients]).norm())
        self._update(dict(zip(leaves, gradients, strict=True)), clip_factor(grad_norm), lr)
        firing = active.detach() > 0
        state.tokens_since_fired += tokens
        state.tokens_since_fired[firing.any(dim=0)] = 0
        l0 = float(firing.sum(dim=1).float().mean())
        return StepResult(float(loss.detach()), float(mse.detach()), 0.0, l0, n_dead, grad_norm)

    def _update(self, gradients: dict[str, torch.Tensor], scale: float, lr: float) -> None:
        state = self.state
        state.step += 1
        for name, parameter in state.parameters.items():
            adam_tensor(parameter, gradients[name] * scale, state.exp_avg[name], state.exp_avg_sq[name], lr, state.step)
        self._architecture.constrain(state.parameters)
