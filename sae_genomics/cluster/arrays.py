"""From the tasks that are to do to Slurm arrays with the right dependencies. Pure: nothing here talks to a scheduler.

An *array task* works on a group of `pack` neighbouring tasks. The groups 0, 1, 2, ... of a stage are cut into blocks as long as
the cluster's MaxArraySize. Block b has offset b * MaxArraySize, and within it array index = group - offset. Every stage is cut at
the same groups, whatever is missing or done. So index i of a layer stage belongs to index i of the layer stage before it, which is
what `aftercorr` needs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sae_genomics.cluster.plan import StagePlan
from sae_genomics.cluster.profile import memory_mb
from sae_genomics.stage import Stage

Task = tuple[str, int]


@dataclass(frozen=True)
class Active:
    """An array task that Slurm has already: `job` is the array's id, `index` its index there (None for a job without an array)."""

    job: str
    index: int | None
    offset: int
    pack: int

    @property
    def element(self) -> str:
        return self.job if self.index is None else f"{self.job}_{self.index}"


@dataclass(frozen=True)
class Change:
    """What an array task asks for other than the profile does, after it failed for lack of it."""

    memory: str | None = None
    time: str | None = None


@dataclass
class Array:
    """One sbatch call.

    name: what a dry run calls it, unique within a submission.
    indices: of the array; None for a job that is not one.
    dependencies: `kind:job` terms, all of which must hold; a job is an id, or the name of an Array of this submission in braces.
    """

    name: str
    stage: Stage
    indices: tuple[int, ...] | None
    offset: int
    pack: int
    tasks: tuple[int, ...]
    dependencies: tuple[str, ...]
    throttle: int | None = None
    change: Change = field(default_factory=Change)


def make_arrays(
    plans: Sequence[StagePlan],
    active: Mapping[Task, Active],
    *,
    packs: Mapping[str, int],
    max_array_size: int,
    throttles: Mapping[str, int | None] | None = None,
    changes: Mapping[Task, Change] | None = None,
    broken_jobs: Collection[str] = (),
) -> list[Array]:
    """The arrays to submit, in an order in which each comes after what it depends on.

    plans: what is to do, in the pipeline's order. Tasks in `active` are left out: Slurm has them.
    packs: stage name to tasks per array task; max_array_size: number of indices an array may span.
    throttles: stage name to array tasks at once, over all of the stage's arrays, those in `active` included.
    changes: tasks that ask for more than the profile says.
    broken_jobs: active array jobs of which some task failed: `afterok` on the whole can never hold, so their
      living tasks are named one by one.
    """
    maker = _Maker(active, packs, max_array_size, changes or {}, frozenset(broken_jobs))
    for plan in plans:
        if plan.stage.partial:
            maker.add_last(plan)
        else:
            maker.add(plan)
    for stage, arrays in maker.by_stage().items():
        ours = [array for array in arrays if array.indices is not None]
        _share((throttles or {}).get(stage), ours, [there for (name, _), there in active.items() if name == stage])
    return maker.arrays


