"""plan.json, read back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sae_genomics.atomic import read_json
from sae_genomics.errors import DamagedArtifact

if TYPE_CHECKING:
    from sae_genomics.run import Run

PLAN_VERSION = 1


def read_plan(run: Run) -> dict[str, Any]:
    """plan.json. Raises DamagedArtifact when it is not there or not of this version."""
    plan = read_json(run.plan_file)
    if not isinstance(plan, dict) or plan.get("format_version") != PLAN_VERSION:
        raise DamagedArtifact(f"{run.plan_file} cannot be read", run.plan_file)
    return plan
