"""A model's folder of any family: which files must be there, and reading the small ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sae_genomics.errors import UserError


def require_files(folder: Path, names: tuple[str, ...], holds: str) -> None:
    """Raises UserError naming the files that are missing. holds: what such a folder consists of, for where there is no folder at all."""
    if not folder.is_dir():
        raise UserError(f"no such model folder: {folder}; it should hold {holds}")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"model folder {folder} is incomplete: no {', '.join(missing)}; copy it from where the model comes from"
        )


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that is an object. Raises UserError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError):
        raise UserError(f"{path} is not valid JSON; copy or download it again") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} should be a JSON object; copy or download it again")
    return values