@dataclass
class _Maker:
    active: Mapping[Task, Active]
    packs: Mapping[str, int]
    max_array_size: int
    changes: Mapping[Task, Change]
    broken_jobs: frozenset[str]
    arrays: list[Array] = field(default_factory=list)
    made: dict[Task, tuple[Array, int]] = field(default_factory=dict)  # task -> its array and index

    def by_stage(self) -> dict[str, list[Array]]:
        """Name of a stage -> its arrays so far."""
        arrays: dict[str, list[Array]] = defaultdict(list)
        for array in self.arrays:
            arrays[array.stage.name].append(array)
        return arrays

    def add(self, plan: StagePlan) -> None:
        """Gather the stage's groups by block and by what they depend on: an array has one dependency for all its tasks."""
        stage, pack = plan.stage, self.packs.get(plan.stage.name, 1)
        groups: dict[int, list[int]] = defaultdict(list)
        for task in plan.todo:
            if (stage.name, task) not in self.active:
                groups[task // pack].append(task)
        arrays: dict[tuple, list[int]] = defaultdict(list)
        whole = {need.name: self._all_of(need) for need in stage.needs}
        for group, tasks in groups.items():
            offset = group // self.max_array_size * self.max_array_size if stage.unit != "run" else 0
            terms: dict[str, None] = {}
            for need in stage.needs:
                by_layer = stage.is_layer_by_layer(need)
                own = self._counterparts(need, tasks, group - offset, offset, pack) if by_layer else whole[need.name]
                terms |= dict.fromkeys(own)
            change = _largest([self.changes[stage.name, task] for task in tasks if (stage.name, task) in self.changes])
            arrays[offset, tuple(terms), change].append(group)
        for (offset, dependencies, change), members in arrays.items():
            name = stage.name if len(arrays) == 1 else f"{stage.name}_{1 + sum(a.stage is stage for a in self.arrays)}"
            indices = None if stage.unit == "run" else tuple(group - offset for group in members)
            together = tuple(task for group in members for task in groups[group])
            array = Array(name, stage, indices, offset, pack, together, dependencies, change=change)
            self.arrays.append(array)
            for group in members:
                for task in groups[group]:
                    self.made[stage.name, task] = (array, group - offset)

    def add_last(self, plan: StagePlan) -> None:
        """A stage that takes what is there: after everything else has ended, well or not."""
        stage = plan.stage
        if not plan.todo or (stage.name, 0) in self.active:
            return
        jobs = dict.fromkeys(each.job for each in self.active.values())
        terms = [f"afterany:{{{array.name}}}" for array in self.arrays] + [f"afterany:{job}" for job in jobs]
        self.arrays.append(Array(stage.name, stage, None, 0, 1, (0,), tuple(terms)))

    def _counterparts(self, need: Stage, tasks: Sequence[int], index: int, offset: int, pack: int) -> list[str]:
        """Terms for the same layers of the stage before: index for index where the cut is the same, by name where not."""
        terms = []
        for task in tasks:
            if (need.name, task) in self.made:
                array, its_index = self.made[need.name, task]
                same = (its_index, array.offset, array.pack) == (index, offset, pack)
                terms.append(f"aftercorr:{{{array.name}}}" if same else f"afterok:{{{array.name}}}_{its_index}")
            elif (need.name, task) in self.active:
                there = self.active[need.name, task]
                same = (there.index, there.offset, there.pack) == (index, offset, pack)
                terms.append(f"aftercorr:{there.job}" if same else f"afterok:{there.element}")
        return terms

    def _all_of(self, need: Stage) -> list[str]:
        """Terms for every task of a stage that is not done yet."""
        terms = [f"afterok:{{{array.name}}}" for array in self.by_stage().get(need.name, ())]
        for (name, _), there in self.active.items():
            if name == need.name:
                terms.append(f"afterok:{there.element if there.job in self.broken_jobs else there.job}")
        return list(dict.fromkeys(terms))


def _largest(changes: Sequence[Change]) -> Change:
    """What an array task asks for whose tasks ask for different things."""
    memory = max((change.memory for change in changes if change.memory), key=memory_mb, default=None)
    return Change(memory, next((change.time for change in changes if change.time), None))


def _share(throttle: int | None, arrays: Sequence[Array], active: Sequence[Active]) -> None:
    """Cut a stage's throttle into one for each of its arrays, so that together they never run more tasks at once.

    Slurm knows a throttle within an array only. What the stage's arrays in the queue may use is taken off first. Where that is all
    of it, the new arrays wait for those to end; where there are more new arrays than the throttle, the later wait for the earlier.
    """
    if throttle is None or not arrays:
        return
    free = throttle - min(throttle, len({there.element for there in active}))
    if not free:
        free = throttle
        jobs = dict.fromkeys(there.job for there in active)
        for array in arrays[:free]:
            array.dependencies += tuple(f"afterany:{job}" for job in jobs)
    lengths = [len(array.indices or ()) for array in arrays]
    if len(arrays) == 1 or sum(lengths) <= free:
        for array in arrays:
            array.throttle = free if len(arrays) == 1 else None
        return
    for before, array in zip(arrays, arrays[free:], strict=False):
        array.dependencies += (f"afterany:{{{before.name}}}",)
    spare = max(free - len(arrays), 0)
    shares = [1 + spare * length // sum(lengths) for length in lengths]
    shares[lengths.index(max(lengths))] += max(free - sum(shares), 0)
    for array, share in zip(arrays, shares, strict=True):
        array.throttle = share


def tasks_of(index: int, offset: int, pack: int, n_tasks: int) -> range:
    """The task numbers that an array index stands for.

    index + offset counts array tasks through all arrays of the stage; each of them holds `pack` tasks.
    """
    first = (index + offset) * pack
    return range(first, min(first + pack, n_tasks))


def index_list(indices: Sequence[int]) -> str:
    """Slurm's notation: 0-3,7,12."""
    parts: list[list[int]] = []
    for index in sorted(indices):
        if parts and index == parts[-1][1] + 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def read_index_list(text: str) -> list[int]:
    """The indices of `0-3,7,12%20`."""
    indices: list[int] = []
    for part in text.partition("%")[0].split(","):
        first, dash, last = part.partition("-")
        indices += range(int(first), int(last if dash else first) + 1)
    return indices
