"""Real excerpts of databases. They are no part of the project, and tests that read them are skipped where there are none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "SAE_GENOMICS_EXCERPTS"  # a folder with a folder per source; default: fixtures/databases in a folder near the checkout
_CHECKOUT = Path(__file__).resolve().parents[3]


def excerpts(source: str = "") -> Path:
    """The folder of a source's excerpts; of all for none. It may not be there."""
    near = [path for parent in list(_CHECKOUT.parents)[:2] for path in parent.glob("*/fixtures/databases")]
    return Path(os.environ.get(VARIABLE) or (near or ["no-excerpts"])[0]) / source


def needs(folder: Path) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not folder.is_dir(), reason=f"no excerpts: set {VARIABLE}")
