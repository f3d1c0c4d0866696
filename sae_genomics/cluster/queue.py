"""What Slurm has of a run: one squeue call, read back into the pipeline's tasks.

Every job carries a comment `sae-genomics:RUN:STAGE:OFFSET:PACK:SETTINGS:TOKEN`. RUN is a hash of where the run's results
stand, so that runs of one name in different folders never meet; SETTINGS is the stage's fingerprint, so that jobs of an
older config are told from today's; TOKEN is drawn for each sbatch call, so that a call whose answer was lost is found.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sae_genomics.cluster.arrays import Active, Task, tasks_of
from sae_genomics.cluster.plan import StagePlan
from sae_genomics.cluster.slurm import Answer, call
from sae_genomics.hashes import hash_values
from sae_genomics.run import Run
from sae_genomics.stage import Stage
from sae_genomics.stages import STAGES

_FIELDS = {
    "JobArrayID": 40, "ArrayJobID": 20, "ArrayTaskID": 20, "State": 20, "Reason": 60, "exit_code": 12,
    "NodeList": 40, "Comment": 120, "UserName": 32, "TimeUsed": 20, "TimeLimit": 20, "RestartCnt": 8,
}  # fmt: skip
LIVING = frozenset(
    {
        "PENDING", "RUNNING", "SUSPENDED", "CONFIGURING", "COMPLETING", "RESIZING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD",
        "SIGNALING", "STAGE_OUT", "STOPPED",
    }
)  # fmt: skip
# Reasons under which a pending job never starts by itself.
NEVER_STARTS = frozenset(
    {
        "DependencyNeverSatisfied", "BadConstraints", "JobHoldMaxRequeue", "launch_failed_requeued_held", "JobLaunchFailure",
        "PartitionNodeLimit", "PartitionTimeLimit", "AccountNotAllowed", "QOSNotAllowed", "InvalidAccount", "InvalidQOS",
        "AssocMaxWallDurationPerJobLimit", "QOSMaxWallDurationPerJobLimit", "AssocMaxMemPerJob", "QOSMaxMemoryPerJob",
        "QOSMaxMemoryPerNode",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One array task, or one job without an array, as Slurm sees it now or saw it a moment ago.

    element: its id as sacct prints it. job: the array's id, or its own. code: of the script; signal: that ended it, or 0.
    """

    element: str
    job: str
    index: int | None
    state: str
    reason: str
    code: int
    signal: int
    node: str
    user: str
    used: str
    limit: str
    restarts: int
    stage: Stage
    offset: int
    pack: int
    settings: str
    token: str

    @property
    def living(self) -> bool:
        return self.state in LIVING

    @property
    def active(self) -> Active:
        return Active(self.job, self.index, self.offset, self.pack)

    def tasks(self, n_tasks: int) -> range:
        """The pipeline's tasks that it stands for."""
        return range(n_tasks) if self.index is None else tasks_of(self.index, self.offset, self.pack, n_tasks)


def run_key(run: Run) -> str:
    return hash_values(str(run.results.absolute()))[:10]


def settings_key(run: Run, stage: Stage) -> str:
    return run.base_fingerprint(stage)[:10]


def job_name(run: Run, stage: Stage) -> str:
    return f"sae-{run.name}-{stage.name}"


def make_comment(run: Run, stage: Stage, offset: int, pack: int) -> tuple[str, str]:
    """(comment, token) of a new submission."""
    token = secrets.token_hex(5)
    return f"sae-genomics:{run_key(run)}:{stage.name}:{offset}:{pack}:{settings_key(run, stage)}:{token}", token


def read_queue(run: Run, ended: bool = False) -> tuple[list[Entry], Answer]:
    """Everything of this run that Slurm has, of any user, in one squeue call; the answer says whether it could be asked.

    ended: also what ended so lately that the controller remembers it (its MinJobAge, five minutes by default).
    """
    names = ",".join(job_name(run, stage) for stage in STAGES)
    layout = ",".join(f"{name}:{width}" for name, width in _FIELDS.items())
    command = ["squeue", "--array", "--noheader", f"--name={names}", "-O", layout]
    answer = call(command + (["--states=all"] if ended else []))
    if answer.code:
        return [], answer
    key = run_key(run)
    entries = (_parse(line) for line in answer.output.splitlines())
    return [entry for run_of, entry in filter(None, entries) if run_of == key], answer


