"""Why a task is not done: from Slurm where it remembers, from accounting where there is any, else from the task's own traces."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path

from sae_genomics.cluster import attempts
from sae_genomics.cluster.arrays import Task, tasks_of
from sae_genomics.cluster.jobs import Job, read_jobs
from sae_genomics.cluster.queue import Entry, read_queue
from sae_genomics.cluster.slurm import call
from sae_genomics.run import Run
from sae_genomics.stage import Stage

OUT_OF_MEMORY = "OUT_OF_MEMORY"
# Slurm without cgroups, with cgroups, the kernel, and PyTorch on a CPU; CUDA's own memory is not what --mem buys.
_OOM_LOG = re.compile(
    r"exceeded (job |step )?memory limit|oom[-_ ]kill|(?<!CUDA )(?<!HIP )(?<!MPS backend )out of memory|\bMemoryError"
    r"|can't allocate memory|Cannot allocate memory|Unable to allocate [\d.]+ [KMGT]iB",
    re.IGNORECASE,
)
_TIME_LOG = re.compile(r"CANCELLED AT \S+ DUE TO TIME LIMIT")
_NODE_LOG = re.compile(r"DUE TO NODE (FAILURE|\S+ NOT RESPONDING)|Node failure on")
_TELLING = frozenset({OUT_OF_MEMORY, "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE", "CANCELLED"})
_TAIL_BYTES = 16384


@dataclass(frozen=True)
class Ended:
    """How Slurm says that an array task ended. code: of the script; signal: that ended it, 0 for none."""

    element: str
    state: str
    code: int
    signal: int
    node: str


@dataclass(frozen=True)
class Reason:
    """Why a task is not done. kind: one word as Slurm has it (OUT_OF_MEMORY, TIMEOUT, FAILED, ...); text: a clause."""

    kind: str
    text: str
    log: Path | None = None
    attempts: int = 0


@dataclass
class Evidence:
    """All there is to know about a run's tasks without opening their logs: one squeue call, at most one of sacct.

    living: task to its entry in the queue. ended: task to its latest entry that Slurm still remembers.
    problem: why squeue could not be asked; empty when it could, or when the run never used Slurm.
    """

    run: Run
    living: dict[Task, Entry] = field(default_factory=dict)
    ended: dict[Task, Entry] = field(default_factory=dict)
    problem: str = ""

    @classmethod
    def gather(cls, run: Run) -> Evidence:
        evidence = cls(run)
        if not evidence.jobs or shutil.which("squeue") is None:
            evidence.problem = "squeue was not found" if evidence.jobs else ""
            return evidence
        entries, answer = read_queue(run, ended=True)
        evidence.problem = answer.problem if answer.code else ""
        for entry in sorted(entries, key=lambda each: int(each.job)):
            for task in entry.tasks(run.n_tasks(entry.stage)):
                (evidence.living if entry.living else evidence.ended)[entry.stage.name, task] = entry
        return evidence

    @cached_property
    def jobs(self) -> list[Job]:
        return read_jobs(self.run)

    @cached_property
    def last_job(self) -> dict[Task, tuple[Job, int | None]]:
        """Task to the last submission that held it, and its index there."""
        found: dict[Task, tuple[Job, int | None]] = {}
        for job in self.jobs:
            if job.array:
                for index in job.indices:
                    for task in tasks_of(index, job.offset, job.pack, 1 << 60):
                        found[job.stage, task] = (job, index)
            else:
                found[job.stage, 0] = (job, None)
        return found

    @cached_property
    def accounting(self) -> dict[str, Ended]:
        """Array task to how accounting says it ended; empty where there is none. Asked once, for the jobs that matter last."""
        jobs = sorted({job.job for job, _ in self.last_job.values()}, key=int)
        if not jobs or shutil.which("sacct") is None:
            return {}
        columns = "JobID,State,ExitCode,NodeList"
        answer = call(
            ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={','.join(jobs)}", f"--format={columns}"]
        )
        rows = (
            [line.split("|") for line in answer.output.splitlines() if line.count("|") == 3] if answer.code == 0 else []
        )
        return {row[0]: _ended(*row) for row in rows}

    def how_it_ended(self, stage: Stage, task: int) -> Ended | None:
        """What Slurm says of the task's last job: from the controller's memory, else from accounting."""
        entry = self.ended.get((stage.name, task))
        job, index = self.last_job.get((stage.name, task), (None, None))
        if entry and job and entry.job == job.job:
            return Ended(entry.element, entry.state, entry.code, entry.signal, entry.node)
        return self.accounting.get(_element(job, index)) if job else None

    def log_of(self, stage: Stage, task: int) -> Path | None:
        """What the task's last job wrote to its standard error; None when it never got so far."""
        job, index = self.last_job.get((stage.name, task), (None, None))
        if job is None:
            return None
        values = {"%A": job.job, "%j": job.job, "%a": str(index), "%%": "%"}
        name = re.sub("%[Aja%]", lambda found: values[found[0]], job.error)
        return Path(name) if Path(name).exists() else None

    def reason(self, stage: Stage, task: int) -> Reason | None:
        """Why the task's last attempt did not end well; None when it was never tried, or is on its way."""
        tried = attempts.attempts_of(self.run, stage, task)
        if (stage.name, task) in self.living:
            return None
        ended, log = self.how_it_ended(stage, task), self.log_of(stage, task)
        if not tried and not log and not (ended and ended.node):
            return None
        last = tried[-1] if tried else None
        # An attempt of an earlier submission, or here on this machine, says nothing about what Slurm did since.
        ours = last is not None and (ended is None or last.job is None or last.job == ended.element)
        failed = last is not None and ours and last.outcome == "failed"
        if (
            last is not None
            and ours
            and (last.outcome == "done" or (ended and ended.state == "COMPLETED" and not failed))
        ):
            return None
        said = attempts.why(last) if last and ours and last.outcome is not None else ""
        tail = tail_of(log) if log else ""
        kind = _kind(ended, tail, said)
        parts = [kind if kind in _TELLING else "", f"on {ended.node}" if ended and ended.node else ""]
        if kind in _TELLING and kind != "CANCELLED":
            said = said if failed else ""
        elif not said and kind != "CANCELLED":
            line = last_line(
                tail
            )  # what slurm/lib/stage.sh says when it finds no Python, say, tells more than its exit code
            said = (line if line.startswith("error: ") else _code_words(ended) or line) or (
                attempts.why(last) if last else ""
            )
        return Reason(
            kind, ": ".join(filter(None, [" ".join(filter(None, parts)), said])) or kind, log, max(len(tried), 1)
        )


