"""The gene sets that come with the package; assets/gene_sets/README.md tells what they rest on."""

from __future__ import annotations

from dataclasses import replace

from sae_genomics.config import ValidationConfig
from sae_genomics.file_keys import BUILTIN_GENE_SETS
from sae_genomics.validation.gene_sets import Collection, Source, read_gmt

FOLDER = BUILTIN_GENE_SETS
CURATION = "this package's curators"  # one hand wrote all of the files, so that two of them are no independent sources


def load(settings: ValidationConfig) -> list[Collection]:
    """Every GMT file of the folder, by name, when validation.builtin is true.

    The sets were written by hand, and any gene could have been named.
    """
    files = sorted(FOLDER.glob("*.gmt")) if settings.builtin else []
    return [replace(read_gmt(path), universe=None, contains=(CURATION,)) for path in files]


SOURCE = Source("built-in", load)
