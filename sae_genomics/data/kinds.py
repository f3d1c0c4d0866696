"""The kinds of data that a run can be made of, by name; `data.kind` chooses one.

Another package names its kinds as entry points in the group `sae_genomics.data_kinds`, or calls `register` before a config is read.
"""

from __future__ import annotations

from functools import cache

from sae_genomics.data.kind import DataKind
from sae_genomics.errors import UserError
from sae_genomics.installed import add, loaded, with_installed

DEFAULT_KIND = "cells"
# Named, not imported: the classes' modules import what this module's users are imported by.
KINDS: dict[str, str] = with_installed("sae_genomics.data_kinds", {
    "cells": "sae_genomics.data.cells.kind:Cells",
    "proteins": "sae_genomics.data.proteins.kind:Proteins",
    "text": "sae_genomics.data.text.kind:Text",
})  # fmt: skip


def register(name: str, where: str) -> None:
    """Add a kind. where: `module:Class`. Raises ValueError when the name is taken."""
    add(KINDS, name, where)


def kind_named(name: object) -> DataKind:
    """The data kind of that name. Raises UserError listing the names there are."""
    if not isinstance(name, str) or name not in KINDS:
        raise UserError(f"data.kind: {name!r} is not known; the kinds are {', '.join(KINDS)}")
    return _made(KINDS[name], name)


@cache
def _made(where: str, name: str) -> DataKind:
    kind: DataKind = loaded(where, f"data.kind: {name}")()
    return kind
