"""Optional parts: a test that needs Slurm, a browser or a GPU is skipped without it, unless REQUIRE_ALL is set."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

_NEEDS = {
    "slurm": lambda: (
        os.geteuid() == 0 and all(shutil.which(name) for name in ("slurmctld", "slurmd", "sbatch", "munged"))
    ),
    "browser": lambda: shutil.which("chromium") is not None and shutil.which("chromedriver") is not None,
    "gpu": torch.cuda.is_available,
}


class OneFileAtATime(LoadScopeScheduling):
    """A file's tests share one worker, for their fixtures. Those that break a real scheduler share one too: its clock is the machine's."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "slurm" if Path(file).name.startswith("test_slurm") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneFileAtATime:
    config.option.loadscopereorder = False  # the order is that of `pytest_collection_modifyitems`
    return OneFileAtATime(config, log)


def _longest_files_first(items: list[pytest.Item]) -> None:
    """So that no worker begins a long file when the others are done: those of a real scheduler, then those with most slow tests."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (not item.path.name.startswith("test_slurm"), -slow[item.path]))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        _longest_files_first(items)
    for item in items:
        # A real scheduler on a busy machine may miss a moment that a test waits for; what is wrong fails twice.
        if item.get_closest_marker("slurm"):
            item.add_marker(pytest.mark.flaky(reruns=1))
    for mark, available in _NEEDS.items():
        marked = [item for item in items if item.get_closest_marker(mark)]
        if not marked or available():
            continue
        if os.environ.get("REQUIRE_ALL") and mark != "gpu":  # no CI machine has a GPU
            raise pytest.UsageError(
                f"REQUIRE_ALL is set and {len(marked)} tests need {mark}, which is not available here"
            )
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=f"needs {mark}"))


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[..., None]:
    """figure(name=value, ...): for docs/reliability.md, a line of JSON in the file that SAE_GENOMICS_FIGURES names."""
    path = os.environ.get("SAE_GENOMICS_FIGURES")

    def note(**values: object) -> None:
        if path:
            with open(path, "a") as file:
                file.write(json.dumps({"test": request.node.name, **values}) + "\n")

    return note
