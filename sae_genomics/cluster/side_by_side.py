"""Several layers on several GPUs of one array task: one process per GPU, each with its share of the layers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

from sae_genomics.errors import EXIT_BUG, EXIT_DONE, EXIT_REQUEUE, Interrupted
from sae_genomics.progress import say, stop_requested


def visible_gpus() -> list[str]:
    """The GPUs that Slurm gave this job, as CUDA names them; empty without any."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [gpu for gpu in given.split(",") if gpu.strip() and gpu.strip() != "NoDevFiles"]
    count = os.environ.get("SLURM_GPUS_ON_NODE", "0")  # sites that show a job its own GPUs only set nothing else
    return [str(gpu) for gpu in range(int(count) if count.isdigit() else 0)]


def run_shares(command: Sequence[str], tasks: Sequence[int], gpus: Sequence[str]) -> dict[int, int]:
    """Run `command --task I ...` once for each GPU, with that GPU alone visible. Returns task to exit code of its process.

    command: argv of a worker without tasks. Signals that ask to stop are passed on; then Interrupted is raised when all
    have saved.
    """
    shares = [share for start in range(len(gpus)) if (share := list(tasks[start :: len(gpus)]))]
    threads = max(1, int(os.environ.get("OMP_NUM_THREADS", "1")) // len(shares))
    megabytes = os.environ.get("SLURM_MEM_PER_NODE", "")  # what Slurm allots to all of them
    memory = {"SLURM_MEM_PER_NODE": str(int(megabytes) // len(shares))} if megabytes.isdigit() else {}
    say(f"{len(tasks)} layers on {len(shares)} GPUs, side by side")
    processes = []
    for gpu, share in zip(gpus, shares, strict=False):
        environment = {**os.environ, **memory, "CUDA_VISIBLE_DEVICES": gpu, "OMP_NUM_THREADS": str(threads)}
        options = [part for task in share for part in ("--task", str(task))]
        processes.append(subprocess.Popen([sys.executable, *command, *options], env=environment))

    asked = False

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGUSR1)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        if stop_requested():  # while the processes were being started
            pass_on(signal.SIGUSR1, None)
        codes = [process.wait() for process in processes]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    # A process that the signal reached before it could listen had not begun.
    if EXIT_REQUEUE in codes or (asked and any(code in (-signal.SIGUSR1, -signal.SIGTERM) for code in codes)):
        raise Interrupted("stopped by a signal")
    results = {}
    for share, code in zip(shares, codes, strict=True):
        results.update(dict.fromkeys(share, EXIT_BUG if code < 0 else code))
    return results


def all_codes(results: dict[int, int]) -> int:
    """The exit code of an array task of several layers: it fails only when all of them did."""
    codes = list(results.values())
    return EXIT_DONE if EXIT_DONE in codes else max(codes, key=lambda code: (code == EXIT_BUG, code))
