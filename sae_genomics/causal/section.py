"""The section `causal` of the config."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from sae_genomics.section import Section

PROBES = 4  # backward passes of an item in the screen of all features: draws of random signs


class CausalConfig(Section):
    """Which features are edited, how, and what the effects are compared with."""

    enabled: bool = Field(True, description="run the stage causal")
    features: int = Field(
        10,
        ge=0,
        description="features per layer whose effects are computed exactly: those that the screen ranks highest",
    )
    sampled_features: int = Field(
        4,
        ge=0,
        description="further features per layer, drawn at random, so that screen and exact effects can be compared",
    )
    items: int = Field(6, ge=2, description="held-out items per feature, of those in which it fires")
    screen_items: int = Field(24, ge=2, description="training items of the screen of all features")
    training_items: int = Field(
        2000, ge=2, description="training items that a feature's own targets, rate and mean activation are taken from"
    )
    heldout_items: int = Field(
        2000, ge=2, description="held-out items among which the ones are looked for in which a feature fires"
    )
    own_units: int = Field(20, ge=1, description="units at most that are a feature's own targets")
    ablation: Literal["zero", "mean", "resample"] = Field(
        "zero", description="what a feature's activation becomes where it is ablated: zero, its mean at tokens of that unit, or its value at a "
        "random token of that unit, both of training items",
    )  # fmt: skip
    draws: int = Field(
        8, ge=1, description="draws of each null that needs forward passes; from 99 on each feature has its own null, below that "
        "the features of a layer share their draws",
    )  # fmt: skip
    target_draws: int = Field(999, ge=19, description="draws of random targets, which need no forward pass")
    masked: bool = Field(True, description="measure at hidden targets too")
    doses: list[float] = Field(
        [-2, -1, 0, 0.5, 1, 1.5, 2, 4, 8], description="multiples of a feature's own activation; 1 changes nothing"
    )
    dose_features: int = Field(
        6, ge=0, description="features per layer with a dose-response curve, in the screen's order"
    )
    off_target: float = Field(
        0.5, gt=0, description="no larger dose is tried once other targets change by so much: standard deviations of the "
        "predicted value, or nats of a distribution",
    )  # fmt: skip

    steer: list[tuple[str, str]] | None = Field(
        None, description="pairs of labels [A, B]: items of A are moved toward B; default: the largest labels"
    )
    steer_pairs: int = Field(2, ge=0, description="pairs of labels that are taken where steer names none")
    steer_items: int = Field(8, ge=2, description="held-out items per label that are moved")
    steer_training_items: int = Field(
        40,
        ge=2,
        description="training items per label: half of them give directions and markers, half the labels' mean embeddings",
    )
    steer_doses: list[float] = Field(
        [1.0, 2.0, 4.0, 8.0],
        min_length=1,
        description="lengths of the step, in differences between labels; the first and the last are compared with random directions",
    )
    steer_draws: int = Field(
        20, ge=1, description="random directions per null that a steered direction is compared with"
    )
    steer_features: int = Field(8, ge=1, description="features that a pair of labels is steered with")
    steer_markers: int = Field(10, ge=1, description="units whose prediction tells whether an item moved")
    knockout_genes: list[str] | None = Field(
        None, description="genes to delete and to raise; default: those that a feature reads most exclusively"
    )
    knockout_features: int = Field(
        2, ge=0, description="features whose top gene is taken where knockout_genes names none"
    )
    knockout_items: int = Field(6, ge=2, description="items per gene that it is deleted from")
    knockout_draws: int = Field(
        20, ge=1, description="random genes of the same expression that each gene is compared with"
    )
    reads_items: int = Field(
        60, ge=2, description="training items, and held-out items, that show what a feature fires on"
    )
    reads_directions: int = Field(
        99, ge=1, description="random directions that what a feature fires on is compared with"
    )

    @field_validator("doses")
    @classmethod
    def _ordered(cls, doses: list[float]) -> list[float]:
        if 1 not in doses or len(set(doses)) < 3:
            raise ValueError("causal.doses takes at least three different numbers, 1 among them")
        return sorted(set(doses))

    @property
    def passes(self) -> int:
        """Items that are run with an edit, at most, for the effects of a layer's features and their dose-response curves."""
        edits = (1 + 3 * self.draws) * (2 if self.masked else 1)
        tested = self.features + self.sampled_features
        return self.items * (tested * edits + min(self.dose_features, self.features) * (len(self.doses) - 1))
