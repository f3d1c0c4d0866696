"""What the measured numbers say of an SAE: that its training failed, or what a reader must know before believing it.

FVU 1 is what the mean activation gives without any SAE. An SAE at or above it has learned nothing that could be looked at.
FVU 0.5 misses as much of the variance as it reproduces: from there on most of what the layer does is not in the features.
"""

from __future__ import annotations

import math
from typing import Any

from sae_genomics.sae.architectures import architecture_named

FAILED_FVU = 1.0
HIGH_FVU = 0.5
L0_TOLERANCE = 0.2  # of k


def failed(fvu: float) -> bool:
    """Whether the reconstruction is no better than the mean activation."""
    return not math.isfinite(fvu) or fvu >= FAILED_FVU


def l0_is_off(l0: float, k: int) -> bool:
    """Whether the mean number of active latents is more than a fifth off what was asked for."""
    return abs(l0 - k) > L0_TOLERANCE * k


def doubts(metrics: dict[str, Any], units: str = "genes", items: str = "cells") -> list[str]:
    """One sentence per reason to doubt an SAE, from its metrics.json; none where all is well.

    units, items: what the data kind calls them.
    Held-out numbers where there are any, else those of training rows.
    """
    where = "heldout" if metrics.get("heldout_tokens") else "train"
    centred = metrics.get("centre") == "unit"
    names = ("fvu_centred" if centred else "fvu", "l0")
    fvu, l0 = (metrics.get(name if where == "heldout" else f"train_{name}") for name in names)
    constant = _constant_rows(metrics, where, items)
    if constant:
        return [constant]
    if metrics.get("from"):  # a published SAE: nothing was trained here that could be trained better
        text = _high_fvu(fvu, centred, units, "it was trained on other data, and may not suit these")
        return [text] if text else []
    uses_k = metrics.get("k", 1) is not None
    advice = f"raise {'sae.steps, sae.k or sae.expansion' if uses_k else 'sae.steps or sae.expansion'}"
    return [text for text in (_high_fvu(fvu, centred, units, advice), _l0(l0, metrics)) if text]


def _high_fvu(fvu: float | None, centred: bool, units: str, advice: str) -> str:
    """centred: the FVU is that of what the units' means leave, which is all that the SAE reads."""
    if fvu is None or fvu <= HIGH_FVU:
        return ""
    of, what = (" of the rest", f"variance that the {units}' means leave") if centred else ("", "activations' variance")
    return f"The FVU{of} is {fvu:.2f}: the features miss more of the {what} than they reproduce; {advice}"


def _constant_rows(metrics: dict[str, Any], where: str, items: str) -> str:
    name = "fvu" if where == "heldout" else "train_fvu"
    if metrics.get(name, 0) is not None:
        return ""
    rows = "held-out" if where == "heldout" else "training"
    return f"The {rows} activations do not vary, so there is no FVU; use more {items}"


def _l0(l0: float | None, metrics: dict[str, Any]) -> str:
    k = metrics.get("k")
    if l0 is None or not k or not l0_is_off(l0, k):
        return ""
    architecture = architecture_named(metrics.get("architecture"))
    return f"L0 is {l0:.1f}, sae.k is {k}: {architecture.l0_advice(metrics.get('steps'))}"
