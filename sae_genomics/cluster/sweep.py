"""Many SAEs on the same activations: a grid of `sae.*` settings, in one Slurm array or in processes of this machine.

A sweep's SAEs stand under `checkpoints/<run>/sweeps/<sweep>/<point>/`, their tables under
`results/<run>/sweeps/<sweep>/`. Everything it knows is in files there: closing the terminal ends nothing, and the same
command attaches again.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_genomics.atomic import read_json, write_json, write_text
from sae_genomics.cluster.sweep_ranking import best_lines, rank
from sae_genomics.commands import command
from sae_genomics.config import apply_override, dump_config, load_config, parse_config
from sae_genomics.errors import UserError
from sae_genomics.folders import check_folders
from sae_genomics.hashes import hash_values
from sae_genomics.paths import RunPaths
from sae_genomics.progress import duration, say
from sae_genomics.run import Run
from sae_genomics.stage import Stage
from sae_genomics.stages import STAGES, stages_of

TERMS = ("n_annotated", "n_terms")  # of `validation.trial`, counted on training cells
METRICS = (
    "fvu",
    "l0",
    "dead_share",
    "explained_variance",
    "fvu_centred",
    "identity_variance",
    "mean_abs_decoder_cosine",
    "stability",
    "train_fvu",
    "tokens_trained",
    "seconds",
)


def swept_stage() -> Stage:
    """The stage that a sweep does at each of its points."""
    return next(stage for stage in STAGES if stage.swept)


def trial_stage() -> Stage:
    """The stage by whose settings the terms of a sweep's SAEs are counted."""
    return next(stage for stage in STAGES if stage.trial)


@dataclass(frozen=True)
class Point:
    """One combination of the grid. values: `sae.key` to its value, in the grid's order."""

    values: tuple[tuple[str, Any], ...]

    @property
    def name(self) -> str:
        """A folder's name, for example k=16,d_sae=4096."""
        return ",".join(f"{key.partition('.')[2]}={value}" for key, value in self.values)


@dataclass
class SweepPaths(RunPaths):
    """What a sweep makes stands apart, in a folder for each of its points; everything else is the run's own."""

    sweep: str = ""
    point: str = ""

    def sae_dir(self, layer: int) -> Path:
        return self._folder / "saes" / f"layer_{layer:02d}"

    def manifest_file(self, stage: Stage, unit: str) -> Path:
        return self._folder / "manifests" / f"{unit}.json" if stage.swept else super().manifest_file(stage, unit)

    def heartbeat_file(self, stage: Stage, unit: str) -> Path:
        usual = super().heartbeat_file(stage, unit)
        return usual.with_name(f"{self.sweep}_{self.point}_{usual.name}") if stage.swept else usual

    @property
    def _folder(self) -> Path:
        return self.checkpoints / "sweeps" / self.sweep / self.point


def run_at(run: Run, sweep: str, point: Point) -> Run:
    """A run at one point of a grid: it reads the run's items and activations, keeps its SAEs apart, and owns no name."""
    values = run.config.model_dump(mode="json")
    for key, value in point.values:
        apply_override(values, f"{key}={json.dumps(value)}")
    paths = SweepPaths(run.checkpoints, run.results, run.logs, sweep=sweep, point=point.name)
    return Run(parse_config(values, "the grid"), run.config_file, paths=paths, is_owner=False)


@dataclass(frozen=True)
class Sweep:
    """A grid over a run's layers. tasks: positions in run.layers."""

    run: Run
    name: str
    points: tuple[Point, ...]
    tasks: tuple[int, ...]

    @property
    def results(self) -> Path:
        return self.run.results / "sweeps" / self.name

    @property
    def logs(self) -> Path:
        return self.run.logs / "sweeps" / self.name

    def at(self, point: Point) -> Run:
        return run_at(self.run, self.name, point)

    def open(self) -> list[tuple[Point, int]]:
        """(point, task) of every SAE that is not trained yet, or whose terms are not counted."""
        train = swept_stage()
        runs = [(point, self.at(point)) for point in self.points]
        return [
            (point, task)
            for point, run in runs
            for task in self.tasks
            if not run.state(train, task).done or not is_counted(run, task)
        ]


