"""What several threads say at once: whole lines, and none that overwrites another's."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from sae_genomics.progress import Progress, say


class Terminal:
    """Keeps what each call writes; lets other threads in before it does."""

    def __init__(self) -> None:
        self.written: list[str] = []

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> None:
        for character in text:
            self.written.append(character)
            if character == "7":
                time.sleep(0.001)

    def flush(self) -> None:
        pass


def test_lines_of_several_threads_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)

    def work(number: int) -> None:
        progress = Progress(f"train layer {number}", 10, "tokens")
        progress._interval = 0
        for _ in range(10):
            progress.advance(1)
            say(f"layer {number} speaks")
        progress.finish("end")

    threads = [threading.Thread(target=work, args=(number,)) for number in (5, 6, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = "".join(terminal.written).split("\n")
    assert len(lines) == 3 * 21 + 1
    assert lines.pop() == ""
    assert not any("\r" in line for line in lines)
    for number in (5, 6, 7):
        assert lines.count(f"layer {number} speaks") == 10
        assert sum(line.startswith(f"train layer {number}: ") for line in lines) == 11


def test_alone_on_a_terminal_lines_overwrite_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress("train layer 1", 2, "tokens")
    progress._interval = 0
    progress.advance(1)
    progress.finish()
    text = "".join(terminal.written)
    assert text.count("\r") == 2
    assert text.count("\n") == 1
