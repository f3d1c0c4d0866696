"""One optimisation step of the TopK family on a CPU, at the cost of little more than the encoder's matrix product.

Loss of a batch of T tokens x (Gao et al. 2024), as SAELens' trainer computes it:

    h = (x - b_dec) W_enc^T + b_enc
    S = the k latents with the largest h_j |W_dec[j]|;   a_j = max(h_j, 0) for j in S
    L = 1/T sum_t |x - b_dec - sum_{j in S} a_j W_dec[j]|^2 + L_aux

Choosing by h_j |W_dec[j]| and folding the norms into the encoder when saving gives what a decoder of unit rows would give;
the norms themselves get no gradient of their own, because scaling a row of W_dec up and of W_enc down changes nothing else.

L_aux (AuxK, ibid. appendix A.2): the k_aux = d_in / 2 largest h_j |W_dec[j]| among dead latents reconstruct the residual,
weighted by auxk_coefficient and by min(1, dead / k_aux). Gradients are clipped to norm 1, then Adam.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sae_genomics.sae.adam import adam_rows, adam_vector
from sae_genomics.sae.select import top_k
from sae_genomics.sae.sparse import Entries, by_latent, decode, latent_gradients
from sae_genomics.sae.spec import Spec
from sae_genomics.sae.state import SaeState

CLIP_NORM = 1.0
HIDDEN_ELEMENTS = 1 << 24


@dataclass(frozen=True)
class StepResult:
    """What one step measured, before its update.

    loss: everything that was minimised. mse: mean squared error summed over d_in, mean over tokens.
    auxk: the weighted dead-latent loss. l0: active latents a token. dead: latents silent for dead_after_tokens.
    grad_norm: norm of all gradients before clipping.
    """

    loss: float
    mse: float
    auxk: float
    l0: float
    dead: int
    grad_norm: float


class CpuStep:
    """Owns the buffers of a step; changes `state` in place."""

    def __init__(self, state: SaeState, spec: Spec):
        self.state, self.spec = state, spec
        self._widths = np.asarray(spec.widths, np.int64)
        self._level = np.searchsorted(self._widths, np.arange(spec.d_sae), side="right").astype(np.int32)
        self._norm = state.W_dec.norm(dim=1).numpy()
        self._grad = {
            name: np.zeros(tuple(parameter.shape), np.float32) for name, parameter in state.parameters().items()
        }
        self._hidden = torch.empty(0)

    def __call__(self, x: torch.Tensor, lr: float) -> StepResult:
        """Take one step on x, float32 [tokens, d_in], scaled activations."""
        state, spec, tokens = self.state, self.spec, x.shape[0]
        dead = self._dead()
        k_aux = min(spec.d_in // 2, int(dead.sum())) if spec.auxk_coefficient > 0 else 0
        centred = x - state.b_dec
        active, auxiliary = self._encode(centred, dead, k_aux)

        rows = x.numpy()
        W_dec = state.W_dec.numpy()
        error, squared = decode(rows, state.b_dec.numpy(), W_dec, active, self._widths)
        level_mse = squared.sum(axis=1, dtype=np.float64) / tokens
        loss = float(level_mse.sum())
        gradient = _sum_from_last(error) if len(self._widths) > 1 else error
        gradient_bias = gradient[0].sum(axis=0)
        parts = [(active, self._level * tokens, False)]
        auxk = 0.0
        if auxiliary is not None:
            weight = spec.auxk_coefficient * min(1.0, int(dead.sum()) / max(spec.d_in // 2, 1))
            residual = -error[-1] if len(self._widths) == 1 else -gradient[-1]
            aux_error, aux_squared = decode(
                residual, np.zeros(spec.d_in, np.float32), W_dec, auxiliary, np.array([spec.d_sae], np.int64)
            )
            auxk = weight * float(aux_squared.sum(dtype=np.float64)) / tokens
            aux_error *= np.float32(weight)
            parts.append((auxiliary, np.full(spec.d_sae, len(self._widths) * tokens, np.int32), True))
            gradient = np.concatenate([gradient, aux_error])
        gradient = gradient.reshape(-1, spec.d_in)
        entries = by_latent(parts, spec.d_sae)
        # `gradient` lacks the factor 2 / T of the mean squared error; clipping's factor takes it along.
        input_gradient, squared_norm = latent_gradients(
            centred.numpy(), gradient, state.W_enc.numpy(), W_dec, entries,
            self._grad["W_enc"], self._grad["W_dec"], self._grad["b_enc"],
        )  # fmt: skip
        np.subtract(gradient_bias, input_gradient, out=self._grad["b_dec"])
        squared_norm += float(np.dot(self._grad["b_dec"], self._grad["b_dec"]))
        grad_norm = 2 / tokens * float(np.sqrt(squared_norm))
        self._update(entries.indptr, 2 / tokens * min(1.0, CLIP_NORM / (grad_norm + 1e-6)), lr)
        fired = self._count_fired(active)
        return StepResult(loss + auxk, float(level_mse[-1]), auxk, fired / tokens, int(dead.sum()), grad_norm)

    def _dead(self) -> npt.NDArray[np.bool_]:
        return self.state.tokens_since_fired.numpy() > self.spec.dead_after_tokens

    def _encode(self, centred: torch.Tensor, dead: npt.NDArray[np.bool_], k_aux: int) -> tuple[Entries, Entries | None]:
        """Active entries, and those of dead latents; the pre-activations exist for a few rows at a time."""
        state, spec, tokens = self.state, self.spec, centred.shape[0]
        at_once = max(1, min(tokens, HIDDEN_ELEMENTS // spec.d_sae))
        if self._hidden.shape[0] != at_once:
            self._hidden = torch.empty(at_once, spec.d_sae)
        indices, values = np.empty((tokens, spec.k), np.int32), np.empty((tokens, spec.k), np.float32)
        aux_indices, aux_values = np.empty((tokens, k_aux), np.int32), np.empty((tokens, k_aux), np.float32)
        only_dead = np.where(dead, np.float32(0), np.float32(-np.inf))
        for start in range(0, tokens, at_once):
            part = slice(start, min(start + at_once, tokens))
            hidden = self._hidden[: part.stop - part.start]
            torch.addmm(state.b_enc, centred[part], state.W_enc.T, out=hidden)
            top_k(hidden.numpy(), self._norm, spec.k, indices[part], values[part])
            if k_aux:
                top_k(
                    hidden.numpy(), self._norm, k_aux, aux_indices[part], aux_values[part],
                    offset=only_dead, rectify=False,
                )  # fmt: skip
        active = Entries(np.arange(tokens + 1, dtype=np.int64) * spec.k, indices.ravel(), values.ravel())
        if not k_aux:
            return active, None
        return active, Entries(np.arange(tokens + 1, dtype=np.int64) * k_aux, aux_indices.ravel(), aux_values.ravel())

    def _update(self, indptr: npt.NDArray[np.int64], scale: float, lr: float) -> None:
        state = self.state
        state.step += 1
        for name, parameter in state.parameters().items():
            arrays = (
                parameter.numpy(), self._grad[name], state.exp_avg[name].numpy(), state.exp_avg_sq[name].numpy(),
            )  # fmt: skip
            if parameter.ndim == 2:
                adam_rows(*arrays, indptr, scale, lr, state.step)
            else:
                adam_vector(*arrays, scale, lr, state.step)
        self._norm = state.W_dec.norm(dim=1).numpy()

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
