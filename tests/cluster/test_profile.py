"""Cluster profiles: those that ship, what they turn into, and mistakes in them."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from sae_genomics.cluster.arrays import Array, Change
from sae_genomics.cluster.profile import FOLDERS, Profile, doubled, load_profile, memory_mb
from sae_genomics.cluster.resubmit import check_requests
from sae_genomics.cluster.sbatch import directive, make_call, script_of
from sae_genomics.config import ClusterConfig
from sae_genomics.errors import UserError
from sae_genomics.stages import STAGES, stage_named

SHIPPED = sorted(path.stem for path in FOLDERS[1].glob("*.yaml"))


def options(run, profile: Profile, stage: str, **keywords) -> list[str]:
    array = Array(stage, stage_named(stage), (0, 2), 0, 1, (0, 2), (), **keywords)
    return make_call(run, profile, array, Path("copy.yaml")).command({})


def test_the_five_promised_profiles_ship():
    assert {"default", "cpu_only", "gpu_a100", "gpu_h100", "durham_ncc"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profile_is_valid_and_explains_itself(name, make_run):
    text = (FOLDERS[1] / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    profile = load_profile(ClusterConfig(profile=name))
    for stage in STAGES:
        command = options(make_run(), profile, stage.name)
        assert command[0] == "sbatch"
        if not stage.gpu:
            assert not any(word.startswith(("--gres", "--gpus")) for word in command)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_stage_has_a_batch_script_with_working_defaults(stage):
    for option in ("job-name", "cpus-per-task", "mem", "time", "signal"):
        assert directive(script_of(stage), option)


def test_profile_overrides_the_script_and_a_stage_the_defaults(make_run):
    values = {
        "defaults": {"memory": "8G", "partition": "a", "gres": "gpu:a100:1", "throttle": 7, "extra": ["--nice"]},
        "stages": {"train": {"partition": "b"}},
    }
    profile = Profile.model_validate(values)
    command = options(make_run(), profile, "train", throttle=7)
    assert {"--partition=b", "--mem=8G", "--gres=gpu:a100:1", "--array=0,2%7", "--nice"} <= set(command)
    assert "--partition=a" in options(make_run(), profile, "associate")
    assert not any(word.startswith("--gres") for word in options(make_run(), profile, "validate"))
    changed = options(make_run(), profile, "train", change=Change(memory="16G", time="2:00:00"))
    assert {"--mem=16G", "--time=2:00:00"} <= set(changed)
    assert "--mem=8G" not in changed


@pytest.mark.parametrize(
    ("request_", "count", "expected"),
    [({"gres": "gpu:a100:1"}, 2, "--gres=gpu:a100:2"), ({"gres": "gpu"}, 3, "--gres=gpu:3"), ({"gpus": 1}, 2, "--gpus=2"), ({"gpus": "h100:1"}, 4, "--gpus=h100:4")],
)  # fmt: skip
def test_gpus_per_task_changes_the_count_alone(make_run, request_, count, expected):
    profile = Profile.model_validate({"defaults": request_})
    assert expected in options(make_run(sae={"gpus_per_task": count}), profile, "train")
    assert not any(
        word.startswith(("--gres", "--gpus")) for word in options(make_run(sae={"gpus_per_task": 0}), profile, "train")
    )


def test_mail_goes_to_the_report_on_its_end(make_run):
    profile = Profile.model_validate({"mail": {"address": "me@example.org", "events": ["FAIL", "TIME_LIMIT_80"]}})
    assert "--mail-type=FAIL,TIME_LIMIT_80" in options(make_run(), profile, "train")
    assert "--mail-type=END,FAIL" in options(make_run(), profile, "report")
    assert "--mail-user=me@example.org" in options(make_run(), profile, "report")


def test_extra_options_replace_ours(make_run):
    profile = Profile.model_validate({"defaults": {"extra": ["--signal=B:USR1@30", "--no-requeue"]}})
    command = options(make_run(), profile, "train")
    assert [word for word in command if word.startswith("--signal")] == ["--signal=B:USR1@30"]


def test_environment_variables_of_each_kind():
    environment = Profile.model_validate(
        {"environment": {"kind": "apptainer", "image": "/i.sif", "binds": ["/a", "/b:/c"], "modules": ["x/1", "y"]}}
    ).environment
    assert environment.variables(gpu=True) == {
        "SAE_GENOMICS_ENVIRONMENT": "apptainer", "SAE_GENOMICS_IMAGE": "/i.sif", "SAE_GENOMICS_BINDS": "/a,/b:/c",
        "SAE_GENOMICS_MODULES": "x/1 y", "SAE_GENOMICS_NV": "1",
    }  # fmt: skip
    assert "SAE_GENOMICS_NV" not in environment.variables(gpu=False)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"defaults": {"partitoin": "x"}}, "unknown key defaults.partitoin; did you mean partition?"),
        ({"scrach": "/tmp"}, "unknown key scrach; did you mean scratch?"),
        ({"stages": {"trian": {}}}, "trian is no stage; did you mean train?"),
        ({"stages": {"train": {"mem": "1G"}}}, "unknown key stages.train.mem; did you mean memory?"),
        ({"defaults": {"time": 43200}}, "defaults.time = 43200: is a Slurm time in quotes"),
        ({"defaults": {"time": "soon"}}, "is a Slurm time in quotes"),
        ({"defaults": {"memory": 64}}, "is an amount with a unit, for example 64G"),
        ({"defaults": {"memory": "64"}}, "defaults.memory = '64': is an amount with a unit, for example 64G"),
        ({"stages": {"train": {"memory": "64B"}}}, "stages.train.memory = '64B': is an amount with a unit"),
        ({"max_memory": "256"}, "max_memory = '256': is an amount with a unit"),
        (
            {"defaults": "fast"},
            "defaults = 'fast': takes keys of its own on the lines below it, for example partition: ...",
        ),
        ({"stages": {"train": 8}}, "stages.train = 8: takes keys of its own on the lines below it"),
        ({"stages": 8}, "stages = 8: takes stages of its own on the lines below it, for example prepare: ..."),
        (
            {"mail": "me@example.org"},
            "mail = 'me@example.org': takes keys of its own on the lines below it, for example address",
        ),
        ({"mail": {"events": "FAIL"}}, "mail.events = 'FAIL': is a list; write it in brackets, for example [FAIL]"),
        ({"environment": {"kind": "docker"}}, "should be 'venv', 'conda', 'modules' or 'apptainer'"),
    ],
)
def test_mistakes_are_named_with_the_nearest_key(overrides, words):
    with pytest.raises(UserError) as error:
        load_profile(ClusterConfig(overrides=overrides))
    assert words in str(error.value)
    assert "default.yaml" in str(error.value)


def test_choice_of_a_profile(monkeypatch, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("defaults:\n  time: 12:00:00\n  cpus: 3\n")
    monkeypatch.setenv("SAE_GENOMICS_CLUSTER", str(own))
    assert load_profile(ClusterConfig()).defaults.time == "12:00:00"  # unquoted, and not 43200 seconds
    assert load_profile(ClusterConfig(profile="durham_ncc")).defaults.throttle == 2
    with pytest.raises(UserError, match="did you mean gpu_a100"):
        load_profile(ClusterConfig(profile="gpu_a10"))
    own.write_text("- a\n")
    with pytest.raises(UserError, match="is a mapping"):
        load_profile(ClusterConfig())
    own.write_text("a: [\n")
    with pytest.raises(UserError, match="not valid YAML"):
        load_profile(ClusterConfig())


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_doubling_stops_at_the_cap_and_never_shrinks(megabytes, cap):
    after = memory_mb(doubled(f"{megabytes}M", f"{cap}M"))
    assert after == max(megabytes, min(2 * megabytes, cap))


@pytest.mark.parametrize(
    ("text", "expected"), [("64G", 65536), ("1T", 1048576), ("900M", 900), ("900", 900), ("2048K", 2), ("8g", 8192)]
)
def test_memory_in_mebibytes(text, expected):
    assert memory_mb(text) == expected


@pytest.mark.parametrize("amount", ["64", "64B", "lots"])
def test_memory_that_is_typed_needs_a_unit_too(amount):
    with pytest.raises(UserError, match=f"--mem {amount}: is an amount with a unit, for example 64G"):
        check_requests(memory=amount, time=None)
    check_requests(memory="64G", time="1:00:00")


def test_a_heading_with_nothing_but_comments_below_it_says_nothing(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("defaults:\n  # partition: shared\nstages:\n  train:\n    # memory: 9G\nmail:\n")
    profile = load_profile(ClusterConfig(profile=str(own)))
    assert profile.resources("train", gpu=True) == Profile().resources("train", gpu=True)
    assert profile.mail == Profile().mail
