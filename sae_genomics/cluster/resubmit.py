"""Submits failed and missing tasks again, and dependent tasks; those that ran out of memory with twice as much."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from sae_genomics.cluster.arrays import Active, Change, Task
from sae_genomics.cluster.plan import StagePlan
from sae_genomics.cluster.profile import Resources, doubled, load_profile, memory_mb
from sae_genomics.cluster.reasons import OUT_OF_MEMORY, Evidence
from sae_genomics.cluster.sbatch import directive, resources_of, script_of
from sae_genomics.cluster.slurm import require
from sae_genomics.cluster.submit import submit
from sae_genomics.config import load_config
from sae_genomics.errors import UserError
from sae_genomics.folders import check_folders
from sae_genomics.progress import say
from sae_genomics.run import Run
from sae_genomics.stage import Stage
from sae_genomics.stages import stage_named, stage_of, stages_of


def resubmit(
    config: Path,
    overrides: Sequence[str] = (),
    *,
    stage: str | None = None,
    only_oom: bool = False,
    memory: str | None = None,
    time: str | None = None,
    dry_run: bool = False,
) -> int:
    """Submit what failed or is missing again. Returns an exit code.

    stage: only this stage's tasks, and dependent tasks. only_oom: only tasks that ran out of memory, likewise.
    memory, time: what the tasks that failed ask for now, in place of what they had; without `memory`, those that ran out of
    memory ask for twice as much as before, up to the profile's max_memory.

    Jobs that can never start are cancelled. Raises UserError as `submit` does, and when there is no Slurm here.
    """
    require("resubmit_failed")
    if memory or time:
        check_requests(memory, time)
    run = Run(load_config(config, overrides), config, overrides)
    if stage is not None:
        stage_of(run, stage)
    run.check(stages_of(run), ask_hub=not dry_run)
    check_folders(run)
    chooser = _Chooser(run, stage, only_oom, memory, time)
    return submit(run, dry_run=dry_run, choose=chooser.choose)


class _Chooser:
    def __init__(self, run: Run, stage: str | None, only_oom: bool, memory: str | None, time: str | None):
        self.run, self.stage, self.only_oom, self.memory, self.time = run, stage, only_oom, memory, time
        self.profile = load_profile(run.config.cluster)

    def choose(
        self, plans: list[StagePlan], active: Mapping[Task, Active]
    ) -> tuple[list[StagePlan], dict[Task, Change]]:
        """The plan narrowed to what was asked for, and what single tasks ask for now."""
        evidence = Evidence.gather(self.run)
        changes: dict[Task, Change] = {}
        out_of_memory: set[Task] = set()
        for plan in plans:
            for task in plan.todo:
                reason = None if plan.stage.partial else evidence.reason(plan.stage, task)
                if reason is None:
                    continue
                key = (plan.stage.name, task)
                if reason.kind == OUT_OF_MEMORY:
                    out_of_memory.add(key)
                if self.stage in (None, plan.stage.name) and (key in out_of_memory or not self.only_oom):
                    change = self._change(evidence, plan.stage, task, key in out_of_memory)
                    if change != Change():
                        changes[key] = change
        _say_changes(self.run, changes)
        if self.stage is None and not self.only_oom:
            return plans, changes
        wanted = {
            (plan.stage.name, task)
            for plan in plans
            for task in plan.todo
            if self.stage in (None, plan.stage.name) and (not self.only_oom or (plan.stage.name, task) in out_of_memory)
        }
        if not wanted:
            what = "ran out of memory" if self.only_oom else "is open"
            raise UserError(f"nothing to resubmit: no task of {self.stage or 'run ' + self.run.name} {what}")
        return with_what_hangs_on(plans, wanted, active), changes

    def _change(self, evidence: Evidence, stage: Stage, task: int, oom: bool) -> Change:
        memory = self.memory
        if oom and memory is None:
            job = evidence.last_job.get((stage.name, task), (None, None))[0]
            wish = resources_of(self.run, self.profile, stage).memory or directive(script_of(stage), "mem")
            had = max(filter(None, [job.memory if job else None, wish]), key=memory_mb)
            memory = doubled(had, self.profile.max_memory)
            if memory_mb(memory) <= memory_mb(had):
                say(
                    f"{stage.name} {self.run.unit_key(stage, task)} ran out of memory with {had}, the profile's max_memory; "
                    "raise that, or pass --mem"
                )
        return Change(memory, self.time)


def with_what_hangs_on(plans: Sequence[StagePlan], wanted: set[Task], active: Collection[Task]) -> list[StagePlan]:
    """The plans narrowed to the wanted tasks, what those need and lack, and what can run once those are done.

    A task that hangs on a wanted one, but also on one that is neither done, nor wanted, nor in `active`, stays out.
    """
    lacking = {plan.stage.name: set(plan.todo) for plan in plans}
    chosen = set(wanted)
    for plan in reversed(plans):
        for task in plan.todo:
            if (plan.stage.name, task) in chosen:
                chosen |= _lacking_needs(plan.stage, task, lacking) - set(active)
    for plan in plans:
        for task in plan.todo:
            needs = _lacking_needs(plan.stage, task, lacking)
            if needs & chosen and needs <= chosen | set(active):
                chosen.add((plan.stage.name, task))
    return [
        plan
        if plan.stage.partial
        else replace(plan, only=frozenset(task for name, task in chosen if name == plan.stage.name))
        for plan in plans
    ]


def _lacking_needs(stage: Stage, task: int, lacking: Mapping[str, set[int]]) -> set[Task]:
    """What a task needs that is not done."""
    needs: set[Task] = set()
    for need in stage.needs:
        theirs = lacking.get(need.name, set())  # of a stage that the run does not have nothing is lacking
        needs |= {(need.name, each) for each in stage.counterparts(need, task, theirs)}
    return needs


def _say_changes(run: Run, changes: dict[Task, Change]) -> None:
    for (name, task), change in changes.items():
        requests = [f"{change.memory} of memory" if change.memory else "", f"{change.time}" if change.time else ""]
        say(
            f"{name} {run.unit_key(stage_named(name), task)}: asks for {' and '.join(filter(None, requests))} this time"
        )


def check_requests(memory: str | None, time: str | None) -> None:
    try:
        Resources(memory=memory, time=time)
    except ValidationError as error:
        problem = error.errors()[0]
        option = {"memory": "--mem", "time": "--time"}[str(problem["loc"][0])]
        raise UserError(f"{option} {problem['input']}: {problem['msg'].removeprefix('Value error, ')}") from None
