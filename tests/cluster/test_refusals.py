"""What sbatch refuses, in the words that Slurm 22.05 and others use, is told with the key and the file to change."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sae_genomics.cluster.arrays import Array, Change
from sae_genomics.cluster.profile import load_profile
from sae_genomics.cluster.refusals import what_to_change
from sae_genomics.cluster.sbatch import make_call
from sae_genomics.stages import stage_named

PROFILE = {
    "defaults": {"partition": "gpu", "memory": "8G", "cpus": 4, "gres": "gpu:a100:1", "account": "acc", "qos": "long"},
    "stages": {"train": {"cpus": 64}},
}


@pytest.fixture
def change(make_run, tmp_path):
    """change(problem, sections of the config, what was typed) -> the hint, for the stage train."""
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(PROFILE))

    def call(problem: str, typed: Change | None = None, **sections: dict) -> str:
        sections["cluster"] = {"profile": str(own), **sections.get("cluster", {})}
        run = make_run(**sections)
        profile = load_profile(run.config.cluster)
        array = Array("train", stage_named("train"), (0,), 0, 1, (0,), (), change=typed or Change())
        return what_to_change(run, profile, make_call(run, profile, array, Path("copy.yaml")), problem)

    call.file = own
    return call


@pytest.mark.parametrize(
    ("problem", "keys"),
    [
        ("Batch job submission failed: Invalid partition name specified; invalid partition specified: gpu", "defaults.partition (gpu)"),
        ("CPU count per node can not be satisfied; Batch job submission failed: Requested node configuration is not available", "stages.train.cpus (64)"),
        ("Batch job submission failed: More processors requested than permitted", "stages.train.cpus (64)"),
        ("Batch job submission failed: Requested node configuration is not available; Memory specification can not be satisfied", "defaults.memory (8G)"),
        ("Batch job submission failed: Memory required by task is not available", "defaults.memory (8G)"),
        ("Invalid generic resource (gres) specification", "defaults.gres (gpu:a100:1)"),
        ("Batch job submission failed: Invalid qos specification", "defaults.qos (long)"),
    ],
)  # fmt: skip
def test_the_key_is_named_with_its_value_and_file(change, problem, keys):
    assert change(problem) == f"; change {keys} in {change.file}"


def test_a_problem_with_several_possible_causes_names_them_all(change):
    hint = change("Batch job submission failed: Invalid account or account/partition combination specified")
    assert hint == f"; change defaults.account (acc) in {change.file} or defaults.partition (gpu) in {change.file}"
    hint = change("Batch job submission failed: Requested node configuration is not available")
    assert all(key in hint for key in ("stages.train.cpus", "defaults.memory", "defaults.gres"))


def test_the_value_may_stand_elsewhere(change, tmp_path):
    cpus = "CPU count per node can not be satisfied"
    over = {"overrides": {"defaults": {"partition": "x"}, "stages": {"train": {"cpus": 99}}}}
    assert change(cpus, cluster=over) == f"; change cluster.overrides.stages.train.cpus (99) in {tmp_path / 't.yaml'}"
    time = "Requested time limit is invalid (missing or exceeds some limit)"
    script = "slurm/03_train.sh asks for (08:00:00): set stages.train.time in"
    assert change(time) == f"; change what {script} {change.file}"
    assert change(time, Change(time="99:00:00")) == "; change --time (99:00:00)"
    assert change("Memory specification can not be satisfied", Change("900G")) == "; change --mem (900G)"
    gres = "Invalid generic resource (gres) specification"
    assert change(gres, sae={"gpus_per_task": 9}) == f"; change sae.gpus_per_task (9) in {tmp_path / 't.yaml'}"


def test_what_is_not_set_is_to_be_set(change):
    hint = change("Batch job submission failed: Invalid feature specification")
    assert hint == f"; set stages.train.constraint or defaults.constraint in {change.file}"
    assert change("Batch job submission failed: the moon is full") == ""
