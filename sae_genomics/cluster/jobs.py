"""`logs/<run>/jobs.tsv`: one line for every sbatch call of a run, for people and for the status."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from sae_genomics.atomic import write_text
from sae_genomics.cluster.arrays import read_index_list
from sae_genomics.run import Run


@dataclass(frozen=True)
class Job:
    """One sbatch call.

    submitted: local time. job: Slurm's id. array: its indices as sbatch got them, empty for a job without an array.
    offset, pack: array index i works on tasks (i + offset) * pack and the pack - 1 after it.
    dependency: as sbatch got it. memory, time: what was asked for, empty where the site's default holds.
    output, error: log files as sbatch got them (%A the job, %a the index).
    """

    submitted: str
    user: str
    stage: str
    job: str
    array: str
    offset: int
    pack: int
    dependency: str
    memory: str
    time: str
    output: str
    error: str

    @property
    def indices(self) -> list[int]:
        return read_index_list(self.array) if self.array else []


def read_jobs(run: Run) -> list[Job]:
    """All submissions so far, oldest first."""
    try:
        rows = csv.DictReader(io.StringIO(run.jobs_file.read_text(encoding="utf-8")), delimiter="\t")
    except FileNotFoundError:
        return []
    jobs = []
    for row in rows:
        if row.get("job") and all(row.get(field.name) is not None for field in fields(Job)):
            values = {field.name: row[field.name] for field in fields(Job)}
            jobs.append(Job(**{**values, "offset": int(values["offset"]), "pack": int(values["pack"])}))  # type: ignore[arg-type]
    return jobs


def add_jobs(run: Run, jobs: Sequence[Job]) -> None:
    """Append submissions; the caller holds the run's lock."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Job)], delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(job) for job in [*read_jobs(run), *jobs])
    write_text(run.jobs_file, text.getvalue())


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S")
