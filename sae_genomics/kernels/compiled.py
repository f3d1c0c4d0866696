"""How CPU kernels are compiled and spread over threads.

Kernels release the interpreter's lock and work on a range of rows; `each_range` hands ranges of a fixed size to a few
threads. Ranges do not depend on the number of threads and write apart from one another, so neither do the results.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numba

# Sums may be reordered so that they vectorise; NaN and infinity keep their meaning, because a diverged run must show.
_FASTMATH = {"reassoc", "contract", "arcp", "nsz"}

_RANGE_NUMBERS = 1 << 15  # of a range whose rows are worked on one by one: tens of microseconds


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for this CPU, lock released, and keep the machine code on disk where that can be written."""
    return _kernel(function, _FASTMATH)


def exact_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same, with every operation rounded as it is written."""
    return _kernel(function, set())


def inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """A part of kernels, compiled into them; rounded as it is written."""
    return _compiled(function, set(), cache=False)


def _kernel(function: Callable[..., Any], fastmath: set[str]) -> Callable[..., Any]:
    # numba keeps machine code by a kernel's name, and drops it when the kernel's own file changes: no other file's
    function.__qualname__ += _mark({part.__code__.co_filename for part in _parts(function)})
    try:
        return _Kernel(function, fastmath)
    except RuntimeError:  # no folder for the cache
        return _compiled(function, fastmath, cache=False)


def _parts(function: Callable[..., Any]) -> set[Any]:
    """The functions that are compiled into a kernel, as far as they are named in it or in one another, and itself."""
    found, new = set(), [function]
    while new:
        part: Any = new.pop()
        found.add(part)
        for name in part.__code__.co_names:
            named = part.__globals__.get(name)
            # of `inner`, of numba's intrinsics
            source = getattr(named, "py_func", None) or getattr(named, "_defn", None)
            if inspect.isfunction(source) and source not in found:
                new.append(source)
    return found


def _mark(files: set[str]) -> str:
    """Changes whenever one of the files does; nothing where there is but one."""
    if len(files) < 2:
        return ""
    states = [(state.st_mtime_ns, state.st_size) for state in map(os.stat, sorted(files))]
    return f"_{hashlib.sha256(repr(states).encode()).hexdigest()[:12]}"


class _Kernel:
    """A cached kernel that a full disk or quota does not stop: it is then compiled in this process alone."""

    def __init__(self, function: Callable[..., Any], fastmath: set[str]):
        self._function, self._fastmath = function, fastmath
        self._call = _compiled(function, fastmath, cache=True)

    def __call__(self, *arguments: Any) -> Any:
        try:
            return self._call(*arguments)
        except OSError:  # raised while compiling, so nothing has run yet
            self._call = _compiled(self._function, self._fastmath, cache=False)
            return self._call(*arguments)


def _compiled(function: Callable[..., Any], fastmath: set[str], cache: bool) -> Callable[..., Any]:
    compiled: Callable[..., Any] = numba.njit(cache=cache, nogil=True, fastmath=fastmath, error_model="numpy")(function)
    return compiled


def cpu_threads() -> int:
    """Threads for the kernels: as many as torch uses for its own."""
    import torch

    return torch.get_num_threads()


def rows_at_once(width: int) -> int:
    """Rows of `width` numbers for a range of `each_range`, 16 at least: so many that handing a range out takes less than working on it.

    Handing out takes several microseconds under the interpreter's lock. Ranges that take less leave threads to wait for the lock.
    """
    return max(16, _RANGE_NUMBERS // max(width, 1))


def each_range(total: int, size: int, work: Callable[[int, int], None]) -> None:
    """Call work(start, stop) for every `size` rows of `total`; the ranges run on several threads.

    Raises whatever a call raises.
    """
    starts = range(0, total, size)
    threads = min(cpu_threads(), len(starts))
    if threads <= 1:
        for start in starts:
            work(start, min(start + size, total))
        return
    shared = itertools.count()  # next() of it is atomic under the interpreter's lock

    def drain() -> None:
        while (index := next(shared)) < len(starts):
            work(starts[index], min(starts[index] + size, total))

    others = [_pool(os.getpid()).submit(drain) for _ in range(threads - 1)]
    drain()
    for other in others:
        other.result()


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """One pool a process: a forked child must not wait for threads that only its parent has."""
    return ThreadPoolExecutor(max_workers=max(os.cpu_count() or 1, 1), thread_name_prefix="sae-kernel")
