"""The learning rate at a step: a pure function, so that resuming needs nothing but the step."""

from __future__ import annotations

import math

from sae_genomics.sae.spec import Spec


def learning_rate(spec: Spec, step: int) -> float:
    """Rate of the step-th update, counted from 0: linear warm-up, plateau, decay towards 0 over the last steps."""
    rate = spec.lr
    if step < spec.lr_warmup_steps:
        rate *= (step + 1) / spec.lr_warmup_steps
    into_decay = step - (spec.steps - spec.lr_decay_steps) + 1
    if spec.lr_decay != "none" and spec.lr_decay_steps and into_decay > 0:
        share = into_decay / (spec.lr_decay_steps + 1)
        rate *= (1 - share) if spec.lr_decay == "linear" else 0.5 * (1 + math.cos(math.pi * share))
    return rate
