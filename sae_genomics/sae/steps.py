"""Which implementation of a step computes it, by architecture and device."""

from __future__ import annotations

import torch

from sae_genomics.sae.spec import Spec
from sae_genomics.sae.state import SaeState
from sae_genomics.sae.step import TakeStep


def make_step(state: SaeState, spec: Spec, device: torch.device) -> TakeStep:
    """The fastest implementation of a step for this architecture and device."""
    if spec.architecture == "jumprelu":
        from sae_genomics.sae.jumprelu import JumpReluStep

        return JumpReluStep(state.to(device), spec)
    if device.type == "cuda":
        from sae_genomics.sae.torch_step import TorchStep

        return TorchStep(state.to(device), spec)
    from sae_genomics.sae.cpu_step import CpuStep

    return CpuStep(state.to(torch.device("cpu")), spec)
