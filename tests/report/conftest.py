"""One finished run, shared by the tests that only read it."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted_run import Plan, PlantedRun, planted_run

from sae_genomics.cluster.reasons import give_reasons
from sae_genomics.execute import execute
from sae_genomics.stages import stage_named


def write_report(run: PlantedRun) -> str:
    """Run the stage as the pipeline does, and return report.md."""
    give_reasons(run)
    execute(run, stage_named("report"), 0)
    return run.report_file.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> PlantedRun:
    """A complete run with odd names in it, reported."""
    run = planted_run(Path(tmp_path_factory.mktemp("finished")), Plan(odd_names=True))
    write_report(run)
    return run
