"""The section `causal` of the config."""

from __future__ import annotations

from pydantic import Field

from sae_genomics.section import Section


class CausalConfig(Section):
    """Which features are edited, how, and what the effects are compared with."""

    enabled: bool = Field(False, description="run the stage causal")
