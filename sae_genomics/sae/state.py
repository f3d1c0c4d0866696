"""The numbers that training changes: weights, Adam's moments, dead-latent counters. One object, all of it saved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sae_genomics.sae.spec import Spec

_WEIGHTS = ("W_enc", "b_enc", "W_dec", "b_dec")  # of every architecture; it may have further parameters
_MOMENTS = ("exp_avg", "exp_avg_sq")
_COUNTER = "tokens_since_fired"
BATCH_THRESHOLD_RATE = 0.01  # of the running mean that becomes the threshold of a saved BatchTopK SAE, as in SAELens


@dataclass
class SaeState:
    """Weights and everything beside them that the next step reads, in the units of scaled activations.

    parameters: W_enc float32 [d_sae, d_in], one row per latent (SAELens stores its transpose); b_enc float32 [d_sae];
        W_dec float32 [d_sae, d_in]; b_dec float32 [d_in]; then those of the architecture's own, by name.
    exp_avg, exp_avg_sq: Adam's moments by parameter name.
    tokens_since_fired: int64 [d_sae], tokens seen since the latent was last active.
    batch_threshold: running mean, from 0 on, of the smallest selected activation (batch families), else 0.
    threshold_updates: values that this mean has taken in.
    step: optimisation steps taken.
    """

    parameters: dict[str, torch.Tensor]
    exp_avg: dict[str, torch.Tensor]
    exp_avg_sq: dict[str, torch.Tensor]
    tokens_since_fired: torch.Tensor
    batch_threshold: float = 0.0
    step: int = 0
    threshold_updates: int = 0

    @property
    def W_enc(self) -> torch.Tensor:
        return self.parameters["W_enc"]

    @property
    def b_enc(self) -> torch.Tensor:
        return self.parameters["b_enc"]

    @property
    def W_dec(self) -> torch.Tensor:
        return self.parameters["W_dec"]

    @property
    def b_dec(self) -> torch.Tensor:
        return self.parameters["b_dec"]

    @property
    def d_sae(self) -> int:
        return self.W_dec.shape[0]

    @property
    def d_in(self) -> int:
        return self.W_dec.shape[1]

    def add_smallest(self, smallest: float) -> None:
        """Take the smallest activation that a batch selected into the running mean."""
        self.batch_threshold += BATCH_THRESHOLD_RATE * (smallest - self.batch_threshold)
        self.threshold_updates += 1

    @property
    def mean_smallest(self) -> float:
        """The running mean without the pull of its start at 0: m / (1 - (1 - rate)^updates), as Adam corrects its moments."""
        if not self.threshold_updates:
            return 0.0
        return self.batch_threshold / (1 - (1 - BATCH_THRESHOLD_RATE) ** self.threshold_updates)

    def add_parameters(self, parameters: dict[str, torch.Tensor]) -> None:
        """Take in what the architecture trains beside the weights, before the first step."""
        for name in sorted(parameters):
            self.parameters[name] = parameters[name]
            self.exp_avg[name] = torch.zeros_like(parameters[name])
            self.exp_avg_sq[name] = torch.zeros_like(parameters[name])

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor under a name of its own, for a checkpoint."""
        named = {_COUNTER: self.tokens_since_fired}
        for name, parameter in self.parameters.items():
            named[name] = parameter
            for moment in _MOMENTS:
                named[f"{moment}.{name}"] = getattr(self, moment)[name]
        return named

    @classmethod
    def from_tensors(
        cls, tensors: dict[str, torch.Tensor], batch_threshold: float, step: int, threshold_updates: int
    ) -> SaeState:
        """The state that `tensors` came from, its parameters in the order that sums over them take."""
        names = [*_WEIGHTS, *sorted(name for name in tensors if f"exp_avg.{name}" in tensors and name not in _WEIGHTS)]
        return cls(
            parameters={name: tensors[name] for name in names},
            exp_avg={name: tensors[f"exp_avg.{name}"] for name in names},
            exp_avg_sq={name: tensors[f"exp_avg_sq.{name}"] for name in names},
            tokens_since_fired=tensors[_COUNTER],
            batch_threshold=batch_threshold,
            step=step,
            threshold_updates=threshold_updates,
        )

    def to(self, device: torch.device) -> SaeState:
        moved = {name: tensor.to(device) for name, tensor in self.tensors().items()}
        return SaeState.from_tensors(moved, self.batch_threshold, self.step, self.threshold_updates)


def initial_state(spec: Spec, mean: torch.Tensor, seed: int) -> SaeState:
    """Decoder rows random on the unit sphere, the encoder their transpose, b_dec the mean activation.

    mean: float32 [d_in], in scaled units. Tied directions at the start let a latent read what it writes
    (Gao et al. 2024, appendix A.1).
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    rows = generator.standard_normal((spec.d_sae, spec.d_in), dtype=np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    W_dec = torch.from_numpy(rows)
    parameters = {
        "W_enc": W_dec.clone(),
        "b_enc": torch.zeros(spec.d_sae),
        "W_dec": W_dec,
        "b_dec": mean.to(torch.float32).clone(),
    }
    return fresh_state(parameters)


def fresh_state(parameters: dict[str, torch.Tensor]) -> SaeState:
    """A state before its first step, with these weights."""
    return SaeState(
        parameters=parameters,
        exp_avg={name: torch.zeros_like(parameter) for name, parameter in parameters.items()},
        exp_avg_sq={name: torch.zeros_like(parameter) for name, parameter in parameters.items()},
        tokens_since_fired=torch.zeros(len(parameters["W_dec"]), dtype=torch.int64),
    )
