"""Planning of arrays, against what Slurm's dependency terms mean, spelled out task by task."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given

from sae_genomics.cluster.arrays import Active, Array, Change, index_list, make_arrays, read_index_list, tasks_of
from sae_genomics.cluster.plan import StagePlan
from sae_genomics.cluster.resubmit import with_what_hangs_on
from sae_genomics.run import State
from sae_genomics.stages import STAGES, stage_named
from tests.stage_names import OF_ARRAYS, OF_LAYERS

NEEDS = {stage.name: stage.needs for stage in STAGES}


def plans_of(todo: dict[str, set[int]], shards: int, layers: int) -> list[StagePlan]:
    sizes = {"run": 1, "shard": shards, "layer": layers}
    plans = []
    for stage in STAGES:
        wanted = todo.get(stage.name, set())
        states = tuple(State("missing" if task in wanted else "done") for task in range(sizes[stage.unit]))
        plans.append(StagePlan(stage, states))
    return plans


@st.composite
def situations(draw):
    """Any mixture of done, active (from an older submission with its own cut) and open tasks."""
    shards, layers = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    of_unit = {"run": 1, "shard": shards, "layer": layers}
    sizes = {stage.name: of_unit[stage.unit] for stage in STAGES if not stage.partial}
    todo = {name: draw(st.sets(st.integers(0, size - 1))) for name, size in sizes.items()}
    todo["report"] = {0}
    pack, limit = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    old_pack, old_limit = draw(st.sampled_from([(pack, limit), (1, 100), (2, 3)]))
    active = {}
    for number, (name, tasks) in enumerate(todo.items()):
        layer_stage = name in OF_LAYERS
        its_pack = old_pack if layer_stage else 1
        places = {task // its_pack for task in tasks}
        for place in sorted(draw(st.sets(st.sampled_from(sorted(places)))) if places and name != "report" else ()):
            offset = place // old_limit * old_limit
            index = None if name == "prepare" else place - offset
            job = str(100 * (number + 1) + place // old_limit)
            for task in tasks_of(place, 0, its_pack, sizes[name]):
                if task in tasks:
                    active[name, task] = Active(job, index, offset, its_pack)
    return todo, shards, layers, pack, limit, active


@given(situations())
def test_every_task_waits_for_exactly_what_it_lacks(situation):
    todo, shards, layers, pack, limit, active = situation
    plans = plans_of(todo, shards, layers)
    packs = {stage.name: pack if stage.unit == "layer" else 1 for stage in STAGES}
    arrays = make_arrays(plans, active, packs=packs, max_array_size=limit)
    sizes = {plan.stage.name: len(plan.states) for plan in plans}
    by_name = {array.name: array for array in arrays}
    assert len(by_name) == len(arrays)

    submitted = [(array.stage.name, task) for array in arrays for task in array.tasks]
    assert sorted(submitted) == sorted(
        (name, task) for name, tasks in todo.items() for task in tasks if (name, task) not in active
    )

    seen: set[str] = set()
    for array in arrays:
        covered = tasks_by_place(array, sizes)
        assert all(index < limit for index in array.indices or ())
        assert set(array.tasks) <= {task for tasks in covered.values() for task in tasks}
        for term in array.dependencies:
            assert term.count("{") == 0 or term[term.index("{") + 1 : term.index("}")] in seen, (
                "depends on a later array"
            )
        if array.stage.partial:
            assert all(term.startswith("afterany:") for term in array.dependencies)
            assert len(array.dependencies) == len(arrays) - 1 + len({place.job for place in active.values()})
        else:
            for place, tasks in covered.items():
                mine = [task for task in tasks if task in array.tasks]
                waits = set().union(*(meaning(term, place, by_name, active, sizes) for term in array.dependencies))
                assert waits >= needed(array, mine, todo)
                # It waits for nothing else of another layer, beyond what shares an array task with its own.
                allowed = needed(array, list(tasks), todo)
                extra = {each for each in waits - allowed if NEEDS and stage_named(each[0]).unit == "layer"}
                assert not extra or pack > 1 or any(place.pack > 1 for place in active.values())
        seen.add(array.name)


def tasks_by_place(array: Array, sizes: dict[str, int]) -> dict[int | None, range]:
    if array.indices is None:
        return {None: range(sizes[array.stage.name])}
    return {index: tasks_of(index, array.offset, array.pack, sizes[array.stage.name]) for index in array.indices}


def needed(array: Array, tasks: list[int], todo: dict[str, set[int]]) -> set[tuple[str, int]]:
    """What is not done of what these tasks need."""
    needs = set()
    for need in NEEDS[array.stage.name]:
        same = need.unit == array.stage.unit == "layer"
        needs |= {(need.name, each) for each in todo[need.name] if not same or each in tasks}
    return needs


def meaning(
    term: str, index: int | None, arrays: dict[str, Array], active: dict, sizes: dict[str, int]
) -> set[tuple[str, int]]:
    """The pipeline's tasks whose success the term waits for, as Slurm's manual has it."""
    kind, _, job = term.partition(":")
    if job.startswith("{"):
        name, _, element = job[1:].partition("}")
        array = arrays[name]
        places = tasks_by_place(array, sizes)
        if kind == "aftercorr":
            assert index in places, "aftercorr on an index that the other array does not have"
            return {(array.stage.name, task) for task in places[index] if task in array.tasks}
        chosen = [int(element[1:])] if element else list(places)
        return {(array.stage.name, task) for place in chosen for task in places[place] if task in array.tasks}
    number, _, element = job.partition("_")
    theirs = {key: place for key, place in active.items() if place.job == number}
    if kind == "aftercorr":
        element = str(index)
    return {key for key, place in theirs.items() if not element or str(place.index) == element}


def test_broken_jobs_are_waited_for_task_by_task():
    todo = {"extract": {0, 1, 2}, "train": {0}, "associate": {0}, "validate": {0}, "report": {0}}
    active = {("extract", 1): Active("7", 1, 0, 1), ("extract", 2): Active("7", 2, 0, 1)}
    keywords = {"packs": {}, "max_array_size": 10}
    train = make_arrays(plans_of(todo, 3, 1), active, **keywords)[1]
    assert train.dependencies == ("afterok:{extract}", "afterok:7")
    train = make_arrays(plans_of(todo, 3, 1), active, broken_jobs={"7"}, **keywords)[1]
    assert train.dependencies == ("afterok:{extract}", "afterok:7_1", "afterok:7_2")


def test_changed_requests_go_into_arrays_of_their_own():
    todo = {"train": {0, 1, 2}, "report": {0}}
    changes = {("train", 1): Change(memory="64G")}
    arrays = make_arrays(plans_of(todo, 1, 3), {}, packs={}, max_array_size=10, changes=changes)
    assert [(array.name, array.tasks, array.change.memory) for array in arrays[:2]] == [
        ("train_1", (0, 2), None),
        ("train_2", (1,), "64G"),
    ]


@pytest.mark.parametrize(("limit", "expected"), [(1000, [8]), (4, [4, 3])])
def test_throttle_is_shared_among_the_parts_of_a_stage(limit, expected):
    todo = {"extract": set(range(4 + 3)), "report": {0}}
    arrays = make_arrays(plans_of(todo, 7, 1), {}, packs={}, max_array_size=limit, throttles={"extract": 8})
    shares = [array.throttle or len(array.indices) for array in arrays if array.stage.name == "extract"]
    assert shares == expected
    arrays = make_arrays(plans_of(todo, 7, 1), {}, packs={}, max_array_size=limit, throttles={"extract": 3})
    assert sum(array.throttle for array in arrays if array.stage.name == "extract") <= 3


@given(situations(), st.integers(1, 6), st.sets(st.integers(0, 8), max_size=3))
def test_no_more_tasks_of_a_stage_run_at_once_than_its_throttle(situation, throttle, changed):
    """Over all parts of a stage, and over what an older submission has in the queue."""
    todo, shards, layers, pack, limit, active = situation
    packs = {stage.name: pack if stage.unit == "layer" else 1 for stage in STAGES}
    throttles = dict.fromkeys(OF_ARRAYS, throttle)
    changes = {("train", task): Change(memory=f"{task + 1}G") for task in changed}
    arrays = make_arrays(
        plans_of(todo, shards, layers), active, packs=packs, max_array_size=limit, throttles=throttles, changes=changes
    )  # fmt: skip
    for name in throttles:
        ours = [array for array in arrays if array.stage.name == name]
        waits = {array.name: {term for term in array.dependencies if term.startswith("afterany:")} for array in ours}
        places = {place.element: place.job for (stage, _), place in active.items() if stage == name}
        # What may run at once: arrays of which none waits, however long the chain, for another.
        for chosen in itertools.combinations(ours, min(len(ours), throttle + 1)):
            names = {array.name for array in chosen}
            if not any(f"afterany:{{{other}}}" in before(array.name, waits) for array in chosen for other in names):
                assert len(chosen) <= throttle
                old = {
                    job
                    for array in chosen
                    for job in places.values()
                    if f"afterany:{job}" not in before(array.name, waits)
                }
                beside = min(throttle, sum(job in old for job in places.values()))
                assert sum(array.throttle or len(array.indices) for array in chosen) + beside <= throttle


def before(name: str, waits: dict[str, set[str]]) -> set[str]:
    """All the terms that an array waits for, and those that these wait for."""
    terms = set(waits[name])
    for term in waits[name]:
        other = term.removeprefix("afterany:").strip("{}")
        terms |= before(other, waits) if other in waits else set()
    return terms


def test_a_throttle_of_one_makes_the_parts_of_a_stage_follow_one_another():
    todo = {"extract": set(range(7)), "report": {0}}
    arrays = make_arrays(plans_of(todo, 7, 1), {}, packs={}, max_array_size=3, throttles={"extract": 1})
    parts = [array for array in arrays if array.stage.name == "extract"]
    assert [array.throttle for array in parts] == [1, 1, 1]
    assert [array.dependencies for array in parts] == [(), ("afterany:{extract_1}",), ("afterany:{extract_2}",)]
    running = {("extract", task): Active("7", task, 0, 1) for task in (0, 1)}
    arrays = make_arrays(plans_of(todo, 7, 1), running, packs={}, max_array_size=100, throttles={"extract": 1})
    assert arrays[0].dependencies == ("afterany:7",)
    arrays = make_arrays(plans_of(todo, 7, 1), running, packs={}, max_array_size=100, throttles={"extract": 5})
    assert (arrays[0].throttle, arrays[0].dependencies) == (3, ())


@given(st.sets(st.integers(0, 200), min_size=1))
def test_index_list_reads_back(indices):
    assert read_index_list(index_list(sorted(indices)) + "%20") == sorted(indices)


def test_index_list_is_slurms_notation():
    assert index_list([3, 7, 8, 9, 12]) == "3,7-9,12"


def test_resubmitting_one_task_brings_what_it_lacks_and_what_can_follow():
    todo = {"extract": {1}, "train": {0, 1}, "associate": {0, 1}, "validate": {0, 1}, "report": {0}}
    plans = plans_of(todo, 3, 2)

    def chosen(wanted, active=()):
        return {plan.stage.name: plan.todo for plan in with_what_hangs_on(plans, wanted, set(active)) if plan.todo}

    everything = {"extract": [1], "train": [0, 1], "associate": [0, 1], "validate": [0, 1], "report": [0]}
    assert chosen({("extract", 1)}) == everything
    assert chosen({("validate", 0)}) == {
        "extract": [1],
        "train": [0, 1],
        "associate": [0, 1],
        "validate": [0, 1],
        "report": [0],
    }

    todo = {"extract": {1, 2}, "train": {0}, "associate": {0}, "validate": {0}, "report": {0}}
    plans = plans_of(todo, 3, 2)
    assert chosen({("extract", 1)}) == {"extract": [1], "report": [0]}  # shard 2 is not coming: nothing can follow
    assert chosen({("extract", 1)}, [("extract", 2)]) == {
        "extract": [1],
        "train": [0],
        "associate": [0],
        "validate": [0],
        "report": [0],
    }

    todo = {"train": {0, 1}, "associate": {0, 1}, "validate": {0, 1}, "report": {0}}
    plans = plans_of(todo, 3, 2)
    assert chosen({("train", 1)}) == {"train": [1], "associate": [1], "validate": [1], "report": [0]}
