"""Real excerpts of databases. They are no part of the project, and tests that read them are skipped where there are none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "SAE_GENOMICS_EXCERPTS"  # a folder with a folder per source; default: fixtures/databases in a folder near the checkout
_CHECKOUT = Path(__file__).resolve().parents[3]


def excerpt(source: str) -> Path:
    """The folder with a source's excerpts; the test is skipped where there is none."""
    named = os.environ.get(VARIABLE)
    near = [path for parent in list(_CHECKOUT.parents)[:2] for path in parent.glob("*/fixtures/databases")]
    for folder in [Path(named)] if named else near:
        if (folder / source).is_dir():
            return folder / source
    pytest.skip(f"no excerpts of {source}: set {VARIABLE}")
