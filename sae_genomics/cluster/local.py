"""Runs everything that is not done on this machine, in the pipeline's order."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from sae_genomics.cluster import attempts
from sae_genomics.cluster.lock import locked
from sae_genomics.cluster.plan import StagePlan, describe, forget, make_plan
from sae_genomics.cluster.reasons import give_reasons
from sae_genomics.errors import EXIT_DONE
from sae_genomics.progress import catch_stop_signals, duration, say
from sae_genomics.run import Run
from sae_genomics.stage import Stage


def run_locally(run: Run, from_stage: str | None = None) -> int:
    """Run all tasks that are not done. Returns the exit code: 0 when all are done, else that of the worst failure.

    from_stage: this stage and those after it are made again even where they are done; their manifests are deleted.

    A task that fails stops only its dependent tasks; the report is still made and names it. Raises Interrupted when a
    signal asked to stop, UserError when somebody else is at work on the same run.
    """
    catch_stop_signals()
    give_reasons(run)
    started = time.monotonic()
    with locked(run, "running it locally"):
        plans = make_plan(run, from_stage)
        say(describe(run, plans))
        forget(run, plans)
        failed = _run_stages(run, plans)
    _say_end(run, failed, time.monotonic() - started)
    return max((code for _, code in failed), default=EXIT_DONE, key=lambda code: (code == 1, code))


def _run_stages(run: Run, plans: Sequence[StagePlan]) -> list[tuple[str, int]]:
    """Run the plans' tasks; returns (label, exit code) of those that failed."""
    failed: list[tuple[str, int]] = []
    unfinished: dict[tuple[str, int], str] = {}
    for plan in plans:
        stage = plan.stage
        left_out: Counter[str] = Counter()
        ready = []
        for task in plan.todo:
            if lacking := _lacking(run, stage, task, unfinished):
                left_out[lacking] += 1
                unfinished[stage.name, task] = lacking
            else:
                ready.append(task)
        for task, code in sorted(attempts.run_tasks(run, stage, ready).items()):
            if code != EXIT_DONE:
                label = run.label(stage, task)
                failed.append((label, code))
                unfinished[stage.name, task] = label
                if not stage.needs:
                    return failed  # nothing can follow, and its own line says all there is to say
        for lacking, count in left_out.items():
            say(f"{stage.name}: {count} task{'s'[: count > 1]} left out, because {lacking} is not done")
    return failed


def _lacking(run: Run, stage: Stage, task: int, unfinished: dict[tuple[str, int], str]) -> str | None:
    """The label of the task whose failure keeps this one from running; what takes inputs as they come is never kept."""
    if stage.partial or not unfinished:
        return None
    needs = ((need.name, each) for need, each in stage.needed_tasks(run, task))
    return next((unfinished[need] for need in needs if need in unfinished), None)


def _say_end(run: Run, failed: Sequence[tuple[str, int]], seconds: float) -> None:
    if failed and not run.report_file.exists():
        return
    if failed:
        say(
            f"{len(failed)} task{'s'[: len(failed) > 1]} failed: {', '.join(label for label, _ in failed)}; the same command tries them again"
        )
    else:
        say(f"run {run.name}: everything is done, in {duration(seconds)}")
    if run.report_file.exists():
        say("report:")
        print(run.report_file, flush=True)
