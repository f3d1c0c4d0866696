"""The kinds of data that a run can be made of, by name; `data.kind` chooses one.

To add a kind from outside this package, put its name and class in KINDS before a config is read.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from sae_genomics.data.kind import DataKind
from sae_genomics.errors import UserError

DEFAULT_KIND = "cells"
# Named, not imported: the classes' modules import what this module's users are imported by.
KINDS: dict[str, str] = {
    "cells": "sae_genomics.data.cells.kind:Cells",
    "proteins": "sae_genomics.data.proteins.kind:Proteins",
}


def kind_named(name: object) -> DataKind:
    """The data kind of that name. Raises UserError listing the names there are."""
    if not isinstance(name, str) or name not in KINDS:
        raise UserError(f"data.kind: {name!r} is not known; the kinds are {', '.join(KINDS)}")
    try:
        return _loaded(KINDS[name])
    except ModuleNotFoundError as error:
        module = KINDS[name].partition(":")[0]
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # a module that this one imports
        raise UserError(f"data.kind: {name} needs {module}, which is not installed here") from None


@cache
def _loaded(where: str) -> DataKind:
    module, name = where.split(":")
    kind: DataKind = getattr(import_module(module), name)()
    return kind
