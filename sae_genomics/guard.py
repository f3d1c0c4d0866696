"""From errors to one line and an exit code: what every command is called through."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from sae_genomics.errors import EXIT_BUG, EXIT_DONE, EXIT_REQUEUE, EXIT_USER, Interrupted, one_line
from sae_genomics.progress import say


def guarded(command: Callable[[], int]) -> int:
    """Call `command`, turning errors a reader can act on into one line and an exit code."""
    try:
        return command()
    except Interrupted as interruption:
        say(f"{interruption}: saved; the same command goes on from here")
        return EXIT_REQUEUE
    except KeyboardInterrupt:
        say("stopped; the same command goes on from here")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    except Exception as error:
        line = one_line(error)
        if line is None:
            traceback.print_exc()
            return EXIT_BUG
        say(f"error: {line}")
        return EXIT_USER
