"""Which process wrote something, and whether it is still there."""

from __future__ import annotations

import os
from pathlib import Path


def process_start(pid: int) -> str | None:
    """When a process of this host began (jiffies since boot); None when there is none. Tells a reused pid from its old owner.

    A zombie has ended: it is only the exit code that its parent did not ask for yet.
    """
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if status[0] == "Z" else status[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:  # no /proc: macOS
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"


def is_alive(pid: int) -> bool:
    """Whether a process of this host exists."""
    return process_start(pid) is not None
