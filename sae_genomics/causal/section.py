"""The section `causal` of the config."""

from __future__ import annotations

from pydantic import Field

from sae_genomics.section import Section


class CausalConfig(Section):
    """Which features are edited, how, and what the effects are compared with."""

    enabled: bool = Field(False, description="run the stage causal")
    steer: list[tuple[str, str]] | None = Field(
        None, description="pairs of labels [A, B]: items of A are moved toward B; default: the largest labels"
    )
    steer_pairs: int = Field(2, ge=0, description="pairs of labels that are taken where steer names none")
    steer_items: int = Field(8, ge=2, description="held-out items per label that are moved")
    steer_training_items: int = Field(40, ge=2, description="training items per label that directions and markers come from")
    steer_doses: list[float] = Field(
        [1.0, 2.0, 4.0, 8.0],
        min_length=1,
        description="lengths of the step, in differences between labels; the first and the last are compared with random directions",
    )
    steer_draws: int = Field(20, ge=1, description="random directions per null that a steered direction is compared with")
    steer_features: int = Field(8, ge=1, description="features that a pair of labels is steered with")
    steer_markers: int = Field(10, ge=1, description="units whose prediction tells whether an item moved")
    knockout_genes: list[str] | None = Field(
        None, description="genes to delete and to raise; default: those that a feature reads most exclusively"
    )
    knockout_features: int = Field(2, ge=0, description="features whose top gene is taken where knockout_genes names none")
    knockout_items: int = Field(6, ge=2, description="items per gene that it is deleted from")
    knockout_draws: int = Field(20, ge=1, description="random genes of the same expression that each gene is compared with")
    reads_items: int = Field(60, ge=2, description="training items, and held-out items, that show what a feature fires on")
    reads_directions: int = Field(99, ge=1, description="random directions that what a feature fires on is compared with")
