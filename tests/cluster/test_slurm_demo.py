"""The bundled demonstration on a real Slurm, as a person types it."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from sae_genomics.config import load_config
from sae_genomics.run import Run
from sae_genomics.stages import stages_of

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]


def test_demo_from_start_to_report(quiet, tmp_path, figure):
    profile = tmp_path / "site.yaml"
    profile.write_text(yaml.safe_dump({"defaults": {"cpus": 1, "memory": "3G", "time": "01:00:00"}}))
    settings = [f"--set=paths.{name}={tmp_path / name}" for name in ("checkpoints", "results", "logs")]
    environment = {**quiet.environment, "SAE_GENOMICS_CLUSTER": str(profile), "SAE_GENOMICS_PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", "slurm/00_full_pipeline.sh", *settings],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    quiet.wait_until_empty(1500)
    run = Run(
        load_config(ROOT / "configs/demo.yaml", [word.removeprefix("--set=") for word in settings]),
        ROOT / "configs/demo.yaml",
    )
    logs = "\n".join(path.read_text() for path in run.logs.glob("*.err"))
    assert all(state.done for stage in stages_of(run) for state in run.states(stage)), logs
    report = run.report_file.read_text()
    assert "Nothing: all" in report
    assert "CD14" in report or "B" in report

    rows = [row for row in quiet.completed() if row["Name"].startswith("sae-demo-")]
    assert {row["JobState"] for row in rows} == {"COMPLETED"}
    assert len(rows) == sum(run.n_tasks(stage) for stage in stages_of(run))
    spans = [
        (datetime.fromisoformat(row["StartTime"]), datetime.fromisoformat(row["EndTime"]), row["NodeList"])
        for row in rows
    ]
    together = [(a, b) for a in spans for b in spans if a[2] < b[2] and a[0] < b[1] and b[0] < a[1]]
    assert together, "no two tasks ran at once"
    seconds = (max(span[1] for span in spans) - min(span[0] for span in spans)).total_seconds()
    figure(tasks=len(rows), seconds=seconds, pairs_of_tasks_at_once=len(together))
    status = subprocess.run(
        ["bash", "slurm/status.sh", *settings], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    ).stdout
    assert f"next: read {run.report_file}" in status
