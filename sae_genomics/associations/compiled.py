"""Compiled loops that let other threads run, kept on disk between processes where a folder can be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile with numba, without the interpreter lock.

    Falls back to no cache where neither the package's folder nor the user's cache folder can be written, as in some
    containers: numba refuses to decorate there.
    """
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True)(function)
