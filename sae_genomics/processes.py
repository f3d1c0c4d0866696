"""Which process wrote something, and whether it is still there."""

from __future__ import annotations

import os
from pathlib import Path


def process_start(pid: int) -> str | None:
    """When a process of this host began (jiffies since boot); None when there is none. Tells a reused pid from its old owner."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
        return status.rpartition(")")[2].split()[19]
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
