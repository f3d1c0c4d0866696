"""Progress of long work: a line a person can read in a log, and a heartbeat file that `status` reads."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from sae_genomics.atomic import write_json
from sae_genomics.errors import Interrupted

_stop_signal: int | None = None
_writing = threading.Lock()


def say(message: str) -> None:
    """One line to standard error, at once and whole, whatever other threads say."""
    _write(message + "\n")


def _write(text: str) -> None:
    with _writing:
        sys.stderr.write(text)
        sys.stderr.flush()


class Progress:
    """Counts work done, prints rate and time left, and keeps the task's heartbeat.

    label: what is being done, for example `extract shard 3`.
    total: how much there is to do, in `unit`s; None when that is not known.
    heartbeat: JSON file with keys label, done, total, unit, rate, seconds_left, time, host, pid; None for none.

    Several threads may share one. Lines come every two seconds on a terminal (overwriting one another), every fifteen in a log
    and in any thread but the main one: what runs there is beside others, whose lines it would overwrite.
    """

    def __init__(self, label: str, total: float | None, unit: str, heartbeat: Path | None = None):
        self.label, self.total, self.unit, self.heartbeat = label, total, unit, heartbeat
        self.done = 0.0
        self._terminal = sys.stderr.isatty() and threading.current_thread() is threading.main_thread()
        self._interval = 2.0 if self._terminal else 15.0
        self._started = self._printed = self._beaten = time.monotonic()
        self._skipped = 0.0
        self._counting = threading.Lock()

    def skip(self, amount: float) -> None:
        """Count work that an earlier attempt did: it is done, but says nothing about the rate."""
        self.done += amount
        self._skipped += amount

    def advance(self, amount: float, note: str = "") -> None:
        """Count work done; `note` (a loss, say) is appended to the line."""
        with self._counting:
            self.done += amount
            now = time.monotonic()
            if now - self._printed >= self._interval:
                self._printed = now
                self._print(note)
            if now - self._beaten >= 5.0:
                self._beaten = now
                self._beat(note)

    def finish(self, note: str = "") -> None:
        """Print the closing line."""
        self._print(note, end=True)
        self._beat(note)

    @property
    def rate(self) -> float:
        """Units per second since this attempt began."""
        return (self.done - self._skipped) / max(time.monotonic() - self._started, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        if self.total is None or self.done <= self._skipped:
            return None
        return max(self.total - self.done, 0.0) / self.rate

    def _print(self, note: str, end: bool = False) -> None:
        of = f"/{self.total:,.0f}" if self.total is not None else ""
        left = self.seconds_left
        time_text = (
            f"{duration(time.monotonic() - self._started)} taken"
            if end
            else (f"{duration(left)} left" if left is not None else "")
        )
        parts = [f"{self.label}: {self.done:,.0f}{of} {self.unit}", f"{self.rate:,.1f} {self.unit}/s", time_text, note]
        line = "  ".join(part for part in parts if part)
        if self._terminal:
            _write("\r\x1b[2K" + line + ("\n" if end else ""))
        else:
            say(line)

    def _beat(self, note: str = "") -> None:
        if self.heartbeat is None:
            return
        beat = {
            "label": self.label, "done": self.done, "total": self.total, "unit": self.unit, "rate": round(self.rate, 4),
            "seconds_left": self.seconds_left, "note": note, "time": time.time(), "host": socket.gethostname(), "pid": os.getpid(),
        }  # fmt: skip
        try:
            write_json(self.heartbeat, beat)
        except OSError:
            self.heartbeat = (
                None  # a heartbeat is a courtesy: a full disk must fail where the result is written, not here
            )


def duration(seconds: float) -> str:
    """`4 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def catch_stop_signals() -> None:
    """From now on SIGTERM and SIGUSR1 only set a mark; the task saves and stops at the next `stop_point`."""

    def mark(number: int, frame: FrameType | None) -> None:
        global _stop_signal
        _stop_signal = number

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, mark)


@contextmanager
def stop_asked(number: int) -> Iterator[None]:
    """Within it every thread finds that signal `number` asked to stop."""
    global _stop_signal
    before, _stop_signal = _stop_signal, number
    try:
        yield
    finally:
        _stop_signal = before


def stop_requested() -> bool:
    """Whether a signal asked this process to save and stop."""
    return _stop_signal is not None


def stop_point() -> None:
    """Raise Interrupted when a signal asked to stop. Call where nothing is lost by stopping."""
    if _stop_signal is not None:
        raise Interrupted(f"stopped by {signal.Signals(_stop_signal).name}")
