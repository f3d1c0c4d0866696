"""What is trained, in numbers: the `sae` section of a config made concrete for one layer's width."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from sae_genomics.errors import UserError
from sae_genomics.sae.architectures import architecture_named
from sae_genomics.sae.section import SaeConfig

MAX_DEFAULT_LR = 3e-3


@dataclass(frozen=True)
class Spec:
    """Everything one SAE's training depends on but its data.

    d_in: width of the activations. d_sae: latents. k: active latents per token (their mean, where a token may have more or fewer);
        0 where the architecture aims at none. widths: sizes of nested dictionaries, ascending to d_sae.
    batch_rows: tokens a step. lr: peak learning rate.
    auxk_coefficient, dead_after_tokens: the dead-latent loss, as in `sae_genomics.sae.step`.
    own: settings that this architecture alone has.
    """

    architecture: str
    d_in: int
    d_sae: int
    k: int
    widths: tuple[int, ...]
    steps: int
    batch_rows: int
    lr: float
    lr_decay: str
    lr_warmup_steps: int
    lr_decay_steps: int
    auxk_coefficient: float
    dead_after_tokens: int
    compute_dtype: str
    seed: int
    own: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self) | {"widths": list(self.widths)}
        if not self.own:  # as it was written before there were any
            del values["own"]
        return values


def make_spec(config: SaeConfig, d_in: int, train_rows: int, seed: int) -> Spec:
    """The numbers for a layer of width d_in with `train_rows` training tokens.

    Raises UserError for an unknown architecture, when k exceeds the number of latents, or when there is no row to train on.
    """
    architecture = architecture_named(config.architecture)
    d_sae = config.d_sae or max(1, round(config.expansion * d_in))
    if architecture.uses_k and config.k > d_sae:
        source = "sae.d_sae" if config.d_sae else f"sae.expansion {config.expansion:g} x {d_in} wide activations"
        raise UserError(
            f"sae.k = {config.k} is more than the {d_sae} latents that {source} gives; "
            f"lower it with --set sae.k={max(1, d_sae // 8)}, or raise sae.d_sae"
        )
    if train_rows < 1:
        raise UserError(
            "there is no token to train on: all of the data is held out or empty; lower data.heldout_fraction or use more data"
        )
    decay_steps = 0 if config.lr_decay == "none" else round(config.steps * config.lr_decay_fraction)
    return Spec(
        architecture=architecture.name,
        d_in=d_in,
        d_sae=d_sae,
        k=config.k if architecture.uses_k else 0,
        widths=architecture.widths(d_sae),
        steps=config.steps,
        batch_rows=min(config.batch_tokens, train_rows),
        lr=config.lr or default_lr(d_sae, d_in),
        lr_decay=config.lr_decay,
        lr_warmup_steps=min(config.lr_warmup_steps, config.steps // 10),
        lr_decay_steps=decay_steps,
        auxk_coefficient=config.auxk_coefficient,
        dead_after_tokens=config.dead_after_tokens,
        compute_dtype=config.compute_dtype,
        seed=seed,
        own=architecture.own_settings(config),
    )


def default_lr(d_sae: int, d_in: int) -> float:
    """Peak learning rate from the widths: 2e-4 / sqrt(d_sae / 2^14) x sqrt(768 / d_in), at most 3e-3.

    The first factors are the law of Gao et al. 2024 (arXiv:2406.04093), found on activations 768 wide. Adam moves every entry
    by about the rate, and entries of a row of norm 1 are of size 1 / sqrt(d_in): the last factor keeps the change of a row
    relative to its norm. On the bundled model (d_in 64, d_sae 1024) it halves the held-out FVU of a short training.
    """
    return min(2e-4 / math.sqrt(d_sae / 2**14) * math.sqrt(768 / d_in), MAX_DEFAULT_LR)


def lower_lr(spec: Spec) -> float:
    """What to try where spec.lr was too high: a third of it, and no more than the default."""
    return min(spec.lr / 3, default_lr(spec.d_sae, spec.d_in))
