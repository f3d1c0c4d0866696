"""Optional parts: a test that needs Slurm, a browser or a GPU is skipped without it, unless REQUIRE_ALL is set."""

from __future__ import annotations

import os
import shutil

import pytest
import torch

_NEEDS = {
    "slurm": lambda: (
        os.geteuid() == 0 and all(shutil.which(name) for name in ("slurmctld", "slurmd", "sbatch", "munged"))
    ),
    "browser": lambda: shutil.which("chromium") is not None and shutil.which("chromedriver") is not None,
    "gpu": torch.cuda.is_available,
}


@pytest.hookimpl(tryfirst=True)  # before xdist, which reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # With workers side by side a file's tests share one worker, for its fixtures, and there is one scheduler at a time.
        item.add_marker(pytest.mark.xdist_group("slurm" if item.get_closest_marker("slurm") else str(item.path)))
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
