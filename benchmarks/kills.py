"""Does a run survive being killed at any moment? Random SIGKILLs, files removed and damaged between them, then a comparison.

    python benchmarks/kills.py [--kills 200] [--seed 0] [--disturb 0.3] [--damage 0.6] [--keep FOLDER] [--json]

A small local run on the bundled cells and model is made once undisturbed. Then the same run is started again and again in
another folder, and its process group is killed at a random moment of a random stage. Between kills a file is now and then
removed or damaged in place. Whenever the run comes to its end, and at the very end, this is checked:

- HDF5, safetensors and Parquet files are those of the undisturbed run, bit for bit; JSON files too, but for times;
- no temporary file is left, every task is done, and the exit code is 0.

Exit code 1 when anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sae_genomics.atomic import read_json
from sae_genomics.config import load_config
from sae_genomics.run import Run
from sae_genomics.stage import Stage
from sae_genomics.stages import STAGES

ROOT = Path(__file__).resolve().parents[1]
# The demo's shards fit one window, and take less than a second: small windows give a kill something to hit.
CHILD = """
import sys
from sae_genomics.activations.extraction import extract
from sae_genomics.activations.extraction import unfinished
extract.WINDOW_BYTES["cpu"], unfinished.KEEP_SECONDS = 1 << 19, 0.05
from sae_genomics.cli import main
sys.exit(main(["pipeline", sys.argv[1], "--local"]))
"""
STARTED = re.compile(r"^(\w+)(?: \w+)?: started$", re.MULTILINE)
COMPARED = (".h5", ".h5ad", ".safetensors", ".parquet", ".json")
TEMPORARY = (".partial-", ".unfinished-")
TIMES = {
    "seconds",
    "tokens_per_s",
    "estimates",
    "check",
}  # of JSON files: what is measured anew, and the check value over it
SHOWN = 20
LIMIT_SECONDS = 900


@dataclass
class Tally:
    """What was done to the run, and what was found.

    kills: stage at work -> times. removed, damaged: kind of file -> times. compared: ends of the run that were compared.
    """

    kills: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)
    damaged: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    problems: list[str] = field(default_factory=list)


def make_run(folder: Path) -> Run:
    """A run in `folder` that takes some seconds, and leaves one of each kind of file."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "kills.yaml"
    values = {
        "run": {"name": "kills"},
        "paths": {root: str(folder / root) for root in ("checkpoints", "results", "logs")},
        "data": {"path": "builtin:pbmc68k_reduced", "cell_type_key": "bulk_labels", "max_cells": 150},
        "model": {"name": "demo", "layers": [0, 2], "device": "cpu"},
        "activations": {"cells_per_shard": 75, "batch_tokens": 2048},
        "sae": {"steps": 400, "batch_tokens": 256, "d_sae": 128, "k": 8, "device": "cpu", "checkpoint_every_seconds": 0.5},
        "validation": {"shuffles": 2},
    }  # fmt: skip
    config.write_text(yaml.safe_dump(values))
    return Run(load_config(config), config)


# --- one process of the run ---


