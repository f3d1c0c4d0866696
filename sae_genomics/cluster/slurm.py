"""Talking to Slurm: the few commands that are used, what their errors mean, and patience while a controller restarts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sae_genomics.errors import UserError
from sae_genomics.progress import duration, say

# What a controller says while it restarts, is overloaded or out of reach for a moment. Anything else is final.
TRANSIENT = re.compile(
    r"Unexpected message received|Resource temporarily unavailable|Unable to contact slurm controller"
    r"|Socket timed out|Connection (refused|timed out|reset)|Zero Bytes were transmitted|temporarily unable to accept"
    r"|Transport endpoint is not connected|Communication connection failure|controller in standby mode"
    r"|Unable to receive|Insane message length|Munge (en|de)code failed|timed out after",
    re.IGNORECASE,
)
UNCONFIGURED = re.compile(
    r"Could not establish a configuration source|Unable to process configuration file|fetch_config: DNS SRV lookup failed"
)
DEFAULT_MAX_ARRAY_SIZE = 1001


@dataclass(frozen=True)
class Answer:
    """A command's exit code and output."""

    code: int
    output: str
    error: str

    @property
    def transient(self) -> bool:
        return self.code != 0 and bool(TRANSIENT.search(self.error + self.output))

    @property
    def problem(self) -> str:
        """What it complained of, in one line, without the `sbatch: error:` in front."""
        lines = [re.sub(r"^\w+: (error|fatal): ", "", line).strip() for line in self.error.splitlines()]
        lines = [line for line in lines if line]
        final = [line for line in lines if "failed:" in line]
        return "; ".join(dict.fromkeys(final[-1:] + lines if final else lines)) or f"exit code {self.code}"


def call(command: Sequence[str], environment: dict[str, str] | None = None, timeout: float = 120) -> Answer:
    """Run one Slurm command. A command that hangs counts as a controller that is out of reach.

    environment: default: this process' own, without the filters that a person may have set for their own squeue and sacct
    (SQUEUE_STATES, say): jobs that such a filter hides would be submitted a second time.
    """
    if environment is None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SACCT_"))}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=timeout, errors="replace"
        )
    except FileNotFoundError:
        return Answer(127, "", f"{command[0]}: error: {command[0]} was not found on PATH")
    except subprocess.TimeoutExpired:
        return Answer(124, "", f"{command[0]}: error: timed out after {timeout:.0f} s")
    return Answer(done.returncode, done.stdout, done.stderr)


def patiently(
    attempt: Callable[[], Answer],
    what: str,
    tries: int,
    first_wait: float,
    found: Callable[[], Answer | None] = lambda: None,
) -> Answer:
    """Call `attempt` until it succeeds or fails for good, waiting twice as long each time, a minute at most.

    found: looked at after each failure: an answer that got lost on the way (the job is there although sbatch said otherwise).
    """
    wait = first_wait
    for left in range(tries - 1, -1, -1):
        answer = attempt()
        if not answer.transient:
            return answer
        lost = found()
        if lost is not None:
            return lost
        if left:
            say(f"{what}: {answer.problem}; trying again in {duration(wait)} ({left} more)")
            time.sleep(wait)
            wait = min(wait * 2, 60)
    return answer


def available() -> bool:
    """Whether this machine has Slurm: sbatch on PATH, and a configuration. A controller that is down for a moment counts as there."""
    if shutil.which("sbatch") is None:
        return False
    answer = call(["scontrol", "show", "config"], timeout=30)
    return answer.code == 0 or not UNCONFIGURED.search(answer.error)


def require(what: str = "--slurm") -> None:
    """Raise UserError, naming what wanted it, when there is no Slurm here."""
    if shutil.which("sbatch") is None:
        raise UserError(
            f"{what}: sbatch was not found on PATH; log in to the cluster's login node, or run here with "
            "bash slurm/00_full_pipeline.sh --local"
        )
    if not available():
        raise UserError(
            f"{what}: Slurm is installed but not configured here (no slurm.conf); log in to the cluster's login node, or "
            "run here with bash slurm/00_full_pipeline.sh --local"
        )