def make_sweep(
    config: Path, overrides: Sequence[str], grid: Sequence[str], layers: str | None, name: str | None
) -> Sweep:
    """Read a sweep from its arguments.

    grid: `sae.key=value,value,...` strings. layers: `3,6`, by default the run's. name: of its folder; default: from the grid.

    Raises UserError for a key that no sweep may vary, for values the config refuses, for folders that cannot be
    written to, and when the activations are not there.
    """
    run = Run(load_config(config, overrides), config, overrides)
    run.check(stages_of(run))
    axes = [parse_axis(text) for text in grid]
    if not axes:
        raise UserError("a sweep needs a grid, for example --grid sae.k=16,32,64")
    if run.config.sae.from_ is not None:
        raise UserError("a sweep trains SAEs, and sae.from names published ones; pass --set sae.from=null")
    points = tuple(Point(values) for values in itertools.product(*axes))
    tasks = _tasks(run, layers)
    sweep = Sweep(
        run, name or f"{'_'.join(axis[0][0].partition('.')[2] for axis in axes)}_{hash_values(axes)[:6]}", points, tasks
    )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", sweep.name):
        raise UserError(f"--name {name}: letters, digits, '.', '_' and '-' make a folder's name")
    check_folders(run, f"sweeps/{sweep.name}")
    (extract,) = swept_stage().needs
    for point in points:
        at = sweep.at(point)
        if at.base_fingerprint(extract) != run.base_fingerprint(extract):
            raise UserError(
                f"--grid {point.name}: changes the activations; a sweep varies only keys of the section sae"
            )
        at.check(stages_of(at), overwrite=True)  # a point's settings own nothing
    open_shards = [task for task, state in enumerate(run.states(extract)) if not state.done]
    if open_shards:
        raise UserError(
            f"a sweep needs the activations of run {run.name}, of which {len(open_shards)} of {run.n_shards} shards are not "
            f"done; run {command('pipeline', run)} first"
        )
    return sweep


def parse_axis(text: str) -> list[tuple[str, Any]]:
    """`sae.k=16,32` as [(sae.k, 16), (sae.k, 32)]. Raises UserError when it is not of that form."""
    key, equals, values = text.partition("=")
    key = key.strip()
    if not equals or not key.startswith("sae.") or not values.strip():
        raise UserError(f"--grid {text}: expected sae.key=value,value,..., for example --grid sae.k=16,32,64")
    axis = []
    for value in values.split(","):
        holder: dict[str, Any] = {}
        apply_override(holder, f"{key}={value}")
        axis.append((key, holder["sae"][key.partition(".")[2]]))
    if len({json.dumps(value) for _, value in axis}) != len(axis):
        raise UserError(f"--grid {text}: names a value twice")
    return axis


def _tasks(run: Run, layers: str | None) -> tuple[int, ...]:
    if layers is None:
        return tuple(range(len(run.layers)))
    try:
        wanted = [int(layer) for layer in layers.split(",")]
    except ValueError:
        raise UserError(f"--layers {layers}: expected layer numbers such as 3,6") from None
    missing = [layer for layer in wanted if layer not in run.layers]
    if missing:
        raise UserError(f"--layers: run {run.name} has no layer {missing[0]}; it has {', '.join(map(str, run.layers))}")
    return tuple(run.layers.index(layer) for layer in wanted)


# --- what came of it ---


def terms_file(run: Run, task: int) -> Path:
    return run.sae_dir(run.layers[task]) / "terms.json"


def counted_terms(run: Run, task: int) -> dict[str, Any] | None:
    """What `validation.trial` counted for the SAE that lies there, by today's settings; None where it has to count."""
    noted, metrics = read_json(terms_file(run, task)), read_json(run.sae_dir(run.layers[task]) / "metrics.json")
    if not isinstance(noted, dict) or not isinstance(metrics, dict):
        return None
    is_todays = noted.get("weights") == metrics.get("weights") and noted.get("settings") == _terms_settings(run)
    return noted if is_todays else None


