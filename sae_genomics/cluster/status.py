"""A table of stages and tasks: done, missing, stale, and the command to type next."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sae_genomics.cluster.plan import describe, make_plan
from sae_genomics.config import load_config
from sae_genomics.errors import EXIT_DONE
from sae_genomics.run import Run


def status(config: Path, overrides: Sequence[str] = (), *, watch: bool = False, as_json: bool = False) -> int:
    """Print what is done, missing and stale. Returns an exit code."""
    run = Run(load_config(config, overrides), config)
    plans = make_plan(run)
    if as_json:
        stages = {
            plan.stage.name: {run.unit_key(plan.stage, task): {"status": state.status, "why": state.why} for task, state in enumerate(plan.states)}
            for plan in plans
        }  # fmt: skip
        print(json.dumps({"run": run.name, "stages": stages}, indent=1))
    else:
        print(describe(run, plans))
    return EXIT_DONE
