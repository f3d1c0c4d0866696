"""Which version of a kernel runs: the fast path, or the plain version beside it.

SAE_GENOMICS_PLAIN=1 asks for the plain version of every kernel, SAE_GENOMICS_PLAIN=adam,tokenise for those of some files of
this package. A fast path that this machine cannot compile is told of once, and the plain version takes its place.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from typing import Any, TypeVar

from sae_genomics.errors import UserError
from sae_genomics.progress import say

SWITCH = "SAE_GENOMICS_PLAIN"
_ALL, _NONE = ("1", "true", "all"), ("", "0", "false")
_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass
class Kernel:
    """name: file.function. fast, plain: its two versions. usable: whether the fast path compiles here."""

    name: str
    fast: Callable[..., Any]
    plain: Callable[..., Any]
    usable: bool = True


KERNELS: dict[str, Kernel] = {}


def plain_asked(file: str) -> bool:
    """Whether the plain versions of a file of this package are asked for. file: its name, such as adam.

    Raises UserError where the switch names a file that there is not.
    """
    asked = os.environ.get(SWITCH, "")
    if asked in _NONE:
        return bool(_numbas("config", "DISABLE_JIT"))  # loops would run in the interpreter
    return asked in _ALL or file in _files(asked)


def _numbas(module: str, name: str) -> Any:
    """A value of numba's, or None until a kernel brings numba: commands that only plan import this module too."""
    return getattr(sys.modules.get(f"numba.core.{module}"), name, None)


@cache
def _files(asked: str) -> frozenset[str]:
    files = frozenset(name.strip() for name in asked.split(","))
    known = {path.stem for path in (Path(__file__).parent / "plain").glob("[a-z]*.py")}
    if unknown := sorted(files - known):
        raise UserError(
            f"{SWITCH}={asked}: no kernel {unknown[0]!r}; set it to 1 for all, or to some of {', '.join(sorted(known))}"
        )
    return files


def instead_of(plain: Callable[..., Any]) -> Callable[[_Function], _Function]:
    """Decorate the fast path of `plain`. Raises TypeError where their arguments have different names."""

    def decorate(fast: _Function) -> _Function:
        names = [list(inspect.signature(version).parameters) for version in (fast, plain)]
        file = fast.__module__.rpartition(".")[2]
        if names[0] != names[1] or fast.__name__ != plain.__name__:
            raise TypeError(f"kernel {file}.{fast.__name__}: its plain version has another name or other arguments")
        kernel = KERNELS[f"{file}.{fast.__name__}"] = Kernel(f"{file}.{fast.__name__}", fast, plain)

        @wraps(fast)
        def chosen(*arguments: Any, **named: Any) -> Any:
            if not kernel.usable or plain_asked(file):
                return plain(*arguments, **named)
            try:
                return fast(*arguments, **named)
            except Exception as error:
                if not isinstance(error, _numbas("errors", "NumbaError") or ()):
                    raise
                kernel.usable = False  # raised while compiling, so nothing has run yet
                reason = str(error).strip().splitlines() or [type(error).__name__]
                say(f"kernel {kernel.name}: its plain version is used; it does not compile here: {reason[0][:200]}")
                return plain(*arguments, **named)

        return chosen  # type: ignore[return-value]

    return decorate
