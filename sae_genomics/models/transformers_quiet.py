"""transformers without its reports and progress bars: what matters of them is checked here."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_alone = threading.RLock()  # its settings are the process's


@contextmanager
def quiet() -> Iterator[None]:
    """Within it, transformers prints errors alone."""
    from transformers.utils import logging

    with _alone:
        verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()


def reason_of(error: Exception) -> str:
    """What another package's error says, in one line; with its kind where the message is a bare name."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = " ".join(lines[:2]) if lines[:1] and lines[0].endswith(":") else "".join(lines[:1])
    return f"{type(error).__name__}: {reason}" if isinstance(error, KeyError) or not reason else reason
