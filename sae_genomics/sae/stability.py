"""Do the features come back? One SAE's features among those of another seed's SAE, trained on the same rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sae_genomics.sae.compare import STABLE_COSINE, match
from sae_genomics.sae.evaluate import Evaluation
from sae_genomics.sae.load import Encoder


@dataclass(frozen=True)
class Stability:
    """share: of the live features, those with a partner at cosine >= STABLE_COSINE. mmcs: mean of the largest cosines.

    Live is what fired on the evaluated rows; both are about decoder directions. None where no feature is live.
    """

    share: float | None
    mmcs: float | None


def stability(encoder: Encoder, measured: Evaluation, other: Encoder, measured_other: Evaluation) -> Stability:
    """How many of `encoder`'s features have a partner among those of `other`. The evaluations are of the same rows."""
    ours, theirs = (
        each.W_dec[torch.as_tensor(found.firing_rate > 0, device=each.W_dec.device)]
        for each, found in ((encoder, measured), (other, measured_other))
    )
    if not len(ours) or not len(theirs):
        return Stability(None, None)
    found = match(ours, theirs)
    return Stability(found.share(STABLE_COSINE), found.mmcs)
