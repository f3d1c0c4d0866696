"""Submits what is not done and not on its way already, as dependent job arrays."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

from sae_genomics.atomic import write_text
from sae_genomics.cluster.arrays import Active, Array, Change, Task, make_arrays
from sae_genomics.cluster.jobs import Job, add_jobs, now, read_jobs
from sae_genomics.cluster.lock import locked, user_name
from sae_genomics.cluster.options import check_environment
from sae_genomics.cluster.plan import StagePlan, describe, forget, make_plan
from sae_genomics.cluster.profile import Profile, load_profile
from sae_genomics.cluster.queue import Entry, active_and_stuck, broken_jobs, read_queue, settings_key
from sae_genomics.cluster.ready import check_jobs
from sae_genomics.cluster.refusals import what_to_change
from sae_genomics.cluster.sbatch import Call, make_call, resources_of, submitter_environment
from sae_genomics.cluster.slurm import DEFAULT_MAX_ARRAY_SIZE, Answer, call, patiently
from sae_genomics.commands import command
from sae_genomics.config import dump_config
from sae_genomics.errors import EXIT_DONE, UserError
from sae_genomics.hashes import hash_values
from sae_genomics.progress import say
from sae_genomics.run import Run
from sae_genomics.stages import stage_named, stages_of

Choose = Callable[[list[StagePlan], Mapping[Task, Active]], tuple[list[StagePlan], dict[Task, Change]]]


def submit(run: Run, *, from_stage: str | None = None, dry_run: bool = False, choose: Choose | None = None) -> int:
    """Submit every task that is not done and not in the queue. Returns an exit code.

    from_stage: make this stage and those after it again. dry_run: print the commands instead.
    choose: narrows the plan, and says what single tasks ask for in place of the profile's resources.

    Raises UserError for a bad profile, for jobs of older settings in the queue, when somebody else is submitting the
    same run, and when Slurm refuses for good; then what this call had submitted is cancelled.
    """
    check_environment()
    profile = load_profile(run.config.cluster)
    check_jobs(run, profile)
    with nullcontext() if dry_run else locked(run, "submitting it to Slurm"):
        plans = make_plan(run, from_stage)
        entries = _queue(run, profile, dry_run)
        _refuse_conflicts(run, plans, entries)
        active, never_starting = active_and_stuck(run, plans, entries)
        broken = broken_jobs(run, plans, entries, {job.job: job.indices for job in read_jobs(run)})
        changes: dict[Task, Change] = {}
        if choose:
            plans, changes = choose(plans, active)
        say(describe(run, plans))
        limit = profile.max_array_size or max_array_size()
        arrays = _arrays(run, profile, plans, active, changes, limit, broken)
        # An older report that still waits would be made before what is submitted now.
        replaced = [
            each for each in entries if each.stage.partial and each.state == "PENDING" and each not in never_starting
        ]
        if arrays and replaced:
            active = {task: there for task, there in active.items() if not stage_named(task[0]).partial}
            arrays = _arrays(run, profile, plans, active, changes, limit, broken)
            never_starting = [*never_starting, *replaced]
        config_copy = run.logs / "submitted" / f"{hash_values(dump_config(run.config))}.yaml"
        calls = [make_call(run, profile, array, config_copy) for array in arrays]
        if dry_run:
            _print_dry(calls, never_starting)
            return EXIT_DONE
        if never_starting:
            _cancel([entry.element for entry in never_starting])
        if not calls:
            _say_nothing_to_do(run, active)
            return EXIT_DONE
        run.record_pin()
        write_text(config_copy, dump_config(run.config))
        forget(run, plans)
        _send_all(run, profile, calls)
    say(f"follow it with: {command('status', run, '--watch')}")
    return EXIT_DONE


def _arrays(
    run: Run,
    profile: Profile,
    plans: Sequence[StagePlan],
    active: Mapping[Task, Active],
    changes: Mapping[Task, Change],
    limit: int,
    broken: set[str],
) -> list[Array]:
    pack = run.config.sae.layers_per_task
    return make_arrays(
        plans,
        active,
        packs={stage.name: pack if stage.unit == "layer" else 1 for stage in stages_of(run)},
        max_array_size=limit,
        throttles={stage.name: resources_of(run, profile, stage).throttle for stage in stages_of(run)},
        changes=changes,
        broken_jobs=broken,
    )


def max_array_size() -> int:
    """The cluster's MaxArraySize (indices go to one less); Slurm's default where it cannot be asked."""
    found = re.search(
        r"^MaxArraySize\s*=\s*(\d+)", call(["scontrol", "show", "config"], timeout=30).output, re.MULTILINE
    )
    return int(found[1]) if found else DEFAULT_MAX_ARRAY_SIZE


def _queue(run: Run, profile: Profile, dry_run: bool) -> list[Entry]:
    """What Slurm has of this run. Without an answer nothing may be submitted: it might all be there already."""
    entries: list[Entry] = []

    def ask() -> Answer:
        found, answer = read_queue(run)
        entries[:] = found
        return answer

    tries = 1 if dry_run else profile.submit_tries
    answer = patiently(ask, "squeue", tries, profile.submit_wait_seconds)
    if answer.code and dry_run:
        say(f"squeue gives no answer ({answer.problem}): shown as if nothing were queued")
    elif answer.code:
        raise UserError(
            f"squeue gives no answer, so what is queued already cannot be told: {answer.problem}; try again later"
        )
    return entries


def _refuse_conflicts(run: Run, plans: Sequence[StagePlan], entries: Sequence[Entry]) -> None:
    """Jobs in the queue that would undo what is asked for now: of older settings, or of a stage that is to be made again."""
    redo = {plan.stage for plan in plans if plan.redo}
    for entry in sorted(entries, key=lambda each: each.stage.number):
        if entry.living and (entry.stage in redo or entry.settings != settings_key(run, entry.stage)):
            which = "is to be made again" if entry.stage in redo else "has other settings now"
            jobs = " ".join(sorted({each.job for each in entries if each.living}, key=int))
            raise UserError(
                f"run {run.name} has jobs in the queue, and {entry.stage.name} {which}: wait for them, or scancel {jobs}, "
                "then type the same command again"
            )


def _send_all(run: Run, profile: Profile, calls: Sequence[Call]) -> None:
    ids: dict[str, str] = {}
    for each in calls:
        answer = _send(run, profile, each, ids)
        if answer.code:
            name = each.array.stage.name
            taken_back = ""
            if ids:
                _cancel(list(ids.values()))
                taken_back = f"; the {len(ids)} job{'s'[: len(ids) > 1]} of this call that were submitted are cancelled"
            change = what_to_change(run, profile, each, answer.problem)
            raise UserError(f"sbatch refused {name}: {answer.problem}{change}{taken_back}")
        job = answer.output.strip().partition(";")[0]
        ids[each.array.name] = job
        add_jobs(run, [_record(each, job, ids)])
        say(f"  {job:>8}  {_description(each)}")


def _send(run: Run, profile: Profile, each: Call, ids: Mapping[str, str]) -> Answer:
    """sbatch, patiently. A call whose answer was lost on the way is found by its token, so that nothing is queued twice."""
    command, environment = each.command(ids), submitter_environment(each.variables)

    def lost() -> Answer | None:
        found = [entry for entry in read_queue(run)[0] if entry.token == each.token]
        return Answer(0, found[0].job, "") if found else None

    what = f"sbatch {each.array.name}"
    return patiently(lambda: call(command, environment), what, profile.submit_tries, profile.submit_wait_seconds, lost)


def _record(each: Call, job: str, ids: Mapping[str, str]) -> Job:
    array = next((option.removeprefix("--array=") for option in each.options if option.startswith("--array=")), "")
    return Job(
        submitted=now(), user=user_name(), stage=each.array.stage.name, job=job, array=array, offset=each.array.offset,
        pack=each.array.pack, dependency=each.dependency.format_map(dict(ids)), memory=each.memory, time=each.time,
        output=each.output, error=each.error,
    )  # fmt: skip


def _description(each: Call) -> str:
    array = each.array
    if array.indices is None:
        return array.stage.name
    tasks = len(array.tasks)
    packed = f" of {array.pack} layers each" if array.pack > 1 else ""
    count = len(array.indices)
    throttle = f", {array.throttle} at once" if array.throttle and array.throttle < count else ""
    return f"{array.stage.name}: {count} array task{'s'[: count > 1]}{packed} ({tasks} {array.stage.unit}s{throttle})"


def _print_dry(calls: Sequence[Call], never_starting: Sequence[Entry]) -> None:
    if never_starting:
        print(f"scancel {' '.join(entry.element for entry in never_starting)}")
    for each in calls:
        print(each.shell())
    tasks = sum(len(each.array.tasks) for each in calls)
    say(f"dry run: nothing was submitted; without --dry-run these {len(calls)} sbatch calls submit {tasks} tasks")


def _cancel(elements: Sequence[str]) -> None:
    for start in range(0, len(elements), 500):
        call(["scancel", *elements[start : start + 500]])
    say(
        f"cancelled {len(elements)} job{'s'[: len(elements) > 1]}: {' '.join(elements[:10])}{' ...' if len(elements) > 10 else ''}"
    )


def _say_nothing_to_do(run: Run, active: Mapping[Task, Active]) -> None:
    if active:
        say(f"nothing to submit: what is not done is in the queue already ({len(active)} tasks)")
    else:
        say(f"nothing to submit: run {run.name} is done; its report is {run.report_file}")
