"""Gene-set files that the user names in validation.gmt."""

from __future__ import annotations

from sae_genomics.config import ValidationConfig
from sae_genomics.file_keys import expanded
from sae_genomics.validation.gene_sets import Collection, Source, read_gmt


def load(settings: ValidationConfig) -> list[Collection]:
    """One collection a file, in the order given. Raises UserError."""
    return [read_gmt(expanded(path)) for path in settings.gmt]


SOURCE = Source("validation.gmt", load)
