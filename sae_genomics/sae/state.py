"""The numbers that training changes: weights, Adam's moments, dead-latent counters. One object, all of it saved."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from sae_genomics.sae.spec import Spec

PARAMETERS = ("W_enc", "b_enc", "W_dec", "b_dec")


@dataclass
class SaeState:
    """Weights and everything beside them that the next step reads.

    W_enc: float32 [d_sae, d_in], one row a latent (SAELens stores its transpose). b_enc: float32 [d_sae].
    W_dec: float32 [d_sae, d_in]. b_dec: float32 [d_in]. All in the units of scaled activations.
    exp_avg, exp_avg_sq: Adam's moments by parameter name.
    tokens_since_fired: int64 [d_sae], tokens seen since the latent was last active.
    threshold: running estimate of the smallest selected activation (batch families), else 0.
    step: optimisation steps taken.
    """

    W_enc: torch.Tensor
    b_enc: torch.Tensor
    W_dec: torch.Tensor
    b_dec: torch.Tensor
    tokens_since_fired: torch.Tensor
    exp_avg: dict[str, torch.Tensor] = field(default_factory=dict)
    exp_avg_sq: dict[str, torch.Tensor] = field(default_factory=dict)
    threshold: float = 0.0
    step: int = 0

    @property
    def d_sae(self) -> int:
        return self.W_dec.shape[0]

    @property
    def d_in(self) -> int:
        return self.W_dec.shape[1]

    def parameters(self) -> dict[str, torch.Tensor]:
        return {name: getattr(self, name) for name in PARAMETERS}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor under a name of its own, for a checkpoint."""
        named = {**self.parameters(), "tokens_since_fired": self.tokens_since_fired}
        for name in PARAMETERS:
            named[f"exp_avg.{name}"] = self.exp_avg[name]
            named[f"exp_avg_sq.{name}"] = self.exp_avg_sq[name]
        return named

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], threshold: float, step: int) -> SaeState:
        """The state that `tensors` came from."""
        return cls(
            **{name: tensors[name] for name in (*PARAMETERS, "tokens_since_fired")},
            exp_avg={name: tensors[f"exp_avg.{name}"] for name in PARAMETERS},
            exp_avg_sq={name: tensors[f"exp_avg_sq.{name}"] for name in PARAMETERS},
            threshold=threshold,
            step=step,
        )

    def to(self, device: torch.device) -> SaeState:
        moved = {name: tensor.to(device) for name, tensor in self.tensors().items()}
        return SaeState.from_tensors(moved, self.threshold, self.step)


def initial_state(spec: Spec, mean: torch.Tensor, seed: int) -> SaeState:
    """Decoder rows random on the unit sphere, the encoder their transpose, b_dec the mean activation.

    mean: float32 [d_in], in scaled units. Tied directions at the start let a latent read what it writes
    (Gao et al. 2024, appendix A.1).
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    rows = generator.standard_normal((spec.d_sae, spec.d_in), dtype=np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    W_dec = torch.from_numpy(rows)
    state = SaeState(
        W_enc=W_dec.clone(),
        b_enc=torch.zeros(spec.d_sae),
        W_dec=W_dec,
        b_dec=mean.to(torch.float32).clone(),
        tokens_since_fired=torch.zeros(spec.d_sae, dtype=torch.int64),
    )
    for name, parameter in state.parameters().items():
        state.exp_avg[name] = torch.zeros_like(parameter)
        state.exp_avg_sq[name] = torch.zeros_like(parameter)
    return state
