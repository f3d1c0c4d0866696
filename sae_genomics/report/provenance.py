"""What was run, with what, where and for how long: from the config, the manifests and the checkout."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sae_genomics import __version__
from sae_genomics.checked_json import read_if_whole
from sae_genomics.run import Run
from sae_genomics.stages import stages_of


@dataclass
class StageCost:
    """What a stage's finished tasks took. seconds: wall time per task. peak_memory: bytes, the largest of them."""

    stage: str
    seconds: list[float] = field(default_factory=list)
    peak_memory: int = 0
    hosts: Counter[str] = field(default_factory=Counter)


@dataclass
class Provenance:
    """costs: of stages with a finished task. versions: package -> versions met. commit: of the checkout, or empty."""

    costs: list[StageCost] = field(default_factory=list)
    versions: dict[str, list[str]] = field(default_factory=dict)
    commit: str = ""
    dirty: bool = False


def gather(run: Run, unfinished: Collection[tuple[str, str]]) -> Provenance:
    """Read the manifests of every task but the unfinished ones, (stage, unit) each. Unreadable ones are passed over."""
    costs, versions = [], {"sae_genomics": Counter({__version__: 1})}
    for stage in stages_of(run):
        if stage.partial:
            continue
        cost = StageCost(stage.name)
        for task in range(run.n_tasks(stage)):
            if (stage.name, run.unit_key(stage, task)) in unfinished:
                continue
            manifest = read_if_whole(run.manifest_file(stage, task))
            if manifest is not None:
                _add(cost, versions, manifest)
        if cost.seconds:
            costs.append(cost)
    commit, dirty = git_commit(Path(__file__).resolve().parents[2])
    return Provenance(costs, {name: sorted(met) for name, met in versions.items()}, commit, dirty)


def _add(cost: StageCost, versions: dict[str, Counter[str]], manifest: dict[str, Any]) -> None:
    seconds, peak, host = manifest.get("seconds"), manifest.get("peak_memory_bytes"), manifest.get("host")
    if isinstance(seconds, (int, float)):
        cost.seconds.append(float(seconds))
    if isinstance(peak, (int, float)):
        cost.peak_memory = max(cost.peak_memory, int(peak))
    if host:
        cost.hosts[str(host)] += 1
    met = manifest.get("versions")
    for name, version in (met if isinstance(met, dict) else {}).items():
        versions.setdefault(str(name), Counter())[str(version)] += 1


def git_commit(root: Path) -> tuple[str, bool]:
    """Commit of the checkout whose top folder is `root`, and whether tracked files differ from it; ("", False) elsewhere.

    An installed package may stand inside somebody else's repository: only one that begins at `root` is meant.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return "", False
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return "", False
