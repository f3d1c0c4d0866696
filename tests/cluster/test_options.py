"""sbatch options and variables that would hide a run's jobs from us, so that they were queued twice."""

from __future__ import annotations

import os

import pytest

from sae_genomics.cluster.options import check_environment
from sae_genomics.cluster.profile import Profile, load_profile
from sae_genomics.cluster.queue import read_queue
from sae_genomics.cluster.submit import submit
from sae_genomics.config import ClusterConfig
from sae_genomics.errors import UserError
from tests.cluster.test_profile import options


def extra(*words: str) -> Profile:
    return Profile.model_validate({"stages": {"train": {"extra": list(words)}}})


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--job-name=mine"], "--job-name"), (["--job-name", "mine"], "--job-name"), (["--job-n=mine"], "--job-name"),
        (["-J", "mine"], "--job-name"), (["-Jmine"], "--job-name"), (["-HJ", "mine"], "--job-name"),
        (["--job-name mine"], "--job-name"), (["--comment=x"], "--comment"), (["--comm", "x"], "--comment"),
        (["--dependency=afterok:1"], "--dependency"), (["-d", "singleton"], "--dependency"), (["--dep=1"], "--dependency"),
        (["--array=0-3"], "--array"), (["-a0-3"], "--array"), (["--parsable"], "--parsable"), (["-Q"], "--quiet"),
        (["--nice", "-W"], "--wait"), (["-p", "shared", "--output=x"], "--output"), (["-M", "other"], "--clusters"),
        (["--cluster=other"], "--clusters"), (["--wrap=ls"], "--wrap"), (["--test-only"], "--test-only"),
    ],
)  # fmt: skip
def test_options_that_the_pipeline_lives_by_are_refused_in_every_spelling(words, named):
    with pytest.raises(UserError) as error:
        load_profile(ClusterConfig(overrides={"stages": {"train": {"extra": words}}}))
    assert named in str(error.value)
    assert "stages.train.extra" in str(error.value)
    assert "cannot be set here" in str(error.value)


@pytest.mark.parametrize("words", [["shared"], ["--nice=5", "shared"], ["--hold", "x.sh"], ["-p", "a", "b"]])
def test_a_word_that_sbatch_would_take_as_its_script_is_refused(words):
    with pytest.raises(UserError, match=r"belongs to no option; write an option and its value as --name=value"):
        load_profile(ClusterConfig(overrides={"defaults": {"extra": words}}))


@pytest.mark.parametrize(
    "words",
    [
        ["-p", "shared"], ["-pshared"], ["--partition", "shared"], ["--nice"], ["--hold"], ["-H"], ["--wait-all-nodes=1"],
        ["--mem-per-cpu=2G"], ["--cluster-constraint=x"], ["-n4"], ["--no-kill"], ["--reservation", "mine", "-t", "30"],
    ],
)  # fmt: skip
def test_other_options_reach_sbatch_as_they_were_typed(make_run, words):
    command = options(make_run(), extra(*words), "train")
    first = command.index(words[0])
    assert command[first : first + len(words)] == words
    assert "--kill-on-invalid-dep=yes" in command


def test_a_profile_replaces_our_manners_also_when_it_abbreviates_them(make_run):
    command = options(make_run(), extra("--sig=B:USR1@30", "--no-requeue"), "train")
    assert [word for word in command if word.startswith("--sig")] == ["--sig=B:USR1@30"]
    assert "--requeue" not in command


@pytest.mark.parametrize("variable", ["SBATCH_ARRAY_INX", "SBATCH_CLUSTERS", "SBATCH_WAIT"])
def test_the_same_by_way_of_the_environment(make_run, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(UserError, match=f"{variable} .*type: unset {variable}"):
        submit(make_run(), dry_run=True)
    check_environment({variable: ""})


def test_a_persons_own_filters_hide_no_job(make_run, tmp_path, monkeypatch):
    """SQUEUE_STATES=R hides what is queued: it would be submitted once more."""
    run = make_run()
    squeue = tmp_path / "squeue"
    squeue.write_text('#!/bin/sh\n[ -z "$SQUEUE_STATES" ] || { echo "hidden" >&2; exit 1; }\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SQUEUE_STATES", "R")
    assert read_queue(run)[1].code == 0
