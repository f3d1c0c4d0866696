"""The gene sets that come with the package; assets/gene_sets/README.md tells what they rest on."""

from __future__ import annotations

from pathlib import Path

import sae_genomics
from sae_genomics.config import ValidationConfig
from sae_genomics.validation.gene_sets import Collection, Source, read_gmt

FOLDER = Path(sae_genomics.__file__).parent / "assets" / "gene_sets"


def load(settings: ValidationConfig) -> list[Collection]:
    """Every GMT file of the folder, by name, when validation.builtin is true."""
    return [read_gmt(path) for path in sorted(FOLDER.glob("*.gmt"))] if settings.builtin else []


SOURCE = Source("built-in", load)
