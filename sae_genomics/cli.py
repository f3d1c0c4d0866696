"""The command line: `sae-genomics pipeline | stage | status | resubmit | config`, and the scripts that call it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sae_genomics import __version__
from sae_genomics.config import dump_config, load_config
from sae_genomics.errors import EXIT_BUG, EXIT_DONE, UserError
from sae_genomics.folders import check_folders
from sae_genomics.guard import guarded
from sae_genomics.progress import catch_stop_signals
from sae_genomics.run import Run
from sae_genomics.stage import Stage
from sae_genomics.stages import STAGES, register_installed, stage_named, stage_of, stages_of

DEFAULT_CONFIG = Path("configs/demo.yaml")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (see the design: 0, 1, 2, 75)."""
    register_installed()
    arguments = _parser().parse_args(argv)
    return guarded(lambda: arguments.function(arguments))


def stage_main(name: str, argv: Sequence[str] | None = None) -> int:
    """`scripts/0N_NAME.py`: one stage by hand."""
    register_installed()
    stage = stage_named(name)
    parser = argparse.ArgumentParser(
        prog=f"{stage.number:02d}_{name}.py",
        description=f"Run stage {stage.number:02d} {name} of a run. {_stage_help(stage)} Without --task every task that is not "
        "done runs; tasks that are done are left alone.",
    )
    _stage_arguments(parser)
    arguments = parser.parse_args(argv)
    arguments.stage = name
    return guarded(lambda: _stage(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sae-genomics",
        description="Sparse autoencoders for foundation models of cells and proteins: from an h5ad or FASTA file to a report.",
        epilog="exit codes: 0 done, 2 something you can fix (one line says what), 1 a bug, 75 stopped after saving",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    pipeline = commands.add_parser(
        "pipeline",
        help="run everything that is not done, on Slurm where it is, else here",
        description=_pipeline.__doc__,
    )
    pipeline.add_argument(
        "config", nargs="?", type=Path, default=DEFAULT_CONFIG, metavar="CONFIG", help="default: %(default)s"
    )
    where = pipeline.add_mutually_exclusive_group()
    where.add_argument("--local", action="store_true", help="run on this machine even where sbatch is at hand")
    where.add_argument("--slurm", action="store_true", help="submit to Slurm; an error where sbatch is not found")
    pipeline.add_argument("--dry-run", action="store_true", help="show what would run or be submitted, and stop")
    pipeline.add_argument(
        "--from",
        dest="from_stage",
        metavar="STAGE",
        choices=[stage.name for stage in STAGES],
        help="redo STAGE and what comes after it",
    )
    _set_arguments(pipeline)
    pipeline.set_defaults(function=_pipeline)

    stage = commands.add_parser("stage", help="run one stage by hand")
    stage.add_argument(
        "stage", choices=[stage.name for stage in STAGES], metavar="STAGE", help=", ".join(s.name for s in STAGES)
    )
    _stage_arguments(stage)
    stage.set_defaults(function=_stage)

    status = commands.add_parser("status", help="what is done, missing, stale, running, failed")
    status.add_argument(
        "config", nargs="?", type=Path, default=DEFAULT_CONFIG, metavar="CONFIG", help="default: %(default)s"
    )
    status.add_argument("--config", dest="config_option", type=Path, metavar="CONFIG", help=argparse.SUPPRESS)
    status.add_argument("--watch", action="store_true", help="refresh until everything is done")
    status.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    _set_arguments(status, overwrite=False)
    status.set_defaults(function=_status)

    resubmit = commands.add_parser("resubmit", help="submit failed and missing tasks again, and dependent tasks")
    resubmit.add_argument(
        "config", nargs="?", type=Path, default=DEFAULT_CONFIG, metavar="CONFIG", help="default: %(default)s"
    )
    resubmit.add_argument(
        "--stage", choices=[stage.name for stage in STAGES], help="only this stage's tasks and dependent tasks"
    )
    resubmit.add_argument("--only-oom", action="store_true", help="only tasks that died of lack of memory")
    resubmit.add_argument("--mem", help="memory for the resubmitted tasks, for example 64G")
    resubmit.add_argument("--time", help="time limit for the resubmitted tasks, for example 12:00:00")
    resubmit.add_argument("--dry-run", action="store_true", help="show what would be submitted, and stop")
    _set_arguments(resubmit, overwrite=False)
    resubmit.set_defaults(function=_resubmit)

    config = commands.add_parser("config", help="print the whole config with every default, as it would run")
    config.add_argument(
        "config", nargs="?", type=Path, default=DEFAULT_CONFIG, metavar="CONFIG", help="default: %(default)s"
    )
    _set_arguments(config, overwrite=False)
    config.set_defaults(function=_config)
    return parser


def _set_arguments(parser: argparse.ArgumentParser, overwrite: bool = True) -> None:
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one key, for example sae.k=64",
    )
    if overwrite:
        parser.add_argument(
            "--overwrite", action="store_true", help="take over a run name that another config, data set or model used"
        )


def _stage_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help="default: %(default)s")
    parser.add_argument(
        "--task", type=int, metavar="I", help="one task: shard number, or position in the list of layers"
    )
    _set_arguments(parser)


