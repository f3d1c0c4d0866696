"""Starting a sweep's jobs, on Slurm or on this machine, watching them, and attaching to them again."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sae_genomics.atomic import read_json, remove_empty_folders, write_json
from sae_genomics.cluster.lock import locked
from sae_genomics.cluster.options import check_environment, replaced
from sae_genomics.cluster.profile import REPOSITORY, Profile, Resources, load_profile
from sae_genomics.cluster.queue import LIVING
from sae_genomics.cluster.ready import check_jobs
from sae_genomics.cluster.sbatch import resource_options, resources_of, submitter_environment
from sae_genomics.cluster.slurm import Answer, available, call, patiently
from sae_genomics.cluster.submit import max_array_size
from sae_genomics.cluster.sweep import Point, Sweep, freeze, progress_line, saes, swept_stage, write_results
from sae_genomics.cluster.sweep_worker import Submission, Work
from sae_genomics.errors import EXIT_DONE, EXIT_USER, UserError
from sae_genomics.processes import process_start
from sae_genomics.progress import say

POLL_SECONDS = 15.0
SCRIPT = REPOSITORY / "slurm" / "sweep.sh"


@dataclass(frozen=True)
class SweepJob:
    """One array task, or one process. id: Slurm's, or the process'. started: of the process, to tell a reused id. work: its share."""

    cluster: str
    id: str
    started: str | None
    work: Work


def run_sweep(
    sweep: Sweep, *, local: bool = False, parallel: int = 1, detach: bool = False, dry_run: bool = False
) -> int:
    """Submit what is not trained and not on its way, wait for it, and write table and figure. Returns an exit code.

    local: on this machine even where Slurm is. parallel: processes at once there. detach: do not wait.
    """
    cluster = "slurm" if not local and available() else "local"
    if cluster == "slurm":
        check_environment()
        check_jobs(sweep.run, load_profile(sweep.run.config.cluster))
    if dry_run:
        for point in sweep.points:
            print(point.name)
        say(
            f"dry run: {len(sweep.points)} points x {len(sweep.tasks)} layers, {saes(len(sweep.open()))} to train, on {cluster}"
        )
        return EXIT_DONE
    with locked(sweep.run, f"submitting its sweep {sweep.name}"):
        jobs = read_sweep_jobs(sweep)
        states = job_states(jobs)
        under_way = {
            (Point(tuple(values.items())), task)
            for job in jobs
            if states[job.id] in LIVING
            for values, task in job.work
        }
        open_work: Work = [(dict(point.values), task) for point, task in sweep.open() if (point, task) not in under_way]
        if under_way:
            say(f"sweep {sweep.name}: attached to {saes(len(under_way))} under way")
        if open_work:
            jobs = jobs + _submit(sweep, cluster, open_work, parallel)
            write_json(sweep.logs / "jobs.json", [job.__dict__ for job in jobs])
    if detach:
        say("the jobs go on by themselves; the same command without --detach attaches to them")
        return EXIT_DONE
    try:
        _wait(sweep, jobs)
    except KeyboardInterrupt:
        say("detached: the jobs go on by themselves; the same command attaches to them again")
        return 130
    print(write_results(sweep))
    left = sweep.open()
    if left:
        names = ", ".join(f"{point.name} layer {sweep.run.layers[task]}" for point, task in left[:5])
        say(
            f"error: {saes(len(left))} {'was' if len(left) == 1 else 'were'} not trained: {names}; logs are in {sweep.logs}; the same command tries them again"
        )
        return EXIT_USER
    return EXIT_DONE


def _submit(sweep: Sweep, cluster: str, work: Work, parallel: int) -> list[SweepJob]:
    """Start jobs for `work`: on Slurm an SAE each, on this machine `parallel` processes that share it."""
    config = str(freeze(sweep).absolute())
    source = str(sweep.run.config_file.absolute()) if sweep.run.config_file else None
    if cluster == "local":
        shares = [share for k in range(parallel) if (share := work[k::parallel])]
        jobs = _start_here(sweep, Submission(config, source, sweep.name, shares))
    else:
        profile = load_profile(sweep.run.config.cluster)
        limit = profile.max_array_size or max_array_size()
        jobs = []
        for first in range(0, len(work), limit):
            shares = [[each] for each in work[first : first + limit]]
            try:
                jobs += _send(sweep, profile, Submission(config, source, sweep.name, shares))
            except UserError as refusal:
                _take_back(jobs)
                raise UserError(f"{refusal}{'; what this call had submitted is cancelled' if jobs else ''}") from None
    which = f"{jobs[0].id}{' and so on' if len(jobs) > 1 else ''}"
    say(f"sweep {sweep.name}: {saes(len(work))} in {len(jobs)} {cluster} job{'s'[: len(jobs) > 1]} ({which})")
    return jobs


def _start_here(sweep: Sweep, submission: Submission) -> list[SweepJob]:
    """A process for each share, in a session of its own: a closing terminal and Ctrl-C do not reach it."""
    token = secrets.token_hex(5)
    file = sweep.logs / "submitted" / f"{token}.json"
    submission.write(file)
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    jobs = []
    for index, share in enumerate(submission.shares):
        command = [sys.executable, "-u", "-m", "sae_genomics.cluster.sweep_worker", str(file), "--index", str(index)]
        with open(sweep.logs / f"sweep_{token}_{index}.err", "ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip
        jobs.append(SweepJob("local", str(process.pid), process_start(process.pid), share))
    return jobs


def _send(sweep: Sweep, profile: Profile, submission: Submission) -> list[SweepJob]:
    """One sbatch call: an array with a task for each share. Raises UserError when Slurm refuses it."""
    token = secrets.token_hex(5)
    file = (sweep.logs / "submitted" / f"{token}.json").absolute()
    submission.write(file)
    wish = resources_of(sweep.run, profile, swept_stage())
    command = sbatch_command(sweep, profile, wish, file, len(submission.shares))
    gpu = wish.gres is not None or wish.gpus is not None
    environment = submitter_environment(
        {
            "SAE_GENOMICS_ROOT": str(REPOSITORY),
            "SAE_GENOMICS_MAX_REQUEUES": str(profile.max_requeues),
            **profile.environment.variables(gpu=gpu),
        }
    )

    def lost() -> Answer | None:
        """The job of a call whose answer was lost on the way."""
        lines = call(["squeue", "--noheader", "--states=all", "--format=%F %k"]).output.splitlines()
        found = [line.split()[0] for line in lines if line.endswith(f" {comment(file)}")]
        return Answer(0, found[0], "") if found else None

    answer = patiently(
        lambda: call(command, environment), "sbatch sweep", profile.submit_tries, profile.submit_wait_seconds, lost
    )
    if answer.code:
        file.unlink()
        remove_empty_folders(file.parent, up_to=sweep.logs)
        raise UserError(
            f"sbatch refused the sweep: {answer.problem}; see the cluster profile's settings of stage train"
        )
    job = answer.output.strip().partition(";")[0]
    return [SweepJob("slurm", f"{job}_{index}", None, share) for index, share in enumerate(submission.shares)]


def sbatch_command(sweep: Sweep, profile: Profile, wish: Resources, file: Path, count: int) -> list[str]:
    """argv of sbatch: what the profile gives the stage train, on top of the #SBATCH lines of slurm/sweep.sh."""
    logs = str(sweep.logs.absolute()).replace("%", "%%")
    throttle = f"%{wish.throttle}" if wish.throttle else ""
    manners = {
        "job-name": f"sae-{sweep.run.name}-sweep", "comment": comment(file), "chdir": str(Path.cwd()),
        "array": f"0-{count - 1}{throttle}", "output": f"{logs}/sweep_%A_%a.out", "error": f"{logs}/sweep_%A_%a.err",
        "open-mode": "append", "requeue": None, "export": "ALL", "signal": f"B:USR1@{profile.signal_seconds}",
    }  # fmt: skip
    options = [
        f"--{name}={value}" if value else f"--{name}"
        for name, value in manners.items()
        if not replaced(name, wish.extra)
    ]
    return ["sbatch", "--parsable", *options, *resource_options(wish), str(SCRIPT), str(file)]


