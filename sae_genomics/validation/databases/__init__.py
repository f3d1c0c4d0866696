"""Where gene-set collections come from. A further source is a file in this folder and a line in the list."""

from __future__ import annotations

from sae_genomics.config import ValidationConfig
from sae_genomics.errors import UserError
from sae_genomics.validation.databases import builtin, files
from sae_genomics.validation.gene_sets import Collection, Source

SOURCES: tuple[Source, ...] = (
    builtin.SOURCE,
    files.SOURCE,
)


def load_collections(settings: ValidationConfig) -> list[Collection]:
    """All collections that the settings ask for.

    Raises UserError for a file that cannot be read, two collections of one name, or none at all.
    """
    collections: list[Collection] = []
    for source in SOURCES:
        for collection in source.load(settings):
            if any(collection.name == other.name for other in collections):
                raise UserError(
                    f"two gene-set collections are called {collection.name!r}; rename one of the files in validation.gmt"
                )
            collections.append(collection)
    if not collections:
        raise UserError("no gene sets to test: set validation.builtin to true or name files in validation.gmt")
    return collections
