"""Fanning a sweep out with submitit's AutoExecutor, watching it, and attaching to it again."""

from __future__ import annotations

import re
import shlex
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from sae_genomics.atomic import read_json, write_json
from sae_genomics.cluster.lock import locked, process_start
from sae_genomics.cluster.profile import REPOSITORY, Environment, Profile, load_profile
from sae_genomics.cluster.queue import LIVING
from sae_genomics.cluster.sbatch import directive, resources_of, script_of
from sae_genomics.cluster.slurm import available, call
from sae_genomics.cluster.sweep import Point, Sweep, freeze, progress_line, train_points, write_results
from sae_genomics.errors import EXIT_DONE, EXIT_USER, UserError
from sae_genomics.progress import say
from sae_genomics.stages import stage_named

POLL_SECONDS = 15.0
LOCAL_LIMIT_MINUTES = 60 * 24 * 60
Work = list[tuple[dict[str, Any], int]]


@dataclass(frozen=True)
class SweepJob:
    """One submitit job. id: Slurm's, or the process'. started: of the process, to tell a reused id. work: as `train_points` takes it."""

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
    if dry_run:
        for point in sweep.points:
            print(point.name)
        say(
            f"dry run: {len(sweep.points)} points x {len(sweep.tasks)} layers, {len(sweep.open())} SAEs to train, on {cluster}"
        )
        return EXIT_DONE
    with locked(sweep.run, f"submitting its sweep {sweep.name}"):
        jobs = read_sweep_jobs(sweep)
        under_way = {
            (Point(tuple(values.items())), task)
            for job in jobs
            if job_state(job) in LIVING
            for values, task in job.work
        }
        open_work: Work = [(dict(point.values), task) for point, task in sweep.open() if (point, task) not in under_way]
        if under_way:
            say(f"sweep {sweep.name}: attached to {len(under_way)} SAEs under way")
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
            f"error: {len(left)} SAEs were not trained: {names}; logs are in {sweep.logs / 'submitit'}; the same command tries them again"
        )
        return EXIT_USER
    return EXIT_DONE


def _submit(sweep: Sweep, cluster: str, work: Work, parallel: int) -> list[SweepJob]:
    config = str(freeze(sweep).absolute())
    source = str(sweep.run.config_file) if sweep.run.config_file else None
    shares = (
        [[each] for each in work]
        if cluster == "slurm"
        else [share for k in range(parallel) if (share := work[k::parallel])]
    )
    executor = make_executor(sweep, cluster)
    with _deaf_to_the_terminal(), executor.batch():
        submitted = [executor.submit(train_points, config, source, sweep.name, share) for share in shares]
    jobs = []
    for job, share in zip(submitted, shares, strict=True):
        started = process_start(int(job.job_id)) if cluster == "local" else None
        jobs.append(SweepJob(cluster, str(job.job_id), started, share))
    say(
        f"sweep {sweep.name}: {len(work)} SAEs in {len(jobs)} {cluster} job{'s'[: len(jobs) > 1]} ({jobs[0].id} and so on)"
    )
    return jobs


def make_executor(sweep: Sweep, cluster: str) -> submitit.AutoExecutor:
    """An executor whose jobs ask for what the profile gives the stage train."""
    profile = load_profile(sweep.run.config.cluster)
    folder = sweep.logs / "submitit"
    if cluster == "local":
        executor = submitit.AutoExecutor(folder=folder, cluster="local")
        executor.update_parameters(timeout_min=LOCAL_LIMIT_MINUTES, gpus_per_node=_local_gpus())
        return executor
    python, setup = _interpreter(profile.environment)
    executor = submitit.AutoExecutor(
        folder=folder, cluster="slurm", slurm_max_num_timeout=profile.max_requeues, **python
    )
    executor.update_parameters(**slurm_parameters(sweep, profile, setup))
    return executor


def slurm_parameters(sweep: Sweep, profile: Profile, setup: Sequence[str]) -> dict[str, Any]:
    """submitit's names for the profile's wishes; those that it has no name for go as additional parameters."""
    stage = stage_named("train")
    wish, script = resources_of(sweep.run, profile, stage), script_of(stage)
    more: dict[str, Any] = {"requeue": True, "time": wish.time or directive(script, "time"), "gpus": wish.gpus}
    for option in wish.extra:
        name, equals, value = option.lstrip("-").partition("=")
        more[name] = value if equals else True
    return {
        "name": f"sae-{sweep.run.name}-sweep",
        "slurm_partition": wish.partition,
        "slurm_account": wish.account,
        "slurm_qos": wish.qos,
        "slurm_gres": wish.gres,
        "slurm_constraint": wish.constraint,
        "cpus_per_task": wish.cpus or int(directive(script, "cpus-per-task") or 1),
        "slurm_mem": wish.memory or directive(script, "mem"),
        "slurm_array_parallelism": wish.throttle or 256,
        "slurm_signal_delay_s": profile.signal_seconds,
        "slurm_setup": [f"export PYTHONPATH={shlex.quote(str(REPOSITORY))}${{PYTHONPATH:+:$PYTHONPATH}}", *setup],
        "slurm_additional_parameters": {name: value for name, value in more.items() if value is not None},
    }


def _interpreter(environment: Environment) -> tuple[dict[str, str], list[str]]:
    """(submitit's python argument, lines of shell before it), as slurm/lib/environment.sh has it for the stages."""
    setup = [f"module load {shlex.quote(module)}" for module in environment.modules]
    if environment.kind == "venv" and environment.venv:
        return {"slurm_python": shlex.quote(str(environment.venv.absolute() / "bin" / "python"))}, setup
    if environment.kind == "conda" and environment.conda:
        if "/" in environment.conda:
            return {"slurm_python": shlex.quote(f"{environment.conda}/bin/python")}, setup
        return {"slurm_python": f"conda run --no-capture-output --name {shlex.quote(environment.conda)} python"}, setup
    if environment.kind == "modules":
        return {"slurm_python": environment.python or "python3"}, setup
    if environment.kind == "apptainer":
        binds = ",".join([str(REPOSITORY), str(Path.cwd()), *environment.binds])
        words = [
            "apptainer",
            "exec",
            "--bind",
            binds,
            *(["--nv"] if environment.nv else []),
            str(environment.image),
            environment.python or "python3",
        ]
        return {"slurm_python": shlex.join(words)}, setup
    return {}, setup


def read_sweep_jobs(sweep: Sweep) -> list[SweepJob]:
    """The jobs of this sweep so far, oldest first."""
    known = read_json(sweep.logs / "jobs.json") or []
    return [SweepJob(**{**job, "work": [(values, task) for values, task in job["work"]]}) for job in known]


def job_state(job: SweepJob) -> str:
    """Slurm's word for a job's state, `RUNNING` for a living process; ENDED when nothing knows it any more."""
    return job_states([job])[job.id]


def job_states(jobs: Sequence[SweepJob]) -> dict[str, str]:
    """Job id to state, in one squeue call."""
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


@contextmanager
def _deaf_to_the_terminal() -> Iterator[None]:
    """Processes started in this block ignore the terminal's hang-up and Ctrl-C, which reach a whole process group."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _local_gpus() -> int:
    import torch

    return torch.cuda.device_count()