@lru_cache(maxsize=1)
def _gathered(run: Run) -> Evidence:
    """Of the run that a report is made of: squeue is asked once."""
    return Evidence.gather(run)


def give_reasons(run: Run) -> None:
    """Have a report that is made of this run say why tasks are not done. For what runs tasks."""
    run.reason_of = partial(failure_reason, run)


def failure_reason(run: Run, stage: Stage, task: int) -> str | None:
    """For the report: why a task is not done, with the number of attempts; None when nothing is known."""
    reason = _gathered(run).reason(stage, task)
    if reason is None:
        return None
    times = f" ({reason.attempts} attempts)" if reason.attempts > 1 else ""
    return f"{reason.text}{times}"


def tail_of(log: Path) -> str:
    """The last 16 KiB of a log."""
    try:
        with open(log, "rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - _TAIL_BYTES, 0))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def last_line(text: str) -> str:
    """The last line that says something, before the note that slurm/lib/stage.sh closes with; 200 characters of it at most."""
    lines = [line.strip() for line in re.split(r"[\n\r]", text) if line.strip()]
    telling = [line for line in lines if not re.search(r", ended with exit code \d+", line)] or lines
    line = telling[-1] if telling else ""
    return line if len(line) <= 200 else line[:197] + "..."


def _kind(ended: Ended | None, tail: str, said: str) -> str:
    state = ended.state if ended else ""
    if state == OUT_OF_MEMORY or _OOM_LOG.search(tail) or _OOM_LOG.search(said):
        return OUT_OF_MEMORY
    if state in _TELLING:
        return state
    if _TIME_LOG.search(tail):
        return "TIMEOUT"
    if _NODE_LOG.search(tail):
        return "NODE_FAIL"
    return state or "FAILED"


def _code_words(ended: Ended | None) -> str:
    if ended is None or not (ended.code or ended.signal):
        return ""
    signal = ended.signal or (ended.code - 128 if ended.code > 128 else 0)
    if signal:
        names = {6: "SIGABRT", 7: "SIGBUS", 9: "SIGKILL", 10: "SIGUSR1", 11: "SIGSEGV", 15: "SIGTERM"}
        return f"killed by signal {signal}{f' ({names[signal]})' if signal in names else ''}"
    return f"exit code {ended.code}"


def _ended(element: str, state: str, code: str, node: str) -> Ended:
    script, _, signal = code.partition(":")
    return Ended(
        element, state.split(" ")[0], int(script or 0), int(signal or 0), "" if node == "None assigned" else node
    )


def _element(job: Job, index: int | None) -> str:
    return job.job if index is None else f"{job.job}_{index}"
