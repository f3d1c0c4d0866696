"""What a Slurm task runs: from its array index to the pipeline's tasks.

    python -m sae_genomics.cluster.worker STAGE CONFIG [--offset N] [--pack P] [--source FILE] [--set A.B=C]

slurm/lib/stage.sh calls it on the compute node; slurm/00_full_pipeline.sh writes the arguments.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sae_genomics.at_once import run_at_once
from sae_genomics.cluster import attempts
from sae_genomics.cluster.arrays import tasks_of
from sae_genomics.cluster.reasons import give_reasons
from sae_genomics.cluster.scratch import with_scratch
from sae_genomics.cluster.side_by_side import all_codes, run_shares, visible_gpus
from sae_genomics.config import load_config
from sae_genomics.errors import UserError
from sae_genomics.guard import guarded
from sae_genomics.progress import catch_stop_signals, say, stop_point
from sae_genomics.run import Run
from sae_genomics.stage import Stage
from sae_genomics.stages import register_installed, stage_of, stages_of


def main(argv: Sequence[str] | None = None) -> int:
    """Run one array task; returns its exit code."""
    register_installed()
    parser = argparse.ArgumentParser(prog="worker", description=__doc__.splitlines()[0])
    parser.add_argument("stage")
    parser.add_argument("config", type=Path)
    parser.add_argument("--offset", type=int, default=0, help="added to the array index, where arrays are split")
    parser.add_argument("--pack", type=int, default=1, help="layers an array task works on")
    parser.add_argument("--scratch", help="node-local folder to copy activations to before training, e.g. $TMPDIR")
    parser.add_argument("--source", type=Path, help="the file that CONFIG is a copy of")
    parser.add_argument("--task", dest="tasks", type=int, action="append", help="a task by its number; may be repeated")
    parser.add_argument("--index", type=int, help="array index; default: SLURM_ARRAY_TASK_ID, without it every task")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE")
    return guarded(lambda: _work(parser.parse_args(argv)))


def _work(arguments: argparse.Namespace) -> int:
    catch_stop_signals()
    run = Run(
        load_config(arguments.config, arguments.overrides), arguments.source or arguments.config, arguments.overrides
    )
    give_reasons(run)
    stage = with_scratch(stage_of(run, arguments.stage), arguments.scratch)
    if arguments.source is None:
        run.check(stages_of(run))
    index = arguments.index
    if index is None and "SLURM_ARRAY_TASK_ID" in os.environ:
        index = int(os.environ["SLURM_ARRAY_TASK_ID"])
    n_tasks = run.n_tasks(stage)
    if arguments.tasks is not None:
        return all_codes(run_tasks(run, stage, arguments.tasks))
    tasks = range(n_tasks) if index is None else tasks_of(index, arguments.offset, arguments.pack, n_tasks)
    if not tasks:
        raise UserError(f"array index {index}: stage {stage.name} of run {run.name} has {n_tasks} tasks")
    gpus = visible_gpus()
    if stage.gpu and stage.unit == "layer" and len(tasks) > 1 and len(gpus) > 1:
        return all_codes(run_shares(_own_command(arguments), tasks, gpus))
    return all_codes(run_tasks(run, stage, tasks))


def _own_command(arguments: argparse.Namespace) -> list[str]:
    """This worker's argv without the array's: the tasks are added one by one."""
    parts = ["-m", "sae_genomics.cluster.worker", arguments.stage, str(arguments.config)]
    parts += ["--source", str(arguments.source)] if arguments.source else []
    parts += ["--scratch", arguments.scratch] if arguments.scratch else []
    return parts + [part for override in arguments.overrides for part in ("--set", override)]


def run_tasks(run: Run, stage: Stage, tasks: Sequence[int]) -> dict[int, int]:
    """Run tasks one after the other, or several at once; returns task to exit code. A failing one stops only itself.

    Where several layers share an array task it fails only when all of them did (`all_codes`): otherwise Slurm would hold
    back the next stage of the good ones. Which failed is in the attempts.
    """

    def work(task: int) -> int:
        stop_point()
        wait_for_inputs(run, stage, task)
        return attempts.run_task(run, stage, task)

    return run_at_once(run, stage, tasks, work)


def wait_for_inputs(run: Run, stage: Stage, task: int) -> None:
    """Wait until what other nodes wrote is seen on this one.

    A network file system may go on saying for up to a minute that a file is not there, when it was asked before the
    file appeared; listing the folder makes it look again. Inputs whose last attempt failed are not waited for.
    """
    if stage.partial or "SLURM_JOB_ID" not in os.environ:
        return
    deadline = time.monotonic() + float(os.environ.get("SAE_GENOMICS_INPUT_WAIT", "60"))
    layer = stage.layer_of(run, task)
    for need, each in stage.needed_tasks(run, task):
        while not run.state(need, each, layer=layer).done:
            tried = attempts.attempts_of(run, need, each)
            failed = bool(tried) and tried[-1].outcome == "failed"
            if failed or time.monotonic() >= deadline:
                return  # execute() says what is missing
            say(f"waiting for {need.name} {run.unit_key(need, each)} to be seen on this node")
            for folder in {path.parent for path in [run.manifest_file(need, each), *need.files(run, each)]}:
                if folder.is_dir():
                    os.listdir(folder)
            time.sleep(3)
            stop_point()


if __name__ == "__main__":
    sys.exit(main())
