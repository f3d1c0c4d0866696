"""Stage cross_layer."""

from __future__ import annotations

from sae_genomics.run import Run


def run_task(run: Run, task: int) -> None:
    """Leave the stage's tables."""
    raise NotImplementedError
