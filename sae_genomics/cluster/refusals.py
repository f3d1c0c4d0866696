"""Which setting to change when sbatch refuses what a profile asks for: the key, its value and the file where it stands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sae_genomics.cluster.profile import Profile, profile_file
from sae_genomics.cluster.sbatch import Call, directive, gpus_set, resources_of, script_of
from sae_genomics.commands import config_path, path_words
from sae_genomics.run import Run

_NODE = ("cpus", "memory", "gres", "gpus", "constraint")
# What sbatch says, and the profile's keys that it may mean; the first that fits counts.
_CAUSES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"CPU count|processors requested|cpus-per-task", ("cpus",)),
    (r"[Mm]emory", ("memory",)),
    (r"generic resource|gres|GPU|TRES", ("gres", "gpus")),
    (r"account", ("account", "partition")),
    (r"accounting/QOS policy|QOS\w*Limit|AssocMax\w*|AssocGrp\w*", ("qos", "time", "memory", "throttle")),
    (r"qos|QOS", ("qos",)),
    (r"partition", ("partition",)),
    (r"time limit|Time limit", ("time",)),
    (r"feature|constraint", ("constraint",)),
    (r"node configuration|Node count", _NODE),
)
_OPTIONS = {
    "cpus": "cpus-per-task",
    "memory": "mem",
    "time": "time",
}  # that a stage's script sets where the profile does not


def what_to_change(run: Run, profile: Profile, call: Call, problem: str) -> str:
    """`; change stages.train.cpus (64) in configs/clusters/mine.yaml`; empty when no setting of the profile is to blame."""
    keys = next((keys for pattern, keys in _CAUSES if re.search(pattern, problem)), ())
    found = [text for key in keys if (text := _setting(run, profile, call, key))]
    if found:
        return f"; change {' or '.join(found)}"
    # Nothing is asked for, and just that may be refused: many sites have no default account, partition or time limit.
    name = call.array.stage.name
    return f"; set stages.{name}.{keys[0]} or defaults.{keys[0]} in {_file(run)}" if keys else ""


def _setting(run: Run, profile: Profile, call: Call, key: str) -> str:
    """Where a key's value stands; empty when nothing sets it."""
    stage, change = call.array.stage, call.array.change
    typed = {"memory": change.memory, "time": change.time}.get(key)
    if typed:
        return f"--{_OPTIONS[key]} ({typed})"
    value = getattr(resources_of(run, profile, stage), key)
    if key in ("gres", "gpus") and value is not None and (count := gpus_set(run, stage)) is not None:
        return f"{stage.gpus_key} ({count}) in {path_words(config_path(run))}"
    if value is not None:
        return _where(run, profile, stage.name, key, value)
    script = script_of(stage)
    asked = directive(script, _OPTIONS[key]) if key in _OPTIONS else None
    if not asked:
        return ""
    return f"what {path_words(script)} asks for ({asked}): set stages.{stage.name}.{key} in {_file(run)}"


def _where(run: Run, profile: Profile, stage: str, key: str, value: Any) -> str:
    own = profile.stages.get(stage)
    section = ("stages", stage) if own is not None and key in own.model_fields_set else ("defaults",)
    name = ".".join((*section, key))
    over: Any = run.config.cluster.overrides
    for part in (*section, key):
        over = over.get(part) if isinstance(over, Mapping) else None
    if over is not None:
        return f"cluster.overrides.{name} ({value}) in {path_words(config_path(run))}"
    return f"{name} ({value}) in {_file(run)}"


def _file(run: Run) -> str:
    return path_words(profile_file(run.config.cluster).absolute())
