"""What the stage prepare leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sae_genomics.stage import Files

if TYPE_CHECKING:
    from sae_genomics.run import Run


def prepare_files(run: Run, task: int) -> Files:
    """The files of the run's data kind."""
    return {path: {} for path in run.kind.prepare_files(run)}
