"""The step of a SparseArchitecture in plain PyTorch, for CUDA: the same equations and entries as on a CPU.

Sparse products go through CSR matrices by token (decoding) and by latent (gradients). Where Triton is installed, its
kernels (`sae_genomics.kernels.triton_sparse`) take over the two that move the most memory; this file is their oracle.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sae_genomics.sae.adam import adam_tensor
from sae_genomics.sae.step import StepResult, auxk_size, clip_factor

if TYPE_CHECKING:
    from sae_genomics.sae.architecture import SparseArchitecture
    from sae_genomics.sae.spec import Spec
    from sae_genomics.sae.state import SaeState

HIDDEN_ELEMENTS = 1 << 28
GATHER_ELEMENTS = 1 << 24
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


def _kernels(tensor: torch.Tensor) -> Any:
    """The Triton kernels where they apply: on CUDA, with Triton installed. SAE_GENOMICS_TRITON=0 turns them off."""
    if not tensor.is_cuda or os.environ.get("SAE_GENOMICS_TRITON") == "0":
        return None
    try:
        from sae_genomics.kernels import triton_sparse
    except ImportError:
        return None
    return triton_sparse


def spmm(
    row: torch.Tensor, column: torch.Tensor, value: torch.Tensor, n_rows: int, dense: torch.Tensor
) -> torch.Tensor:
    """Sum of value x dense[column] by row, float32 [n_rows, d]. row: int64 [n], ascending."""
    pointers = torch.searchsorted(row, torch.arange(n_rows + 1, device=row.device))
    if kernels := _kernels(dense):
        return kernels.sum_rows(pointers, column, value, dense)
    matrix = torch.sparse_csr_tensor(pointers, column, value, (n_rows, len(dense)), check_invariants=False)
    return matrix @ dense


def gathered_dots(
    left: torch.Tensor, left_row: torch.Tensor, right: torch.Tensor, right_row: torch.Tensor
) -> torch.Tensor:
    """left[left_row] . right[right_row], float32 [n], a bounded number of pairs at a time."""
    at_once = max(1, GATHER_ELEMENTS // left.shape[1])
    parts = [
        torch.einsum("nd,nd->n", left[left_row[start : start + at_once]], right[right_row[start : start + at_once]])
        for start in range(0, len(left_row), at_once)
    ]
    return torch.cat(parts) if parts else left.new_zeros(0)


def latent_gradients(
    centred: torch.Tensor,
    gradient: torch.Tensor,
    W_dec: torch.Tensor,
    latent: torch.Tensor,
    token: torch.Tensor,
    row: torch.Tensor,
    value: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Gradients of W_enc, b_enc and W_dec from entries in any order; see `sae_genomics.kernels.sparse`.

    centred: float32 [tokens, d_in]. gradient: float32 [rows, d_in]. latent, token, row: int64 [n]. value: float32 [n].
    """
    latent, order = latent.sort(stable=True)
    token, row, value = token[order], row[order], value[order]
    if kernels := _kernels(W_dec):
        pointers = torch.searchsorted(latent, torch.arange(len(W_dec) + 1, device=latent.device))
        return kernels.latent_gradients(centred, gradient, W_dec, pointers, token, row, value)
    slope = gathered_dots(gradient, row, W_dec, latent)
    return {
        "W_enc": spmm(latent, token, slope, len(W_dec), centred),
        "b_enc": torch.zeros(len(W_dec), device=W_dec.device).index_add_(0, latent, slope),
        "W_dec": spmm(latent, row, value, len(W_dec), gradient),
    }
