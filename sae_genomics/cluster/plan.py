"""What is to do: every stage's tasks that are not done, and why, before anything is run or submitted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sae_genomics.run import Run, State
from sae_genomics.stage import Stage
from sae_genomics.stages import stage_of, stages_of


@dataclass(frozen=True)
class StagePlan:
    """One stage's tasks.

    states: one per task. redo: whether it was asked to be made again although done. only: the tasks that may run; None for all.
    again: tasks that are done, but whose inputs are to be made: they stay done only if those come out the same.
    """

    stage: Stage
    states: tuple[State, ...]
    redo: bool = False
    only: frozenset[int] | None = None
    again: frozenset[int] = frozenset()

    @property
    def todo(self) -> list[int]:
        """Task numbers that are to run."""
        tasks = (task for task, state in enumerate(self.states) if self.redo or not state.done or task in self.again)
        return [task for task in tasks if self.only is None or task in self.only]

    def line(self) -> str:
        """`03 train        2 of 4 done, 2 to do, of which 2 stale: sae.k was 16, is 32`."""
        counts = Counter(state.status for state in self.states)
        parts = [f"{counts['done']} of {len(self.states)} done"]
        if self.todo:
            parts.append(f"{len(self.todo)} to do")
        if self.again and not self.redo:
            parts.append(f"{len(self.again)} of these only if their inputs come out different")
        if self.redo and counts["done"]:
            parts.append("all made again, as --from asks")
        elif counts["stale"]:
            parts.append(f"{counts['stale']} stale: {self._stale_reasons()}")
        damaged = [state.why for state in self.states if "damaged" in state.why]
        if damaged:
            parts.append(damaged[0])
        return f"{self.stage.number:02d} {self.stage.name:<12}" + ", ".join(parts)

    def _stale_reasons(self) -> str:
        reasons = Counter(state.why for state in self.states if state.status == "stale")
        return "; ".join(reason for reason, _ in reasons.most_common(2))


def make_plan(run: Run, from_stage: str | None = None) -> list[StagePlan]:
    """Look at every task of every stage, in order.

    from_stage: this stage and those after it are made again even where they are done.
    """
    first = stage_of(run, from_stage).number if from_stage else None
    plans: list[StagePlan] = []
    for stage in stages_of(run):
        redo = first is not None and stage.number >= first
        states = (
            run.states(stage)
            if not (stage.partial and any(plan.todo for plan in plans))
            else [_after_others(run, stage)]
        )
        again = frozenset() if stage.partial else _again(run, stage, states, plans)
        plans.append(StagePlan(stage, tuple(states), redo, again=again))
    return plans


def _again(run: Run, stage: Stage, states: Sequence[State], plans: Sequence[StagePlan]) -> frozenset[int]:
    """The done tasks that read files of a task that is to run."""
    to_run = {plan.stage.name: frozenset(plan.todo) for plan in plans}
    sources = [(source, to_run[source.name]) for source in stage.reads_in(run) if to_run[source.name]]
    return frozenset(
        task
        for task, state in enumerate(states)
        if state.done and any(stage.counterparts(source, task, tasks) for source, tasks in sources)
    )


def _after_others(run: Run, stage: Stage) -> State:
    """State of a stage that is made of all the others: looking at each file of theirs again could only confirm it."""
    made = run.manifest_file(stage, 0).exists()
    return State("stale", "other stages are to run first") if made else State("missing", "not made yet")


def forget(run: Run, plans: list[StagePlan]) -> None:
    """Delete the manifests of what is made again, so that it counts as missing even when this is killed half-way."""
    for plan in plans:
        if plan.redo:
            for task in range(len(plan.states)):
                run.manifest_file(plan.stage, task).unlink(missing_ok=True)


def describe(run: Run, plans: list[StagePlan]) -> str:
    """The plan, one line per stage."""
    shards, layers = run.n_shards, len(run.layers)
    title = f"run {run.name}: {run.n_items:,} {run.kind.nouns.items} in {shards} shard{'s'[: shards > 1]}, {layers} layer{'s'[: layers > 1]}"
    return "\n".join([title, *(f"  {plan.line()}" for plan in plans)])
