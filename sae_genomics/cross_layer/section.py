"""The section `cross_layer` of the config."""

from __future__ import annotations

from pydantic import Field

from sae_genomics.section import Section


class CrossLayerConfig(Section):
    """How features of different layers are matched, and which of them fire together."""

    enabled: bool = Field(False, description="run the stage cross_layer")
