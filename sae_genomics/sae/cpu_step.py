"""One optimisation step of a SparseArchitecture on a CPU, at the cost of little more than the encoder's matrix product."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from sae_genomics import cpu
from sae_genomics.kernels.adam import adam_rows, adam_vector
from sae_genomics.kernels.sparse import Entries, by_latent, decode, latent_gradients
from sae_genomics.sae.encode import TokenTopK, Weights
from sae_genomics.sae.step import StepResult, auxk_size, clip_factor

if TYPE_CHECKING:
    from sae_genomics.sae.architecture import SparseArchitecture
    from sae_genomics.sae.spec import Spec
    from sae_genomics.sae.state import SaeState


class CpuStep:
    """The loss of `sae_genomics.sae.step`, its gradients from active entries alone. Changes `state` in place."""

    def __init__(self, state: SaeState, spec: Spec, architecture: SparseArchitecture):
        self.state, self.spec, self._architecture = state, spec, architecture
        used = cpu.compute_dtype(spec.compute_dtype, "cpu")
        if used != spec.compute_dtype:
            cpu.say_replaced("sae.compute_dtype", spec.compute_dtype, used)
        self._dtype: torch.dtype = getattr(torch, used)
        self._widths = np.asarray(spec.widths, np.int64)
        self._level = np.searchsorted(self._widths, np.arange(spec.d_sae), side="right").astype(np.int32)
        self._gradients = {name: np.zeros(tuple(value.shape), np.float32) for name, value in state.parameters.items()}

    def __call__(self, x: torch.Tensor, lr: float) -> StepResult:
        state, spec, tokens, levels = self.state, self.spec, len(x), len(self._widths)
        dead = state.tokens_since_fired.numpy() > spec.dead_after_tokens
        n_dead = int(dead.sum())
        k_aux, aux_weight = auxk_size(spec, n_dead)
        centred = x - state.b_dec
        active, auxiliary = self._encode(centred, dead, k_aux)

        W_dec = state.W_dec.numpy()
        error, squared = decode(x.numpy(), state.b_dec.numpy(), W_dec, active, self._widths)
        level_mse = squared.sum(axis=1, dtype=np.float64) / tokens
        residual = -error[-1]
        # `gradient` lacks the factor 2 / T of a mean of squares; the factor of clipping takes it along.
        gradient = error if levels == 1 else _sum_from_last(error)
        bias_gradient = gradient[0].sum(axis=0)
        parts = [(active, self._level * np.int32(tokens), False)]
        auxk = 0.0
        if auxiliary is not None:
            nothing = np.zeros(spec.d_in, np.float32)
            aux_error, aux_squared = decode(residual, nothing, W_dec, auxiliary, self._widths[-1:])
            auxk = aux_weight * float(aux_squared.sum(dtype=np.float64)) / tokens
            gradient = np.concatenate([gradient, aux_error * np.float32(aux_weight)])
            parts.append((auxiliary, np.full(spec.d_sae, levels * tokens, np.int32), True))
        entries = by_latent(parts, spec.d_sae)
        input_gradient, squared_norm = latent_gradients(
            centred.numpy(), gradient.reshape(-1, spec.d_in), state.W_enc.numpy(), W_dec, entries,
            self._gradients["W_enc"], self._gradients["W_dec"], self._gradients["b_enc"],
        )  # fmt: skip
        b_dec_gradient = np.subtract(bias_gradient, input_gradient, out=self._gradients["b_dec"])
        squared_norm += float(np.dot(b_dec_gradient, b_dec_gradient))
        grad_norm = 2 / tokens * float(np.sqrt(squared_norm))
        self._update(entries.indptr, 2 / tokens * clip_factor(grad_norm), lr)
        n_active = self._count_fired(active)
        return StepResult(
            float(level_mse.sum()) + auxk, float(level_mse[-1]), auxk, n_active / tokens, n_dead, grad_norm
        )

    def _encode(self, centred: torch.Tensor, dead: npt.NDArray[np.bool_], k_aux: int) -> tuple[Entries, Entries | None]:
        """Active entries, and those of dead latents."""
        state, spec = self.state, self.spec
        weights = Weights(state.W_enc, state.b_enc, state.W_dec.norm(dim=1).numpy(), self._dtype)
        auxiliary = None
        if k_aux:
            among = np.flatnonzero(dead).astype(np.int32)
            auxiliary = TokenTopK(len(centred), k_aux, weights, among, rectify=False)
        active = self._architecture.choose(centred, weights, spec, state, auxiliary)
        return active, auxiliary.entries(centred) if auxiliary is not None else None

    def _update(self, indptr: npt.NDArray[np.int64], scale: float, lr: float) -> None:
        state = self.state
        state.step += 1
        for name, parameter in state.parameters.items():
            arrays = (
                parameter.numpy(), self._gradients[name], state.exp_avg[name].numpy(), state.exp_avg_sq[name].numpy(),
            )  # fmt: skip
            if parameter.ndim == 2:
                adam_rows(*arrays, indptr, scale, lr, state.step)
            else:
                adam_vector(*arrays, scale, lr, state.step)

    def _count_fired(self, active: Entries) -> int:
        """Reset the counters of latents that fired, advance the others. Returns the number of active entries."""
        firing = active.values > 0
        fired = np.bincount(active.indices[firing], minlength=self.spec.d_sae) > 0
        counters = self.state.tokens_since_fired.numpy()
        counters += len(active.indptr) - 1
        counters[fired] = 0
        return int(firing.sum())


def _sum_from_last(error: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A latent of level p is part of every reconstruction from level p on: its gradient sums theirs."""
    return np.ascontiguousarray(np.cumsum(error[::-1], axis=0)[::-1])
