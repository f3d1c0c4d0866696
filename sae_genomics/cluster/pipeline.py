"""The command of the master script: everything that is not done, on Slurm where it is, on this machine where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sae_genomics.cluster.local import run_locally
from sae_genomics.cluster.lock import refuse_if_locked
from sae_genomics.cluster.plan import describe, make_plan
from sae_genomics.cluster.queue import read_queue
from sae_genomics.cluster.ready import check_packages
from sae_genomics.cluster.slurm import available, require
from sae_genomics.commands import command
from sae_genomics.config import load_config
from sae_genomics.errors import EXIT_DONE, UserError
from sae_genomics.folders import check_folders
from sae_genomics.progress import say
from sae_genomics.run import Run
from sae_genomics.stage import Stage
from sae_genomics.stages import stage_of, stages_of


def pipeline(
    config: Path,
    overrides: Sequence[str] = (),
    *,
    dry_run: bool = False,
    local: bool = False,
    slurm: bool = False,
    from_stage: str | None = None,
    overwrite: bool = False,
) -> int:
    """Run or submit everything that is not done. Returns an exit code.

    config: the run's YAML file; overrides: `section.key=value` strings.
    dry_run: say what would be done, and stop.
    local, slurm: insist on this machine, or on Slurm; by default Slurm is used where it is installed and configured.
    from_stage: make this stage and those after it again.
    overwrite: take over a run name that another config, data set or model used.

    Raises UserError for whatever is wrong with the input, before anything is written.
    """
    if slurm:
        require()
    has_slurm = not local and (slurm or available())
    run = Run(load_config(config, overrides), config, overrides)
    if from_stage is not None:
        stage_of(run, from_stage)
    run.check(stages_of(run), overwrite=overwrite, ask_hub=not dry_run)
    check_folders(run)
    if has_slurm:
        from sae_genomics.cluster.submit import submit

        return submit(run, from_stage=from_stage, dry_run=dry_run)
    check_packages(run)
    if dry_run:
        say(describe(run, make_plan(run, from_stage)))
        say("dry run: nothing was run; without --dry-run these tasks run on this machine")
        return EXIT_DONE
    _refuse_while_queued(run)
    return run_locally(run, from_stage)


def _refuse_while_queued(run: Run) -> None:
    """Raise UserError when Slurm works on this run: both would write the same files."""
    if not run.jobs_file.exists() or not available():
        return
    living = sorted({entry.job for entry in read_queue(run)[0] if entry.living}, key=int)
    if living:
        raise UserError(
            f"run {run.name} has jobs in the queue: wait for them ({command('status', run, '--watch')}), or scancel {' '.join(living)}, "
            "then type the same command again"
        )


def refuse_beside_others(run: Run, stage: Stage, tasks: Sequence[int]) -> None:
    """For a stage by hand: raise UserError when the pipeline works on this run here, or Slurm has one of these tasks.

    No lock is taken: by hand, several tasks of a stage may run at once on several machines.
    """
    refuse_if_locked(run)
    if not run.jobs_file.exists() or not available():
        return
    entries = [entry for entry in read_queue(run)[0] if entry.living and entry.stage == stage]
    taken = {task: entry.job for entry in entries for task in entry.tasks(run.n_tasks(stage)) if task in tasks}
    taken = {task: job for task, job in taken.items() if not run.state(stage, task).done}
    if taken:
        jobs = " ".join(sorted(set(taken.values()), key=int))
        raise UserError(
            f"{run.label(stage, min(taken))} is in Slurm's queue: wait for it ({command('status', run, '--watch')}), or scancel {jobs}"
        )
