"""Several layers at once in one process: who waits for whom, who fails, who is told to stop."""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sae_genomics import progress
from sae_genomics.at_once import run_at_once
from sae_genomics.cluster import attempts
from sae_genomics.cluster.local import run_locally
from sae_genomics.cluster.worker import run_tasks
from sae_genomics.errors import DamagedArtifact, Interrupted, UserError
from sae_genomics.manifests import Manifests
from sae_genomics.run import Run
from sae_genomics.stage import Stage
from sae_genomics.stages import stage_named

TRAIN = stage_named("train")


class Watched:
    """Stages that write their files, and what a test adds to training: work(task, beside) is called for each layer.

    beside: how many layers are at work then, this one included. calls: (stage, task) as they ended.
    """

    def __init__(self) -> None:
        self.work: Callable[[int, int], None] = lambda task, beside: None
        self.calls: list[tuple[str, int]] = []
        self.most = 0
        self._beside, self._lock = 0, threading.Lock()

    def __call__(self, stage: Stage, run: Run, task: int) -> None:
        if stage.name == "train":
            with self._lock:
                self._beside += 1
                beside = self._beside
                self.most = max(self.most, beside)
            try:
                self.work(task, beside)
            finally:
                with self._lock:
                    self._beside -= 1
        for path in stage.files(run, task):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        self.calls.append((stage.name, task))


def work_until_stopped() -> None:
    while True:
        time.sleep(0.01)
        progress.stop_point()


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    made = Watched()
    monkeypatch.setattr(Stage, "call", lambda *arguments: made(*arguments))
    return made


@pytest.fixture
def prepared(make_run: Callable[..., Run], watched: Watched) -> Callable[..., Run]:
    """prepared(layers, at_once) -> a run whose training has all it needs."""

    def make(layers: int, at_once: int | None) -> Run:
        run = make_run(layers=layers, sae={"layers_at_once": at_once, "device": "cpu"})
        for name in ("prepare", "extract"):
            stage = stage_named(name)
            assert set(attempts.run_tasks(run, stage, range(run.n_tasks(stage))).values()) == {0}
        watched.calls.clear()
        return run

    return make


