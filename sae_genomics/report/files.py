"""What the stage report leaves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sae_genomics.sae.files import EVALUATION_KEYS
from sae_genomics.stage import Files, Stage

if TYPE_CHECKING:
    from sae_genomics.run import Run


def report_files(run: Run, stages: Iterable[Stage]) -> Files:
    """The report is made of what is done: it is stale as soon as that set, or what those files hold, changes.

    stages: those that the run has.
    """
    done = [
        f"{stage.name}/{run.unit_key(stage, each)}={run.contents.of_task(stage, each)}"
        for stage in stages
        if not stage.partial
        for each in range(run.n_tasks(stage))
        if run.state(stage, each).done
    ]
    files = [run.report_file] + ([run.dashboard_file] if run.config.report.dashboard else [])
    parts = {"layers": run.layers, "done": done, "evaluation": run.values(EVALUATION_KEYS)}
    return dict.fromkeys(files, parts)
