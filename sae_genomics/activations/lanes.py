"""Batches side by side on a CPU, each computed by cores of its own.

Where all cores share every operation, they wait for the slowest of them after each, some hundred times a batch, and for
Python in between. A core with a batch to itself waits for nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch


class Lanes:
    """Threads that each do one piece of work at a time, torch's threads dealt out among them.

    Use as a context manager: on leaving well all work is done; on an exception what has not begun is dropped. After the
    first work that fails the rest fails likewise without being begun.

    count: lanes; with 1 the work is done in the calling thread, with all of torch's threads.
    """

    def __init__(self, count: int):
        self.count = count
        self._torch_threads = torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None
        self._error: BaseException | None = None

    def do(self, work: Callable[[], None]) -> Future[None] | None:
        """Do the work, now or soon: then the future says when it is done, and raises what it raised."""
        if self._pool is None:
            work()
            return None
        return self._pool.submit(self._guarded, work)

    def _guarded(self, work: Callable[[], None]) -> None:
        if self._error is not None:
            raise self._error
        try:
            work()
        except BaseException as error:
            self._error = error
            raise

    def __enter__(self) -> Lanes:
        if self.count > 1:
            self._pool = ThreadPoolExecutor(
                self.count,
                thread_name_prefix="extraction lane",
                initializer=torch.set_num_threads,
                initargs=(max(self._torch_threads // self.count, 1),),
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=error is not None)
            # a lane's number is its own, but also what threads begin with that set none
            torch.set_num_threads(self._torch_threads)
