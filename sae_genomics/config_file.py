"""A YAML file that holds a mapping of sections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from sae_genomics.errors import UserError


def read_mapping(path: Path) -> dict[str, Any]:
    """What the file holds. Raises UserError naming the file, and the line where one is to blame."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"no such config file: {path}; see configs/ for examples") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read config {path}: {error}") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(
            f"{path}{where}: not valid YAML ({getattr(error, 'problem', None) or 'cannot parse'})"
        ) from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise UserError(
            f"{path}: a config is a mapping of sections (data:, model:, sae:, ...), not a {type(values).__name__}"
        )
    return values