def comment(file: Path) -> str:
    """What a job of this submission bears, to be found by."""
    return f"sae-genomics-sweep:{file.stem}"


def _take_back(jobs: Sequence[SweepJob]) -> None:
    if jobs:
        call(["scancel", *sorted({job.id.partition("_")[0] for job in jobs})])


def read_sweep_jobs(sweep: Sweep) -> list[SweepJob]:
    """The jobs of this sweep so far, oldest first."""
    known = read_json(sweep.logs / "jobs.json") or []
    return [SweepJob(**{**job, "work": [(values, task) for values, task in job["work"]]}) for job in known]


def job_states(jobs: Sequence[SweepJob]) -> dict[str, str]:
    """Job id to state, in one squeue call: Slurm's state, RUNNING for a living process, ENDED when nothing knows it any more."""
    states = {job.id: "ENDED" for job in jobs}
    for job in jobs:
        if job.cluster == "local" and job.started and process_start(int(job.id)) == job.started:
            states[job.id] = "RUNNING"
    ids = sorted({job.id.partition("_")[0] for job in jobs if job.cluster == "slurm"}, key=int)
    if ids:
        # By name, not by id: squeue fails on ids that the controller has forgotten.
        answer = call(["squeue", "--array", "--noheader", "--states=all", "--format=%i %T"])
        if answer.code:
            raise UserError(
                f"squeue gives no answer, so the sweep's jobs cannot be told: {answer.problem}; try again later"
            )
        seen = dict(line.split() for line in answer.output.splitlines() if re.fullmatch(r"\S+ \S+", line))
        states.update({job.id: seen[job.id] for job in jobs if job.id in seen})
    return states


def _wait(sweep: Sweep, jobs: Sequence[SweepJob]) -> None:
    started, said = time.time(), ""
    while True:
        states = {} if not jobs else job_states(jobs)
        line = progress_line(sweep, started, {job: state for job, state in states.items() if state != "COMPLETED"})
        if line.partition(";")[0] != said:
            said = line.partition(";")[0]
            say(line)
        if not any(state in LIVING for state in states.values()):
            return
        time.sleep(POLL_SECONDS if any(job.cluster == "slurm" for job in jobs) else 2.0)
