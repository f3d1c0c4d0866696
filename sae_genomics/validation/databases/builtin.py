"""The gene sets that come with the package; assets/gene_sets/README.md tells what they rest on."""

from __future__ import annotations

from sae_genomics.config import ValidationConfig
from sae_genomics.file_keys import BUILTIN_GENE_SETS
from sae_genomics.validation.gene_sets import Collection, Source, read_gmt

FOLDER = BUILTIN_GENE_SETS


def load(settings: ValidationConfig) -> list[Collection]:
    """Every GMT file of the folder, by name, when validation.builtin is true."""
    return [read_gmt(path) for path in sorted(FOLDER.glob("*.gmt"))] if settings.builtin else []


SOURCE = Source("built-in", load)
