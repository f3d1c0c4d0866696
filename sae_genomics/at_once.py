"""Several tasks of a stage at once in one process, each in a thread of its own.

They share nothing but the machine and its accelerator: files, heartbeats, random numbers are each task's own, so results are
those of one task after the other. A failing one stops only itself. A signal stops all: its mark is everybody's
(`sae_genomics.progress`), and each saves for itself.

What cannot be done beside others - it lacks memory, or changes what they read - waits until they have ended (`wait_until_alone`).
"""

from __future__ import annotations

import gc
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence

from sae_genomics.progress import say, stop_asked, stop_point
from sae_genomics.run import Run
from sae_genomics.stage import Stage

_LOOK_SECONDS = 0.2  # between looks for a signal, while waiting
_mine = threading.local()


def run_at_once(run: Run, stage: Stage, tasks: Sequence[int], work: Callable[[int], int]) -> dict[int, int]:
    """Call work(task) for each task, as many at once as the stage says fit. Returns task to what `work` returned.

    What `work` raises ends it all: no further task begins, those at work go on to their own end, then it is raised.
    """
    count = stage.at_once(run, len(tasks))
    if count == 1:
        return {task: work(task) for task in tasks}
    say(f"{stage.name}: {len(tasks)} {stage.unit}s, {count} at once")
    return _Company(tasks, work, count).run()


def beside_others() -> bool:
    """Whether this thread does one of several tasks at once."""
    return getattr(_mine, "company", None) is not None


def wait_until_alone() -> None:
    """Wait until no other task is at work in this process; the next to wait goes on when this one has ended.

    Returns at once where tasks are done one after the other. Raises Interrupted when a signal asks to stop. Call it outside of
    `except`: an exception keeps what it has passed through, tensors on the GPU among them.
    """
    company: _Company | None = getattr(_mine, "company", None)
    if company is not None:
        gc.collect()
        company.leave_the_others()


def out_of_memory(error: BaseException) -> bool:
    """Whether an accelerator's memory did not suffice."""
    import torch

    return isinstance(error, torch.cuda.OutOfMemoryError) or "CUBLAS_STATUS_ALLOC_FAILED" in str(error)


class _Company:
    """Threads that take tasks from one list. at_work: how many of them are not waiting to be alone."""

    def __init__(self, tasks: Sequence[int], work: Callable[[int], int], count: int):
        self._left, self._work = deque(tasks), work
        self._codes: dict[int, int] = {}
        self._errors: list[BaseException] = []
        self._at_work, self._changed = count, threading.Condition()
        self._threads = [threading.Thread(target=self._serve, name=f"task {number}") for number in range(count)]

    def run(self) -> dict[int, int]:
        try:
            for thread in self._threads:
                thread.start()
            self._join()
        except KeyboardInterrupt:  # reaches the main thread alone
            with stop_asked(signal.SIGINT):
                self._join()
            raise
        if self._errors:
            raise self._errors[0]
        return self._codes

    def _join(self) -> None:
        """Looks up now and then: a signal's handler runs in this thread, and another one may have been given the signal."""
        for thread in self._threads:
            while thread.is_alive():
                thread.join(_LOOK_SECONDS)

    def _serve(self) -> None:
        _mine.company = self
        try:
            while self._left:
                try:
                    task = self._left.popleft()
                except IndexError:  # another thread took the last one
                    break
                self._codes[task] = self._work(task)
        except BaseException as error:
            self._left.clear()
            self._errors.append(error)
        finally:
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()

    def leave_the_others(self) -> None:
        with self._changed:
            self._at_work -= 1
            self._changed.notify_all()
            try:
                stop_point()  # also where the others have ended by then: they may have been told to stop
                while self._at_work:
                    self._changed.wait(_LOOK_SECONDS)
                    stop_point()
            finally:
                self._at_work += 1
