"""Real excerpts of databases. They are no part of the project, and tests that read them are skipped where there are none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "SAE_GENOMICS_EXCERPTS"  # a folder with a folder per source; default: fixtures/databases in a folder near the checkout
_CHECKOUT = Path(__file__).resolve().parents[2]


def excerpts() -> Path:
    """The folder of all excerpts. It may not be there."""
    near = [path for parent in list(_CHECKOUT.parents)[:2] for path in parent.glob("*/fixtures/databases")]
    return Path(os.environ.get(VARIABLE) or (near or ["no-excerpts"])[0])


def excerpt(source: str) -> Path:
    """The folder with a source's excerpts; the test is skipped where there is none."""
    if not (excerpts() / source).is_dir():
        pytest.skip(f"no excerpts of {source}: set {VARIABLE}")
    return excerpts() / source


def needs(folder: Path) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not folder.is_dir(), reason=f"no excerpts: set {VARIABLE}")
