"""A whole SAE architecture from outside the package: ReLU with an L1 penalty (Bricken et al. 2023).

    a_j = max(h_j, 0)
    L = 1/T sum_t |x - x^|^2 + l1_coefficient 1/T sum_t sum_j a_j |W_dec[j]|

It is saved as a JumpReLU with threshold 0, which is what `Architecture.threshold` gives where nothing else is said.
"""

from __future__ import annotations

import torch
from pydantic import Field

from sae_genomics.errors import UserError
from sae_genomics.sae.architecture import DenseArchitecture, Parameters
from sae_genomics.sae.section import SaeConfig
from sae_genomics.sae.spec import Spec


class ReluSettings(SaeConfig):
    l1_coefficient: float = Field(1.0, ge=0, description="weight of the L1 penalty")


class Relu(DenseArchitecture):
    name = "relu"
    description = "every positive pre-activation; an L1 penalty keeps them few"
    section = ReluSettings
    uses_k = False

    def check(self, settings: SaeConfig, d_sae: int) -> None:
        if not self.own_settings(settings)["l1_coefficient"]:
            raise UserError("sae.l1_coefficient = 0 leaves every feature active; set it to 1, for example")

    def activation(self, hidden: torch.Tensor, parameters: Parameters, spec: Spec) -> torch.Tensor:
        return hidden.relu()

    def sparsity_loss(
        self, hidden: torch.Tensor, active: torch.Tensor, parameters: Parameters, spec: Spec
    ) -> torch.Tensor:
        return spec.own["l1_coefficient"] * (active @ parameters["W_dec"].norm(dim=1)).mean()


RELU = Relu()