class Process:
    """The run at work in a process group of its own; what it says goes to `log`."""

    def __init__(self, run: Run, log: Path):
        self._log = log
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with open(log, "wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", CHILD, str(run.config_file)], stdout=output, stderr=output, env=environment,
                start_new_session=True,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def stages_begun(self) -> list[str]:
        return STARTED.findall(self.said)

    def wait(self, seconds: float = LIMIT_SECONDS, until_stage: str | None = None) -> int | None:
        """Wait that long, or until a stage began, or the end. Returns the exit code, None while it is at work."""
        deadline = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < deadline:
            if until_stage is not None and until_stage in self.stages_begun:
                break
            time.sleep(0.01)
        return self._process.poll()

    def kill(self) -> str:
        """SIGKILL the group. Returns the stage that was at work."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        begun = self.stages_begun
        return begun[-1] if begun else "start"


# --- what is done to it ---


def pending(run: Run) -> list[Stage]:
    """Stages with tasks to do."""
    fresh = Run(run.config, run.config_file)
    return [stage for stage in STAGES if not all(state.done for state in fresh.states(stage))]


def targets(run: Run) -> dict[str, dict[str, list[Path]]]:
    """Stage -> kind of file -> files that are there: artifacts, manifests, and what training and extraction go on from."""
    found: dict[str, dict[str, list[Path]]] = {}
    for stage in STAGES:
        for task in range(run.n_tasks(stage)):
            manifest = run.manifest_file(stage, task)
            kinds = found.setdefault(stage.name, {})
            files = [*stage.files(run, task)] if manifest.exists() else []
            for path in files:
                if path.exists():
                    kinds.setdefault(path.suffix.lstrip("."), []).append(path)
            if manifest.exists():
                kinds.setdefault("manifest", []).append(manifest)
    for stage, pattern in (("train", "saes/*/checkpoint/*.safetensors"), ("extract", "activations/*/.unfinished-*")):
        paths = list(run.checkpoints.glob(pattern))
        if paths:
            found.setdefault(stage, {})["to go on from"] = paths
    return {stage: kinds for stage, kinds in found.items() if kinds}


def disturb(run: Run, dice: random.Random, tally: Tally, damage_share: float) -> None:
    """Remove one file, or damage it. Every stage is as likely as every other, and every kind of file in it."""
    stages = targets(run)
    if not stages:
        return
    kinds = stages[dice.choice(sorted(stages))]
    kind = dice.choice(sorted(kinds))
    path = dice.choice(sorted(kinds[kind]))
    if dice.random() < damage_share and path.stat().st_size:
        damage(path, dice)
        tally.damaged[kind] += 1
    else:
        path.unlink()
        tally.removed[kind] += 1


def damage(path: Path, dice: random.Random) -> None:
    """Change 1, 16 or 512 bytes somewhere, in place: size and name stay, the modification time does not."""
    size = path.stat().st_size
    length = min(dice.choice((1, 16, 512)), size)
    at = dice.randrange(size - length + 1)
    with open(path, "r+b") as file:
        file.seek(at)
        old = file.read(length)
        file.seek(at)
        file.write(bytes(byte ^ dice.randrange(1, 256) for byte in old))


# --- what must come of it ---


def compare(one: Run, other: Run) -> list[str]:
    """How the files of `other` differ from those of `one`; empty where they do not."""
    return [*_differences(one.checkpoints, other.checkpoints), *_differences(one.results, other.results)]


def _differences(one: Path, other: Path) -> Iterator[str]:
    expected, found = _compared(one), _compared(other)
    yield from (f"{name} is missing" for name in sorted(expected - found))
    yield from (f"{name} should not be there" for name in sorted(found - expected))
    for name in sorted(expected & found):
        a, b = one / name, other / name
        if a.suffix == ".json":
            same = _without_times(read_json(a)) == _without_times(read_json(b))
        else:
            same = a.read_bytes() == b.read_bytes() or (a.suffix in (".h5", ".h5ad") and same_content(a, b))
        if not same:
            yield f"{name} differs"


def _compared(root: Path) -> set[str]:
    names = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.suffix in COMPARED)
    return {name for name in names if "manifests/" not in name and name != "run.json"}


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(each) for key, each in value.items() if key not in TIMES}
    return [_without_times(each) for each in value] if isinstance(value, list) else value


def same_content(one: Path, other: Path) -> bool:
    """Whether two HDF5 files hold the same, bit for bit: a byte that belongs to nothing may differ."""
    try:
        with h5py.File(one) as a, h5py.File(other) as b:
            return _content(a) == _content(b)
    except (OSError, RuntimeError, KeyError, ValueError):
        return False


def _content(file: h5py.File) -> dict[str, Any]:
    found: dict[str, Any] = {"": _attributes(file)}

    def add(name: str, item: Any) -> None:
        value = (item.dtype.str, item.shape, _bits(item[()])) if isinstance(item, h5py.Dataset) else None
        found[name] = (value, _attributes(item))

    file.visititems(add)
    return found


def _attributes(item: Any) -> dict[str, bytes]:
    return {name: _bits(value) for name, value in item.attrs.items()}


def _bits(value: Any) -> bytes:
    array = np.asarray(value)
    return repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes()


def check_end(undisturbed: Run, run: Run, tally: Tally, code: int | None, said: str) -> bool:
    """Note everything that is not as it should be after the run came to its end. Returns whether all is well."""
    problems = [] if code == 0 else [f"exit code {code}: {said.strip().splitlines()[-1:]}"]
    problems += [f"{stage.name} is not done" for stage in pending(run)]
    for root in (run.checkpoints, run.results, run.logs):
        problems += [f"{path} is left" for path in root.rglob(".*") if path.name.startswith(TEMPORARY)]
    problems += compare(undisturbed, run)
    tally.compared += 1
    tally.problems += problems
    for problem in problems[:SHOWN]:
        print(f"after {tally.kills.total()} kills: {problem}", file=sys.stderr, flush=True)
    return not problems


# --- all of it ---


def trial(folder: Path, arguments: argparse.Namespace) -> Tally:
    """Kill the run `arguments.kills` times, then let it end."""
    dice, tally, log = random.Random(arguments.seed), Tally(), folder / "log.txt"
    undisturbed, run = make_run(folder / "undisturbed"), make_run(folder / "killed")
    process = Process(undisturbed, log)
    if process.wait() != 0:
        raise SystemExit(f"the undisturbed run failed: {process.said}")
    seconds = _stage_seconds(undisturbed)
    while tally.kills.total() < arguments.kills:
        stages = pending(run)
        if not stages or dice.random() < arguments.disturb:
            disturb(run, dice, tally, arguments.damage)
            stages = pending(run) or stages
        process = Process(run, log)
        code = None
        if stages and dice.random() < 0.9:  # else at any moment since the start
            stage = dice.choices(stages, [1 / (1 + tally.kills[each.name]) for each in stages])[0].name
            code = process.wait(until_stage=stage)
            if code is None:
                code = process.wait(dice.uniform(0, seconds[stage]))
        else:
            code = process.wait(dice.uniform(0, sum(seconds.values())))
        if code is None:
            tally.kills[process.kill()] += 1
            if not arguments.json and tally.kills.total() % 10 == 0:
                print(f"{tally.kills.total()} kills, {len(tally.problems)} problems", flush=True)
        else:
            well = check_end(undisturbed, run, tally, code, process.said)
            if not well and not (folder / "first_problem").exists():  # to be looked at
                shutil.copytree(folder / "killed", folder / "first_problem")
            if not well or dice.random() < 0.3:
                _begin_anew(run)
    process = Process(run, log)
    check_end(undisturbed, run, tally, process.wait(), process.said)
    return tally


def _begin_anew(run: Run) -> None:
    """A run without a past."""
    for root in (run.checkpoints, run.results, run.logs):
        shutil.rmtree(root, ignore_errors=True)


def _stage_seconds(run: Run) -> dict[str, float]:
    manifests = [(stage.name, run.manifest_file(stage, task)) for stage in STAGES for task in range(run.n_tasks(stage))]
    found: dict[str, float] = {}
    for name, file in manifests:
        found[name] = found.get(name, 0.0) + json.loads(file.read_text())["seconds"]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed when; default: %(default)s")
    parser.add_argument(
        "--disturb",
        type=float,
        default=0.3,
        help="share of kills after which a file is removed or damaged; default: %(default)s",
    )
    parser.add_argument(
        "--damage", type=float, default=0.6, help="share of those files that is damaged; default: %(default)s"
    )
    parser.add_argument("--keep", type=Path, help="folder for the runs, which are then not removed")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        tally = trial(Path(arguments.keep or temporary).absolute(), arguments)
    for name, counts in (("kills by stage", tally.kills), ("removed", tally.removed), ("damaged", tally.damaged)):
        print(f"{name:15} {', '.join(f'{key} {counts[key]}' for key in sorted(counts)) or 'none'}")
    print(f"{'compared':15} {tally.compared} times with the undisturbed run")
    for problem in tally.problems[:SHOWN]:
        print(f"  {problem}")
    if len(tally.problems) > SHOWN:
        print(f"  and {len(tally.problems) - SHOWN} more")
    print(
        "PASS: everything is as in the undisturbed run"
        if not tally.problems
        else f"FAIL: {len(tally.problems)} problems"
    )
    if arguments.json:
        print(
            json.dumps(
                {
                    "name": "kills", "unit": "kills survived", "ours": tally.kills.total(), "peer": None, "peer_name": None,
                    "ratio": None, "limit": None, "share_of_limit": None, "kills": tally.kills, "removed": tally.removed,
                    "damaged": tally.damaged, "compared": tally.compared, "problems": tally.problems,
                }
            )
        )  # fmt: skip
    return 1 if tally.problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
