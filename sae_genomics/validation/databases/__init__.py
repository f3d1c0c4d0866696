"""Where gene-set collections come from. A further source is a file in this folder and a line in the list."""

from __future__ import annotations

from sae_genomics.validation.databases import builtin, files
from sae_genomics.validation.gene_sets import Source

SOURCES: tuple[Source, ...] = (
    builtin.SOURCE,
    files.SOURCE,
)
