"""Batches side by side on a CPU, each computed by cores of its own.

Where all cores share every operation, they wait for the slowest of them after each, some hundred times a batch, and for
Python in between. A core with a batch to itself waits for nobody.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache
from types import TracebackType

import torch


class Workers:
    """Threads that each do one piece of work at a time, torch's threads dealt out among them.

    Use as a context manager: on leaving all work is done, except that after an exception what has not begun is dropped. After
    the first work that fails the rest fails likewise without being begun. The threads stay for the next time: memory that
    libraries keep a thread would else grow with the number of shards.

    count: workers; with 1 the work is done in the calling thread, with all of torch's threads.
    """

    def __init__(self, count: int):
        self.count = count
        self._torch_threads = torch.get_num_threads()
        self._pool = _pool(os.getpid(), count) if count > 1 else None
        self._unfinished: set[Future[None]] = set()
        self._error: BaseException | None = None

    def do(self, work: Callable[[], None]) -> Future[None] | None:
        """Do the work, now or soon: then the future says when it is done, and raises what it raised."""
        if self._pool is None:
            work()
            return None
        future = self._pool.submit(self._guarded, work)
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return future

    def _guarded(self, work: Callable[[], None]) -> None:
        if self._error is not None:
            raise self._error
        threads = max(self._torch_threads // self.count, 1)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        try:
            work()
        except BaseException as error:
            self._error = error
            raise

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        unfinished = list(self._unfinished)
        if error is not None:
            for future in unfinished:
                future.cancel()
        wait(unfinished)
        if self._pool is not None:
            # a worker's number is its own, but also what threads begin with that set none
            torch.set_num_threads(self._torch_threads)


@lru_cache(maxsize=1)
def _pool(process: int, count: int) -> ThreadPoolExecutor:
    """One pool a process: a forked child must not wait for threads that only its parent has."""
    return ThreadPoolExecutor(count, thread_name_prefix="extraction worker")
