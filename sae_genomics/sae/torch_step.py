"""The step of a SparseArchitecture in PyTorch, for CUDA: the same equations and entries as on a CPU.

Sparse products go through CSR matrices by token (decoding) and by latent (gradients); Triton takes over the two that move
the most memory, where it is installed (`sae_genomics.kernels.triton_sparse`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sae_genomics.kernels.triton_sparse import gathered_dots, latent_gradients, spmm
from sae_genomics.sae.adam import adam_tensor
from sae_genomics.sae.step import StepResult, auxk_size, clip_factor

if TYPE_CHECKING:
    from sae_genomics.sae.architecture import SparseArchitecture
    from sae_genomics.sae.spec import Spec
    from sae_genomics.sae.state import SaeState

HIDDEN_ELEMENTS = 1 << 28
_SPARE = 1.5


@dataclass(frozen=True)
class Active:
    """Entries by token: token, latent int64 [n]; value float32 [n]. Tokens ascend."""

    token: torch.Tensor
    latent: torch.Tensor
    value: torch.Tensor

    def where(self, keep: torch.Tensor) -> Active:
        return Active(self.token[keep], self.latent[keep], self.value[keep])

    def after(self, tokens: int) -> Active:
        """The same entries where their tokens come after so many others."""
        return Active(self.token + tokens, self.latent, self.value) if tokens else self


class TorchStep:
    """The loss of `sae_genomics.sae.step`. Changes `state` in place."""

    def __init__(self, state: SaeState, spec: Spec, architecture: SparseArchitecture):
        self.state, self.spec, self._architecture = state, spec, architecture
        self._widths = torch.tensor(spec.widths, device=state.W_dec.device)
        self._dtype = getattr(torch, spec.compute_dtype)

    @torch.no_grad()
    def __call__(self, x: torch.Tensor, lr: float) -> StepResult:
        state, spec, tokens = self.state, self.spec, len(x)
        dead = state.tokens_since_fired > spec.dead_after_tokens
        n_dead = int(dead.sum())
        k_aux, aux_weight = auxk_size(spec, n_dead)
        centred = x - state.b_dec
        active, auxiliary = self._encode(centred, dead, k_aux)
        firing = active.where(active.value > 0)
        level = torch.searchsorted(self._widths, firing.latent, right=True)

        reconstruction = state.b_dec.expand(tokens, -1)
        errors = []
        for number in range(len(spec.widths)):
            part = firing.where(level == number) if len(spec.widths) > 1 else firing
            reconstruction = reconstruction + spmm(part.token, part.latent, part.value, tokens, state.W_dec)
            errors.append(reconstruction - x)
        error = torch.stack(errors)
        level_mse = error.square().sum(dim=2).mean(dim=1)
        gradient = error.flip(0).cumsum(0).flip(0) * (2 / tokens)
        bias_gradient = gradient[0].sum(dim=0)
        rows, token, latent, value = level * tokens + firing.token, firing.token, firing.latent, firing.value
        auxk = torch.zeros((), device=x.device)
        if auxiliary is not None:
            aux = spmm(auxiliary.token, auxiliary.latent, auxiliary.value, tokens, state.W_dec)
            aux_error = aux + error[-1]
            auxk = aux_weight * aux_error.square().sum(dim=1).mean()
            gradient = torch.cat([gradient, (aux_error * (2 * aux_weight / tokens))[None]])
            rows = torch.cat([rows, len(spec.widths) * tokens + auxiliary.token])
            token, latent = torch.cat([token, auxiliary.token]), torch.cat([latent, auxiliary.latent])
            value = torch.cat([value, auxiliary.value])
        gradients = latent_gradients(centred, gradient.reshape(-1, spec.d_in), state.W_dec, latent, token, rows, value)
        gradients["b_dec"] = bias_gradient - gradients["b_enc"] @ state.W_enc
        grad_norm = float(torch.stack([each.norm() for each in gradients.values()]).norm())
        state.step += 1
        for name, parameter in state.parameters.items():
            scaled = gradients[name] * clip_factor(grad_norm)
            adam_tensor(parameter, scaled, state.exp_avg[name], state.exp_avg_sq[name], lr, state.step)
        state.tokens_since_fired += tokens
        state.tokens_since_fired[firing.latent] = 0
        return StepResult(
            float(level_mse.sum() + auxk),
            float(level_mse[-1]),
            float(auxk),
            len(firing.value) / tokens,
            n_dead,
            grad_norm,
        )

    def _preactivations(self, centred: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        state = self.state
        W_enc, b_enc = state.W_enc.to(self._dtype), state.b_enc.to(self._dtype)
        at_once = max(1, HIDDEN_ELEMENTS // self.spec.d_sae)
        for start in range(0, len(centred), at_once):
            rows = centred[start : start + at_once].to(self._dtype)
            yield start, torch.nn.functional.linear(rows, W_enc, b_enc).float()

    def _encode(self, centred: torch.Tensor, dead: torch.Tensor, k_aux: int) -> tuple[Active, Active | None]:
        """Active entries, and those of dead latents; as `sae_genomics.sae.encode` does it."""
        state, spec, tokens = self.state, self.spec, len(centred)
        norm = state.W_dec.norm(dim=1)
        screens = self._dtype != torch.float32
        spare = _SPARE if screens else 1.0
        found: list[Active] = []
        auxiliary: list[Active] = []
        for start, hidden in self._preactivations(centred):
            score = hidden * norm
            found.append(self._architecture.candidates(hidden, score, tokens, spec, spare).after(start))
            if k_aux:
                latent = score.masked_fill(~dead, -torch.inf).topk(k_aux, dim=1, sorted=False).indices
                auxiliary.append(token_entries(latent, hidden.gather(1, latent)).after(start))
        active = _joined(found)
        if screens:
            exact = state.b_enc[active.latent] + gathered_dots(centred, active.token, state.W_enc, active.latent)
            active = Active(active.token, active.latent, exact)
        score = active.value.relu() * norm[active.latent]
        active = self._architecture.chosen(active, score, tokens, spec, state)
        return active, _joined(auxiliary) if k_aux else None


def token_entries(latent: torch.Tensor, value: torch.Tensor) -> Active:
    """As many entries of each token: latent, value [tokens, n]."""
    token = torch.arange(len(latent), device=latent.device)[:, None].expand_as(latent)
    return Active(token.flatten(), latent.flatten(), value.flatten())


def _joined(parts: list[Active]) -> Active:
    return Active(*(torch.cat([getattr(part, name) for part in parts]) for name in ("token", "latent", "value")))
