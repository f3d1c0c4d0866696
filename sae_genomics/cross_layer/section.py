"""The section `cross_layer` of the config."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sae_genomics.section import Section


class CrossLayerConfig(Section):
    """How features of different layers are matched, and which of them fire together."""

    enabled: bool = Field(True, description="run the stage cross_layer")
    tokens: int = Field(
        50_000, ge=100, description="tokens of held-out items on which all layers' features are compared"
    )
    items: int = Field(1_000, ge=1, description="held-out items that these tokens are spread over, at most")
    pairs: Literal["all", "adjacent"] = Field("all", description="which pairs of layers are matched")
    candidates: int = Field(3, ge=1, le=32, description="partners that are kept of a feature in another layer")
    min_correlation: float = Field(
        0.3, ge=0.0, lt=1.0, description="smallest correlation of two features that are called a match"
    )
    null_draws: int = Field(4, ge=3, le=1_000, description="times that tokens are permuted within their unit")
    untrained_tokens: int = Field(
        20_000,
        ge=0,
        description="of these tokens, those on which features are also compared with an untrained model's; 0 for none",
    )
    top_units: int = Field(10, ge=1, description="units of a feature that are compared with those of its match")
    attribution_features: int = Field(
        8, ge=0, description="features of a layer whose causes in an earlier layer are looked for; 0 for none"
    )
    attribution_pairs: Literal["adjacent", "all"] | list[tuple[int, int]] = Field(
        "adjacent",
        description="pairs of an earlier and a later layer: adjacent, all, or a list such as [[2, 5], [0, 5]]",
    )
    attribution_items: int = Field(8, ge=1, description="held-out items in which their causes are looked for")
    attribution_edges: int = Field(5, ge=1, description="causes that are kept of a feature")
    attribution_checked: int = Field(
        16,
        ge=0,
        description="features of a layer that are removed to check it: half of them strong causes, half drawn by lot",
    )
    module_items: int = Field(1_000, ge=20, description="training items in which modules of features are looked for")
    module_tokens: int = Field(100_000, ge=100, description="tokens that these items are drawn with")
    module_features: int = Field(
        8_192, ge=2, description="features of a layer that are paired: those that split the items most evenly"
    )
    module_draws: int = Field(
        49, ge=9, description="tables with the same margins that pairs and modules are compared with"
    )
    module_bootstraps: int = Field(10, ge=2, description="samples of the items over which modules must agree")
    module_resolutions: list[float] = Field([0.5, 1.0, 2.0], min_length=1, description="resolutions of Leiden")
    variance_tokens: int = Field(
        10_000, ge=100, description="tokens on which features, PCA and ICA are compared; as many to fit PCA and ICA"
    )