def _stage_help(stage: Stage) -> str:
    unit = {"run": "It is one task.", "shard": "One task per shard of the data.", "layer": "One task per layer."}[
        stage.unit
    ]
    return f"{unit} It needs {', '.join(need.name for need in stage.needs)}." if stage.needs else unit


def _pipeline(arguments: argparse.Namespace) -> int:
    """Run every task of every stage that is not done: through sbatch with dependencies where Slurm is, on this machine where it is not."""
    from sae_genomics.cluster.pipeline import pipeline

    return pipeline(
        arguments.config,
        arguments.overrides,
        dry_run=arguments.dry_run,
        local=arguments.local,
        slurm=arguments.slurm,
        from_stage=arguments.from_stage,
        overwrite=arguments.overwrite,
    )


def _stage(arguments: argparse.Namespace) -> int:
    from sae_genomics.cluster.attempts import run_tasks
    from sae_genomics.cluster.pipeline import refuse_beside_others
    from sae_genomics.cluster.reasons import give_reasons

    catch_stop_signals()
    run = Run(load_config(arguments.config, arguments.overrides), arguments.config, arguments.overrides)
    run.check(stages_of(run), overwrite=arguments.overwrite)
    check_folders(run)
    stage = stage_of(run, arguments.stage)
    n_tasks = run.n_tasks(stage)
    if arguments.task is None:
        tasks = list(range(n_tasks))
    elif 0 <= arguments.task < n_tasks:
        tasks = [arguments.task]
    else:
        last = f"0 to {n_tasks - 1}" if n_tasks > 1 else "0 alone"
        raise UserError(
            f"--task {arguments.task}: stage {stage.name} of run {run.name} has {n_tasks} task{'s'[: n_tasks > 1]}, {last}; "
            "leave --task out to run all that are not done"
        )
    refuse_beside_others(run, stage, tasks)
    give_reasons(run)
    codes = set(run_tasks(run, stage, tasks).values()) - {EXIT_DONE}
    return EXIT_BUG if EXIT_BUG in codes else max(codes, default=EXIT_DONE)


def _status(arguments: argparse.Namespace) -> int:
    from sae_genomics.cluster.status import status

    config = arguments.config_option or arguments.config
    return status(config, arguments.overrides, watch=arguments.watch, as_json=arguments.json)


def _resubmit(arguments: argparse.Namespace) -> int:
    from sae_genomics.cluster.resubmit import resubmit

    return resubmit(
        arguments.config,
        arguments.overrides,
        stage=arguments.stage,
        only_oom=arguments.only_oom,
        memory=arguments.mem,
        time=arguments.time,
        dry_run=arguments.dry_run,
    )


def _config(arguments: argparse.Namespace) -> int:
    print(dump_config(load_config(arguments.config, arguments.overrides)), end="")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
