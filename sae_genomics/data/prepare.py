"""Stage prepare: the run's data kind checks the input and leaves the tables that all later stages read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sae_genomics.run import Run


def run_task(run: Run, task: int) -> None:
    """Leave the kind's tables and plan.json. Everything is checked before anything is written.

    Raises UserError for every fault of the input, config or disk that can be known before the model runs.
    """
    del task
    run.layers  # noqa: B018  refuses layers that the model does not have
    run.kind.prepare(run)