def _parse(line: str) -> tuple[str, Entry] | None:
    values, start = {}, 0
    for name, width in _FIELDS.items():
        values[name] = line[start : start + width].strip()
        start += width
    parts = values["Comment"].split(":")
    if len(parts) != 7 or parts[0] != "sae-genomics":
        return None
    known = {stage.name: stage for stage in STAGES}
    if parts[2] not in known:
        return None
    index = values["ArrayTaskID"]
    status = int(values["exit_code"]) if values["exit_code"].isdigit() else 0  # as wait(2) gives it
    return parts[1], Entry(
        element=values["JobArrayID"],
        job=values["ArrayJobID"],
        index=int(index) if index.isdigit() else None,
        state=values["State"],
        reason=values["Reason"].strip("()"),
        code=status >> 8,
        signal=status & 127,
        node="" if values["NodeList"] == "(null)" else values["NodeList"],
        user=values["UserName"],
        used=values["TimeUsed"],
        limit=values["TimeLimit"],
        restarts=int(values["RestartCnt"] or 0),
        stage=known[parts[2]],
        offset=int(parts[3]),
        pack=int(parts[4]),
        settings=parts[5],
        token=parts[6],
    )


def active_and_stuck(
    run: Run, plans: Sequence[StagePlan], entries: Iterable[Entry]
) -> tuple[dict[Task, Active], list[Entry]]:
    """Which tasks Slurm will still see to, and the pending entries that can never start.

    A pending task can never start by its own reason, or because a task it needs is neither done nor itself on the way:
    Slurm may not have noticed yet.
    """
    living = [entry for entry in entries if entry.living]
    never_starting = [entry for entry in living if entry.state == "PENDING" and entry.reason in NEVER_STARTS]
    on_the_way: dict[Task, Entry] = {}
    for entry in living:
        if entry not in never_starting:
            for task in entry.tasks(run.n_tasks(entry.stage)):
                on_the_way.setdefault((entry.stage.name, task), entry)
    lacking = {
        plan.stage.name: {task for task in plan.todo if (plan.stage.name, task) not in on_the_way} for plan in plans
    }
    stuck: dict[str, Entry] = {}
    for plan in plans:  # in the pipeline's order: what waits for a stuck task is stuck too
        stage = plan.stage
        if stage.partial:
            continue
        for task in range(len(plan.states)):
            waiting = on_the_way.get((stage.name, task))
            if waiting is None or waiting.state != "PENDING":
                continue
            if any(stage.counterparts(need, task, lacking[need.name]) for need in stage.needs_in(run)):
                stuck[waiting.element] = waiting
                if task in plan.todo:
                    lacking[stage.name].add(task)
    living_tasks = {task: entry.active for task, entry in on_the_way.items() if entry.element not in stuck}
    return living_tasks, [*never_starting, *stuck.values()]


def broken_jobs(
    run: Run, plans: Sequence[StagePlan], entries: Iterable[Entry], submitted: Mapping[str, Sequence[int]]
) -> set[str]:
    """Array jobs that live, but of which some task ended without being done: `afterok` on them can never hold.

    submitted: array job id to all the indices it began with.
    """
    todo = {plan.stage.name: set(plan.todo) for plan in plans}
    by_job: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.living and entry.index is not None:
            by_job[entry.job].append(entry)
    broken = set()
    for job, living in by_job.items():
        first, here = living[0], {entry.index for entry in living}
        n_tasks = run.n_tasks(first.stage)
        for index in submitted.get(job, ()):
            tasks = tasks_of(index, first.offset, first.pack, n_tasks)
            if index not in here and any(task in todo[first.stage.name] for task in tasks):
                broken.add(job)
    return broken
