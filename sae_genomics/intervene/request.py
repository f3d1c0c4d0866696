"""What is asked for on the command line, and what of it cannot go together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from sae_genomics.errors import UserError

EDITS = ("ablate", "scale", "clamp", "add")
REPLACEMENTS = ("zero", "mean", "resample")
REFERENCES = ("median", "p99")
WHERE = ("active", "all")


@dataclass(frozen=True)
class Request:
    """None where nothing was said: `filled` gives the defaults. One of features, concept and direction is there."""

    layer: int
    kind: str
    features: tuple[int, ...] = ()
    concept: str | None = None
    direction: Path | None = None
    to: str | None = None
    amount: float | None = None
    reference: str | None = None
    where: str | None = None
    items: tuple[str, ...] = ("heldout",)
    max_items: int = 40
    masked: bool = False
    draws: int = 50
    seed: int | None = None

    def check(self) -> None:
        """Raise UserError for words that do not go together; no file is read."""
        if self.to is not None and self.kind != "ablate":
            raise UserError(f"--to says what an ablated activation becomes; leave it out with --edit {self.kind}")
        if self.reference is not None and self.kind != "clamp":
            raise UserError(f"--reference goes with --edit clamp; leave it out with --edit {self.kind}")
        if self.amount is not None and self.kind == "ablate":
            raise UserError("--amount: an ablation has none; for a multiple of the activation type --edit scale")
        if self.amount is not None and not math.isfinite(self.amount):
            raise UserError(f"--amount {self.amount:g}: it takes a finite number")
        if self.amount is None and self.kind in ("scale", "add"):
            means = "a factor of the activation" if self.kind == "scale" else "what is added to the activation"
            raise UserError(f"--edit {self.kind} needs --amount, {means}")
        if self.direction is not None and self.kind != "add":
            raise UserError(
                f"--direction: it has no activations to {self.kind}; it can only be added: --edit add --amount X"
            )
        if self.direction is not None and self.where == "active":
            raise UserError("--where active: a direction has no activations; leave it out, or type --where all")
        if len(set(self.features)) != len(self.features):
            twice = next(each for each in self.features if self.features.count(each) > 1)
            raise UserError(f"--features: {twice} is named twice")
        for option, value, least in (("--max-items", self.max_items, 1), ("--draws", self.draws, 1)):
            if value < least:
                raise UserError(f"{option} takes a number from {least} on")

    @property
    def replacement(self) -> Literal["zero", "mean", "resample"]:
        """What an ablated activation becomes."""
        return cast('Literal["zero", "mean", "resample"]', self.to or "zero")

    @property
    def everywhere(self) -> bool:
        """Whether all tokens are edited, not only active ones."""
        return self.where == "all" or self.direction is not None

    @property
    def needs_activity(self) -> bool:
        """Whether nothing happens at a token where nothing is active."""
        return not self.everywhere or self.kind == "scale" or (self.kind == "ablate" and self.replacement == "zero")

    @property
    def words(self) -> str:
        """The edit for a reader, without what is edited."""
        amount = 1.0 if self.amount is None else self.amount
        done = {
            "ablate": {"zero": "to 0", "mean": "to its mean at the unit", "resample": "to its value at a random token of the unit"}[self.replacement],
            "scale": f"by {amount:g}",
            "clamp": f"at {amount:g} x its {'median' if (self.reference or 'median') == 'median' else '99th percentile'}",
            "add": f"{amount:g}",
        }[self.kind]  # fmt: skip
        return f"{self.kind} {done}, {'at all tokens' if self.everywhere else 'where active'}"
