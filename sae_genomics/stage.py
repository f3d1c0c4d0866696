"""What a stage of the pipeline is: everything that submitting, running, status, planning and the report need to know of it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from sae_genomics.run import Run

Files = dict[Path, dict[str, Any]]


def everywhere(run: Run) -> bool:
    """Whether a stage applies that every run has."""
    return True


@dataclass(frozen=True, eq=False)
class Stage:
    """One stage of the pipeline. `stages.py` has the list of them.

    What is given as `module:name` is imported when it is called: a command that only looks at a run loads no torch.
    """

    name: str
    """In commands, manifests and logs."""

    number: int
    """Its position in the pipeline, as in `scripts/03_train.py`."""

    unit: Literal["run", "shard", "layer"]
    """What one task works on."""

    needs: tuple[Stage, ...]
    """Stages whose tasks come first. A layer's task waits for the same layer's task, or for all shards."""

    reads: tuple[Stage, ...]
    """Stages whose files a task reads. When their content changes, what was made from it is stale."""

    keys: tuple[str, ...]
    """Config sections, or `section.key`s, that its result depends on."""

    root: Literal["checkpoints", "results"]
    """Where its files and manifests are."""

    function: str
    """`module:name`, called as name(run, task): does one task's work."""

    files: Callable[[Run, int], Files]
    """(run, task) -> the files that the task must leave, each with what distinguishes its fingerprint."""

    applies: Callable[[Run], bool] = everywhere
    """run -> whether the run has this stage. `Run.config` decides; nothing is read."""

    check: str | None = None
    """`module:name`, called as name(run) before anything runs: raises UserError for settings that cannot work."""

    cost: str | None = None
    """`module:name`, called as name(workload): a `data.plan.Cost`. Without it a rough guess stands in the plan."""

    contributions: tuple[str, ...] = ()
    """`module:NAME` of each part that it adds to the report, a `report.contribution.Contribution`."""

    fitting: str | None = None
    """`module:name`, called as name(run, n): how many of n tasks one process can do at once; without it one."""

    version: int = 1
    """Raised whenever the meaning of its files changes."""

    ignores: frozenset[str] = frozenset()
    """`section.key`s within `keys` that its result does not depend on."""

    varying: tuple[str, ...] = ()
    """`section.key`s on which some of its files depend and others do not. Those that do name them in what distinguishes them."""

    side_files: frozenset[str] = frozenset()
    """Names of files, and of folders of files, that no other stage but the report reads."""

    later_files: frozenset[str] = frozenset()
    """Names of files, and of folders of files, that came after runs had been made: a task that was finished without them is done."""

    gpu: bool = False
    """Whether a task can use a GPU."""

    gpus_key: str | None = None
    """`section.key` that says how many GPUs a job asks for, where the config sets it."""

    packages_key: str | None = None
    """`section.key` that lists packages which its tasks import beside those that are always installed."""

    reads_repeatedly: bool = False
    """Whether a task reads its layer's activations again and again, so that a node-local copy of them pays."""

    swept: bool = False
    """Whether a sweep does it at each point of its grid: its settings change nothing that was made before it."""

    trial: str | None = None
    """`module:name`, called as name(run, layer, folder): what the SAEs of a sweep are ranked by, under this stage's settings."""

    partial: bool = False
    """Whether it is made of whatever is done: it needs every other stage, and runs although some of their tasks failed."""

    def is_side(self, path: Path) -> bool:
        """Whether a file is one of `side_files`."""
        return not self.side_files.isdisjoint((path.name, path.parent.name))

    def is_later(self, path: Path) -> bool:
        """Whether a file is one of `later_files`."""
        return not self.later_files.isdisjoint((path.name, path.parent.name))

    def call(self, run: Run, task: int) -> None:
        """Do one task's work, in this process."""
        named(self.function)(run, task)

    def at_once(self, run: Run, n_tasks: int) -> int:
        """How many of `n_tasks` tasks to do at once in this process, from 1 to n_tasks."""
        if self.fitting is None or n_tasks < 2:
            return 1
        return max(1, min(n_tasks, named(self.fitting)(run, n_tasks)))

    def check_settings(self, run: Run) -> None:
        """Raise UserError for settings of the run that this stage cannot work with."""
        if self.check is not None:
            named(self.check)(run)

    def run_trial(self, run: Run, layer: int, folder: Path) -> dict[str, Any]:
        """What the SAE in `folder` is ranked by among those of a sweep."""
        assert self.trial is not None
        counted: dict[str, Any] = named(self.trial)(run, layer, folder)
        return counted

    def needs_in(self, run: Run) -> tuple[Stage, ...]:
        """Those of `needs` that the run has."""
        return tuple(need for need in self.needs if need.applies(run))

    def reads_in(self, run: Run) -> tuple[Stage, ...]:
        """Those of `reads` that the run has."""
        return tuple(source for source in self.reads if source.applies(run))

    def layer_of(self, run: Run, task: int) -> int | None:
        """The layer that a task works on; None for a stage with other units."""
        return run.layers[task] if self.unit == "layer" else None

    def is_layer_by_layer(self, other: Stage) -> bool:
        """Whether a task of this stage waits for the same task of `other` alone."""
        return self.unit == other.unit == "layer"

    def counterparts(self, other: Stage, task: int, tasks: Iterable[int]) -> list[int]:
        """Those of `tasks`, which are of `other`, that belong to a task of this stage: the same layer's, or all of a stage with other units."""
        return [each for each in tasks if each == task] if self.is_layer_by_layer(other) else list(tasks)

    def needed_tasks(self, run: Run, task: int) -> list[tuple[Stage, int]]:
        """The tasks that must be done before this one."""
        return self._tasks_of(self.needs_in(run), run, task)

    def read_tasks(self, run: Run, task: int) -> list[tuple[Stage, int]]:
        """The tasks whose files this one reads."""
        return self._tasks_of(self.reads_in(run), run, task)

    def _tasks_of(self, others: Iterable[Stage], run: Run, task: int) -> list[tuple[Stage, int]]:
        return [(other, each) for other in others for each in self.counterparts(other, task, range(run.n_tasks(other)))]


def named(function: str) -> Any:
    """What `module:name` stands for."""
    module, name = function.split(":")
    return getattr(importlib.import_module(module), name)
