"""One finished run, shared by the tests that only read it, and a browser to look at dashboards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from planted_run import Plan, PlantedRun, planted_run

from sae_genomics.cluster.reasons import give_reasons
from sae_genomics.execute import execute
from sae_genomics.stages import stage_named

if TYPE_CHECKING:
    from chromium import Browser


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


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    from chromium import Browser

    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.driver.quit()


@pytest.fixture
def page(browser: Browser, dashboard: Path) -> Iterator[Browser]:
    """A test file's `dashboard`, freshly opened; afterwards there must be no error and no request."""
    browser.open(dashboard)
    yield browser
    assert browser.errors() == []
    assert browser.requests() == []
