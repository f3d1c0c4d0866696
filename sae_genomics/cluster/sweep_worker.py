"""What a sweep's Slurm task, or its process on this machine, runs: some of the sweep's SAEs, one after the other.

    python -m sae_genomics.cluster.sweep_worker FILE [--index I]

`sweep_jobs` writes FILE and starts this: on Slurm through slurm/lib/stage.sh, which passes signals on and requeues.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sae_genomics.atomic import read_json, write_json
from sae_genomics.cluster import attempts
from sae_genomics.cluster.sweep import Point, is_counted, note_terms, run_at, swept_stage, trial_stage
from sae_genomics.config import load_config
from sae_genomics.errors import EXIT_BUG, EXIT_DONE, Interrupted, UserError
from sae_genomics.execute import report_failure
from sae_genomics.guard import guarded
from sae_genomics.progress import catch_stop_signals, say, stop_point
from sae_genomics.run import Run

Work = list[tuple[dict[str, Any], int]]


@dataclass(frozen=True)
class Submission:
    """The work of one array, or of some processes. shares: what each of them trains, as (point's values, task) pairs.

    config: a frozen copy of the run's config. source: the file it is a copy of. sweep: the sweep's name.
    """

    config: str
    source: str | None
    sweep: str
    shares: list[Work]

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Submission:
        values = read_json(path)
        if not isinstance(values, dict):
            raise UserError(f"{path}: cannot be read; type the same scripts/sweep.py command again")
        shares = [[(point, task) for point, task in share] for share in values["shares"]]
        return cls(values["config"], values["source"], values["sweep"], shares)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="sweep_worker", description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--index", type=int, help="which share; default: SLURM_ARRAY_TASK_ID")
    arguments = parser.parse_args(argv)

    def work() -> int:
        catch_stop_signals()
        index = arguments.index if arguments.index is not None else int(os.environ["SLURM_ARRAY_TASK_ID"])
        return train_share(Submission.read(arguments.file), index)

    return guarded(work)


def train_share(submission: Submission, index: int) -> int:
    """Train one share; returns the exit code of the worst failure. Raises Interrupted when a signal asked to stop."""
    config = Path(submission.config)
    run = Run(load_config(config), Path(submission.source) if submission.source else config)
    codes = {EXIT_DONE}
    for values, task in submission.shares[index]:
        stop_point()
        point = Point(tuple(values.items()))
        say(f"sweep {submission.sweep}: {point.name}, layer {run.layers[task]}")
        at = run_at(run, submission.sweep, point)
        codes.add(train_one(at, task))
    return EXIT_BUG if EXIT_BUG in codes else max(codes)


def train_one(run: Run, task: int) -> int:
    """Train one SAE and count its terms, unless that is done; returns an exit code. Raises Interrupted."""
    code = attempts.run_task(run, swept_stage(), task, noted=False)
    return _count_terms(run, task) if code == EXIT_DONE and not is_counted(run, task) else code


def _count_terms(run: Run, task: int) -> int:
    """Count and note the terms of a trained SAE; returns an exit code. A failing count stops only itself. Raises Interrupted."""
    layer = run.layers[task]
    try:
        note_terms(run, task, trial_stage().run_trial(run, layer, run.sae_dir(layer)))
    except Interrupted:
        raise
    except Exception as error:
        return report_failure(run, swept_stage(), task, error)
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
