"""What takes an optimisation step: that of the architecture, on the device."""

from __future__ import annotations

import torch

from sae_genomics.sae.architectures import architecture_named
from sae_genomics.sae.spec import Spec
from sae_genomics.sae.state import SaeState
from sae_genomics.sae.step import TakeStep


def make_step(state: SaeState, spec: Spec, device: torch.device) -> TakeStep:
    """The fastest implementation of a step for this architecture and device."""
    return architecture_named(spec.architecture).make_step(state, spec, device)