def is_counted(run: Run, task: int) -> bool:
    """Whether the terms of the SAE that lies there are counted, or there is none to count: such a run is not validated."""
    return not trial_stage().applies(run) or counted_terms(run, task) is not None


def note_terms(run: Run, task: int, counted: dict[str, Any]) -> None:
    """Keep what `validation.trial` counted, with what it was counted by."""
    write_json(terms_file(run, task), {**counted, "settings": _terms_settings(run)})


def _terms_settings(run: Run) -> str:
    return run.base_fingerprint(trial_stage())


def collect(sweep: Sweep) -> list[dict[str, Any]]:
    """One row for every SAE that is done: layer, the grid's values, METRICS, TERMS, and what `sweep_ranking` makes of them."""
    rows = []
    train = swept_stage()
    for point in sweep.points:
        run = sweep.at(point)
        for task in sweep.tasks:
            if run.state(train, task).done:
                metrics = read_json(run.sae_dir(run.layers[task]) / "metrics.json") or {}
                grid = grid_values(point)
                counted = counted_terms(run, task) or {}
                measured = {f"measured_{key}" if key in grid else key: metrics.get(key) for key in METRICS}
                rows.append({"layer": run.layers[task], **grid, **measured, **{key: counted.get(key) for key in TERMS}})
    return [{**row, **ranked} for row, ranked in zip(rows, rank(rows), strict=True)]


def grid_values(point: Point) -> dict[str, Any]:
    """The point's values by the keys' names without their section."""
    return {key.partition(".")[2]: value for key, value in point.values}


def write_results(sweep: Sweep) -> Path:
    """Write sweep.tsv and the frontier figure from what is trained; returns the table's path."""
    rows = collect(sweep)
    columns = list(rows[0]) if rows else ["layer"]
    lines = [
        "\t".join(columns),
        *("\t".join("" if row[column] is None else str(row[column]) for column in columns) for row in rows),
    ]
    table = sweep.results / "sweep.tsv"
    write_text(table, "\n".join(lines) + "\n")
    if rows:
        from sae_genomics.cluster.sweep_figure import draw_frontier

        names = list(grid_values(sweep.points[0]))
        draw_frontier(sweep.results / "frontier.png", rows, names)
        for line in best_lines(rows, names):
            say(line)
    return table


def freeze(sweep: Sweep) -> Path:
    """Keep the config as it is now for jobs that start later, and the grid for those who come back."""
    copy = sweep.logs / f"config_{hash_values(dump_config(sweep.run.config))}.yaml"
    write_text(copy, dump_config(sweep.run.config))
    grid = [dict(point.values) for point in sweep.points]
    write_json(
        sweep.results / "grid.json", {"layers": [sweep.run.layers[task] for task in sweep.tasks], "points": grid}
    )
    return copy


def saes(count: int) -> str:
    """`1 SAE`, `3 SAEs`."""
    return f"{count} SAE{'s'[: count != 1]}"


def progress_line(sweep: Sweep, started: float, jobs: Mapping[str, str]) -> str:
    """`5 of 12 SAEs trained, 2 running, 5 queued; 3 min 20 s`."""
    total, left = len(sweep.points) * len(sweep.tasks), len(sweep.open())
    states = [state.lower() for state in jobs.values()]
    counts = {status: sum(state in names for state in states) for status, names in _JOB_STATES.items()}
    parts = ", ".join(f"{count} job{'s'[: count > 1]} {status}" for status, count in counts.items() if count)
    return f"sweep {sweep.name}: {total - left} of {saes(total)} trained{', ' if parts else ''}{parts}; {duration(time.time() - started)}"


_JOB_STATES = {
    "running": ("running", "completing"),
    "queued": ("pending", "requeued", "unknown"),
    "failed": ("failed", "cancelled", "timeout", "node_fail", "out_of_memory", "interrupted"),
}
