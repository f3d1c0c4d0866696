"""The SAE architectures, by the name that `sae.architecture` chooses. docs/architectures.md says how to add one."""

from __future__ import annotations

import difflib

from sae_genomics.errors import UserError
from sae_genomics.installed import entries
from sae_genomics.sae.architecture import Architecture
from sae_genomics.sae.architectures.batchtopk import BatchTopK
from sae_genomics.sae.architectures.jumprelu import JumpRelu
from sae_genomics.sae.architectures.matryoshka import Matryoshka
from sae_genomics.sae.architectures.topk import TopK

ARCHITECTURES: list[Architecture] = [TopK(), BatchTopK(), Matryoshka(), JumpRelu()]


def register(architecture: Architecture) -> None:
    """Add an architecture that another package brings. Raises ValueError when its name is taken."""
    if any(architecture.name == each.name for each in ARCHITECTURES):
        raise ValueError(f"architecture {architecture.name}: there is one of that name")
    ARCHITECTURES.append(architecture)


def register_installed() -> None:
    """Add those of installed packages: their entry points in the group `sae_genomics.architectures`, each named as its architecture."""
    for entry in entries("sae_genomics.architectures"):
        if all(entry.name != each.name for each in ARCHITECTURES):
            register(entry.load())


def architecture_named(name: object) -> Architecture:
    """The architecture of that name. Raises UserError listing the names there are.

    Installed packages are asked where the name is not in the list, so that a notebook finds their architectures as a command does.
    """
    names = [each.name for each in ARCHITECTURES]
    if name not in names:
        register_installed()
        names = [each.name for each in ARCHITECTURES]
    if name in names:
        return ARCHITECTURES[names.index(str(name))]
    near = difflib.get_close_matches(str(name).lower(), names, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(f"sae.architecture = {name!r}: the architectures are {', '.join(names[:-1])} and {names[-1]}{hint}")