def test_as_many_as_the_config_says_are_at_work_together(
    prepared: Callable[..., Run], watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    run = prepared(6, 3)
    together = threading.Barrier(3)
    watched.work = lambda task, beside: together.wait(30) and None  # only three together pass
    assert run_tasks(run, TRAIN, range(6)) == dict.fromkeys(range(6), 0)
    assert watched.most == 3
    assert sorted(watched.calls) == [("train", task) for task in range(6)]
    assert all(run.state(TRAIN, task).done for task in range(6))
    assert [attempts.attempts_of(run, TRAIN, task)[-1].outcome for task in range(6)] == ["done"] * 6
    assert "train: 6 layers, 3 at once" in capsys.readouterr().err


@pytest.mark.parametrize("at_once", [None, 1])
def test_on_a_cpu_one_after_the_other_in_this_thread(prepared, watched, at_once) -> None:
    run = prepared(3, at_once)
    threads = []
    watched.work = lambda task, beside: threads.append(threading.current_thread())
    assert set(attempts.run_tasks(run, TRAIN, range(3)).values()) == {0}
    assert watched.calls == [("train", 0), ("train", 1), ("train", 2)]
    assert set(threads) == {threading.main_thread()}


def test_no_more_than_there_are(prepared, watched) -> None:
    run = prepared(2, 50)
    together = threading.Barrier(2)
    watched.work = lambda task, beside: together.wait(30) and None
    assert set(attempts.run_tasks(run, TRAIN, range(2)).values()) == {0}
    assert TRAIN.at_once(run, 1) == 1
    assert stage_named("associate").at_once(run, 2) == 1


@pytest.mark.parametrize("error", [UserError("too few tokens"), KeyError("slot")])
def test_a_failing_layer_stops_only_itself(prepared, watched, capsys, error) -> None:
    run = prepared(4, 2)

    def work(task: int, beside: int) -> None:
        if task == 1:
            raise error

    watched.work = work
    code = 2 if isinstance(error, UserError) else 1
    assert run_tasks(run, TRAIN, range(4)) == {0: 0, 1: code, 2: 0, 3: 0}
    assert attempts.attempts_of(run, TRAIN, 1)[-1].outcome == "failed"
    assert ("Traceback" in capsys.readouterr().err) == (code == 1)
    assert attempts.run_tasks(run, TRAIN, range(4)) == {0: 0, 1: code, 2: 0, 3: 0}
    watched.calls.clear()
    assert run_locally(run) == code
    assert ("associate", 1) not in watched.calls
    assert {("associate", task) for task in (0, 2, 3)} <= set(watched.calls)
    assert watched.calls[-1] == ("report", 0)


def test_a_signal_stops_all_and_nothing_begins_after_it(prepared, watched, monkeypatch) -> None:
    run = prepared(5, 3)
    together = threading.Barrier(3)

    def work(task: int, beside: int) -> None:
        together.wait(30)
        if task == 0:
            monkeypatch.setattr(progress, "_stop_signal", 15)
        work_until_stopped()

    watched.work = work
    with pytest.raises(Interrupted):
        run_tasks(run, TRAIN, range(5))
    assert watched.calls == []
    outcomes = [attempts.attempts_of(run, TRAIN, task) for task in range(5)]
    assert [tried[-1].outcome if tried else None for tried in outcomes] == ["interrupted"] * 3 + [None] * 2


def test_a_key_press_reaches_every_thread(prepared, watched) -> None:
    run = prepared(3, 2)
    saved = []

    def work(task: int, beside: int) -> None:
        if task == 0:
            _thread.interrupt_main()
        while not progress.stop_requested():
            time.sleep(0.01)
        saved.append(task)
        progress.stop_point()

    watched.work = work
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what starts tests may have it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            run_tasks(run, TRAIN, range(3))
    finally:
        signal.signal(signal.SIGINT, before)
    assert set(saved) <= {0, 1}
    assert 0 in saved
    assert not progress.stop_requested()


@pytest.mark.parametrize("crowded", [{2}, {0, 1, 2}])
def test_what_lacks_memory_beside_others_is_tried_alone(prepared, watched, capsys, crowded) -> None:
    run = prepared(5, 3)
    together = threading.Barrier(3)
    tries: list[tuple[int, int]] = []

    def work(task: int, beside: int) -> None:
        first = task not in [each for each, _ in tries]
        tries.append((task, beside))
        if first and task < 3:
            together.wait(30)
            if task in crowded:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        time.sleep(0.02)

    watched.work = work
    assert run_tasks(run, TRAIN, range(5)) == dict.fromkeys(range(5), 0)
    assert all(beside == 1 for place, (task, beside) in enumerate(tries) if task in [each for each, _ in tries[:place]])
    assert sorted(task for task, _ in tries) == sorted([*range(5), *crowded])
    said = capsys.readouterr().err
    assert said.count("tried again alone") == len(crowded)
    assert all(len(attempts.attempts_of(run, TRAIN, task)) == 1 for task in range(5))


def test_what_lacks_memory_alone_too_has_failed(prepared, watched) -> None:
    run = prepared(3, 3)
    tries = []

    def work(task: int, beside: int) -> None:
        tries.append(task)
        if task == 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    watched.work = work
    assert run_tasks(run, TRAIN, range(3)) == {0: 0, 1: 1, 2: 0}
    assert sorted(tries) == [0, 1, 1, 2]
    assert "out of memory" in attempts.attempts_of(run, TRAIN, 1)[-1].reason


def test_a_signal_reaches_who_waits_to_be_alone(prepared, watched, monkeypatch) -> None:
    run = prepared(2, 2)

    def work(task: int, beside: int) -> None:
        if task == 1:
            monkeypatch.setattr(progress, "_stop_signal", 15)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        work_until_stopped()

    watched.work = work
    with pytest.raises(Interrupted):
        run_tasks(run, TRAIN, range(2))
    assert attempts.attempts_of(run, TRAIN, 1)[-1].outcome == "interrupted"


def test_a_signal_reaches_who_is_alone_already(prepared, watched, monkeypatch) -> None:
    run = prepared(2, 2)
    ended = threading.Event()

    def work(task: int, beside: int) -> None:
        if task == 1:
            ended.wait(30)
            time.sleep(0.5)  # the other thread has left by then
            monkeypatch.setattr(progress, "_stop_signal", 15)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        ended.set()

    watched.work = work
    with pytest.raises(Interrupted):
        run_tasks(run, TRAIN, range(2))
    assert attempts.attempts_of(run, TRAIN, 1)[-1].outcome == "interrupted"


def test_an_input_found_damaged_by_all_is_made_again_once(prepared, watched, capsys, monkeypatch) -> None:
    run = prepared(4, 3)
    damaged = run.tokens_file(1)
    before = damaged.stat()
    damaged.write_bytes(b"?")  # of the right size
    os.utime(damaged, ns=(before.st_atime_ns, before.st_mtime_ns))  # and not to be told by its time
    together, found = threading.Barrier(3), []
    verify = Manifests.verify_inputs

    def all_find_it(manifests: Manifests, stage: Stage, task: int) -> None:
        try:
            verify(manifests, stage, task)
        except DamagedArtifact:
            found.append(task)
            together.wait(30)
            raise

    monkeypatch.setattr(Manifests, "verify_inputs", all_find_it)

    def work(task: int, beside: int) -> None:
        assert damaged.read_bytes() == b"x"

    watched.work = work
    assert run_tasks(run, TRAIN, range(4)) == dict.fromkeys(range(4), 0)
    assert len(found) == 3
    assert watched.calls.count(("extract", 1)) == 1
    assert capsys.readouterr().err.count("it is made again\n") == 1


def test_an_input_that_stays_damaged_is_an_error_and_not_a_loop(prepared, watched, tmp_path: Path) -> None:
    run = prepared(2, 2)

    def work(task: int, beside: int) -> None:
        if task == 0:
            raise DamagedArtifact("that file is damaged", run.tokens_file(0))

    watched.work = work
    assert run_tasks(run, TRAIN, range(2)) == {0: 2, 1: 0}
    assert watched.calls.count(("extract", 0)) == 1


def test_what_work_raises_is_raised_when_the_others_have_ended(make_run) -> None:
    run = make_run(layers=4, sae={"layers_at_once": 2})
    together, ended = threading.Barrier(2), []

    def work(task: int) -> int:
        together.wait(30)
        if task == 0:
            raise AssertionError("here")
        time.sleep(0.1)
        ended.append(task)
        return 0

    with pytest.raises(AssertionError, match="here"):
        run_at_once(run, TRAIN, range(4), work)
    assert ended == [1]
