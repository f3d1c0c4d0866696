"""What other packages add to the lists of this one: data kinds, model families, stages, gene sets, enrichment tests.

A package names what it adds as an entry point, in the group of the list. A list holds text, `module:NAME`, so that nothing is
imported before it is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from sae_genomics.errors import UserError


@cache
def entries(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group, by name."""
    return tuple(sorted(entry_points(group=group), key=lambda entry: entry.name))


def with_installed(group: str, ours: Mapping[str, str]) -> dict[str, str]:
    """Name -> `module:NAME`: what is in our list, then what installed packages add. A name of ours stays ours."""
    return {**ours, **{entry.name: entry.value for entry in entries(group) if entry.name not in ours}}


def add(known: dict[str, str], name: str, where: str) -> None:
    """Put a further name into a list. Raises ValueError when it is taken by something else."""
    if known.get(name, where) != where:
        raise ValueError(f"{name}: that name is taken by {known[name]}")
    known[name] = where


def loaded(where: str, what: str) -> Any:
    """What `module:NAME` stands for. Raises UserError when its module is not installed; what: it begins the message."""
    module, name = where.split(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # a module that this one imports
        raise UserError(f"{what} needs {module}, which is not installed here") from None
