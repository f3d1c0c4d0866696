"""What the stage report leaves."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sae_genomics.sae.files import EVALUATION_KEYS
from sae_genomics.stage import Files, Stage
from sae_genomics.validation.files import has_gene_sets

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
    files += annotation_files(run) if has_gene_sets(run) else ()
    parts = {"layers": run.layers, "done": done, "evaluation": run.values(EVALUATION_KEYS)}
    return dict.fromkeys(files, parts)


def annotation_files(run: Run) -> tuple[Path, Path]:
    """The table of all annotations, as Parquet and as tab-separated text; of runs that are compared with gene sets."""
    return run.results / "annotations.parquet", run.results / "annotations.tsv"
