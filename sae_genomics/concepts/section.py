"""The section `concepts` of the config."""

from __future__ import annotations

from pydantic import Field

from sae_genomics.section import Section


class ConceptsConfig(Section):
    """Concept vectors, what they are compared with, and where they are found."""

    enabled: bool = Field(False, description="run the stage concepts")
