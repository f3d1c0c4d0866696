"""Where gene-set collections come from.

A further source is a file in this folder and a line in the list. Another package names its own as an entry point in the group
`sae_genomics.gene_set_sources`, or calls `register`. A run asks for it by name in `validation.sources`, so that installing a
package changes no run. `downloaded` gives those of the databases in paths.databases; the other files here read a database as its
publisher writes it, for `scripts/download_databases.py`.
"""

from __future__ import annotations

from pathlib import Path

from sae_genomics.config import ValidationConfig
from sae_genomics.config_values import MIN_SCORES
from sae_genomics.errors import UserError
from sae_genomics.installed import add, loaded, with_installed
from sae_genomics.validation.databases import downloaded
from sae_genomics.validation.gene_sets import Collection, Source
from sae_genomics.validation.normal_form.catalogue import no_database, read_catalogue

GROUP = "sae_genomics.gene_set_sources"
SOURCES: dict[str, str] = with_installed(GROUP, {
    "built-in": "sae_genomics.validation.databases.builtin:SOURCE",
    "validation.gmt": "sae_genomics.validation.databases.files:SOURCE",
})  # fmt: skip
ASKED_BY_OWN_KEY = ("built-in", "validation.gmt")  # validation.builtin and validation.gmt


def register(name: str, where: str) -> None:
    """Add a source. where: `module:NAME` of its `Source`. Raises ValueError when the name is taken."""
    add(SOURCES, name, where)


def load_collections(settings: ValidationConfig, databases: Path | None = None) -> list[Collection]:
    """All collections that the settings ask for. databases: the folder of downloaded ones; None: no such folder is looked at.

    Raises UserError for a source that is not known, a file that cannot be read, two collections of one name, or none at all.
    """
    collections = _without_databases(settings)
    if databases is not None:
        collections += downloaded.load(settings, databases)
    _refuse([collection.name for collection in collections])
    return collections


def check_collections(settings: ValidationConfig, databases: Path | None = None) -> None:
    """What `load_collections` refuses, as far as it can be told without reading a database: every command asks.

    Raises UserError.
    """
    _check_scores(settings, databases)
    names = [collection.name for collection in _without_databases(settings)]
    _refuse(names + (downloaded.check_presence(settings.databases, databases) if databases is not None else []))


def _check_scores(settings: ValidationConfig, databases: Path | None) -> None:
    """A database that `validation.min_score` names has to be one: a name that is misspelt would change nothing, without a word."""
    for name in settings.min_score.keys() - MIN_SCORES.keys():
        if databases is not None and (databases / name).is_dir():
            continue
        known = read_catalogue()
        if name not in known:
            raise no_database("validation.min_score", name, known)


def _without_databases(settings: ValidationConfig) -> list[Collection]:
    sources = (*map(_source, ASKED_BY_OWN_KEY), *map(_further, settings.sources))
    return [collection for source in sources for collection in source.load(settings)]


def _refuse(names: list[str]) -> None:
    """Two collections of one name, or none at all."""
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise UserError(
            f"two gene-set collections are called {twice[0]!r}; rename a file in validation.gmt, or leave out a source or a database"
        )
    if not names:
        raise UserError("no gene sets to test: set validation.builtin to true or name files in validation.gmt")


def _further(name: str) -> Source:
    """One that `validation.sources` names."""
    further = [each for each in SOURCES if each not in ASKED_BY_OWN_KEY]
    if name not in further:
        known = (
            f"the sources are {', '.join(further)}" if further else "no package that brings sources is installed here"
        )
        raise UserError(f"validation.sources: {name!r} is not known; {known}")
    return _source(name)


def _source(name: str) -> Source:
    source: Source = loaded(SOURCES[name], f"validation.sources: {name}")
    return source
