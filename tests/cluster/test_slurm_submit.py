"""What happens between a person and sbatch, against a real Slurm: nothing here lets a job run."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time

import pytest

from sae_genomics.cluster.jobs import read_jobs
from tests.cluster.slurm_cluster import cluster as slurm_cluster
from tests.cluster.tiny import TinyRun
from tests.stage_names import EVERY

pytestmark = pytest.mark.slurm

CHAIN = EVERY


@pytest.fixture
def held(tiny):
    """A run whose jobs stay pending."""
    tiny.profile["defaults"]["extra"] = ["--hold"]
    tiny.write()
    return tiny


def jobs_of(cluster) -> list[tuple[str, str]]:
    """(job, state) of what is queued, sorted; why it waits is told in other words as Slurm goes on thinking about it."""
    return sorted((job, state) for job, state, _ in cluster.queue())


def shadow(tiny, name: str, script: str) -> None:
    """Put a program before Slurm's own on PATH; `$real` is the real one, `$count` how often it was called before."""
    folder = tiny.folder / "bin"
    folder.mkdir(exist_ok=True)
    real = shutil.which(name, path=os.environ["PATH"])
    path = folder / name
    path.write_text(
        f"#!/usr/bin/env bash\nreal={real}\ncount=$(cat {folder}/{name}.count 2>/dev/null || echo 0)\n"
        f"echo $((count + 1)) >{folder}/{name}.count\n{script}\n"
    )
    path.chmod(0o755)
    tiny.environment = {**tiny.environment, "PATH": f"{folder}:{os.environ['PATH']}"}


def test_dry_run_prints_commands_that_sbatch_takes_and_writes_nothing(held, quiet):
    before = sorted(held.folder.rglob("*"))
    printed = held.pipeline("--dry-run").stdout
    assert [line.partition("=")[0] for line in printed.splitlines()] == CHAIN
    assert sorted(held.folder.rglob("*")) == before
    assert quiet.queue() == []
    # The very text that was printed, run by a shell, submits the chain.
    done = subprocess.run(
        ["bash", "-euc", printed + "\necho $prepare $extract $train $associate $validate $report"],
        env={**held.environment, "PATH": os.environ["PATH"]}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {job.partition("_")[0] for job, _, _ in quiet.queue()} == set(done.stdout.split())


def test_chain_of_dependencies_and_job_list(held, quiet):
    held.pipeline()
    jobs = {job.stage: job for job in read_jobs(held.run)}
    assert list(jobs) == CHAIN
    assert jobs["extract"].array.partition("%")[0] == "0-1"
    assert jobs["extract"].dependency == f"afterok:{jobs['prepare'].job}"
    assert jobs["train"].dependency == f"afterok:{jobs['extract'].job}"
    assert jobs["associate"].dependency == f"aftercorr:{jobs['train'].job}"
    assert jobs["validate"].dependency == f"aftercorr:{jobs['associate'].job}"
    assert jobs["report"].dependency == "afterany:" + ":".join(jobs[stage].job for stage in CHAIN[:-1])
    shown = quiet.run("scontrol", "show", "job", jobs["train"].job).stdout
    assert "Requeue=1" in shown
    assert "TimeLimit=00:30:00" in shown
    assert "MinMemoryNode=1500M" in shown
    assert jobs["train"].error == f"{held.run.logs}/train_%A_%a.err"


def test_submitting_twice_submits_nothing_twice(held, quiet):
    held.pipeline()
    before = jobs_of(quiet)
    again = held.pipeline()
    assert "nothing to submit: what is not done is in the queue already (10 tasks)" in again.stderr
    assert jobs_of(quiet) == before
    assert len(read_jobs(held.run)) == len(CHAIN)
    # Without the list of jobs, the queue itself tells.
    held.run.jobs_file.unlink()
    held.pipeline()
    assert jobs_of(quiet) == before


def test_part_of_a_chain_is_completed_not_repeated(held, quiet):
    """Someone's terminal closed in the middle of submitting, and one array was cancelled by hand."""
    held.pipeline()
    jobs = {job.stage: job.job for job in read_jobs(held.run)}
    quiet.run("scancel", jobs["validate"], jobs["report"])
    quiet.wait(lambda: len({job.partition("_")[0] for job, _, _ in quiet.queue()}) == 4, "two jobs gone")
    held.pipeline()
    new = read_jobs(held.run)[len(CHAIN) :]
    assert [job.stage for job in new] == ["validate", "report"]
    assert new[0].dependency == f"aftercorr:{jobs['associate']}"
    assert set(new[1].dependency.removeprefix("afterany:").split(":")) == {
        new[0].job,
        *(jobs[stage] for stage in CHAIN[:4]),
    }


def test_sbatch_failing_twice_then_working(held, quiet):
    shadow(
        held, "sbatch",
        'if ((count == 2 || count == 3)); then echo "sbatch: error: Batch job submission failed: Unexpected message received" >&2; exit 1; fi\n'
        'exec "$real" "$@"',
    )  # fmt: skip
    done = held.pipeline()
    assert done.stderr.count("Unexpected message received; trying again in") == 2
    assert len({job.partition("_")[0] for job, _, _ in quiet.queue()}) == len(CHAIN)


def test_an_answer_that_got_lost_is_found(held, quiet):
    """sbatch had submitted, but says that it timed out: trying again must not queue the array twice."""
    shadow(
        held, "sbatch",
        'if ((count == 1)); then "$real" "$@" >/dev/null; echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2; exit 1; fi\n'
        'exec "$real" "$@"',
    )  # fmt: skip
    held.pipeline()
    jobs = read_jobs(held.run)
    assert [job.stage for job in jobs] == CHAIN
    assert {job.partition("_")[0] for job, _, _ in quiet.queue()} == {job.job for job in jobs}


def test_refused_for_good_is_one_line_and_takes_back_what_was_submitted(held, quiet):
    held.profile["stages"] = {"train": {"partition": "nope"}}
    held.write()
    done = held.pipeline(check=False)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "sbatch refused train" in errors[0]
    assert "invalid partition specified: nope" in errors[0]
    assert f"change stages.train.partition (nope) in {held.folder}/cluster.yaml" in errors[0]
    assert "the 2 jobs of this call that were submitted are cancelled" in errors[0]
    assert "Traceback" not in done.stderr
    quiet.wait(lambda: not quiet.queue(), "everything cancelled", 20)


@pytest.fixture(scope="module")
def strict():
    """A Slurm that refuses at once what no partition allows, as many sites set it."""
    with slurm_cluster(nodes=1, cpus=1, settings={"EnforcePartLimits": "ANY"}) as made:
        yield made


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"memory": "900G"}, "memory (900G)"), ({"cpus": 64}, "cpus (64)"), ({"gres": "fpga:1"}, "gres (fpga:1)"),
        ({"constraint": "moon"}, "constraint (moon)"), ({"partition": "nope"}, "partition (nope)"),
    ],
)  # fmt: skip
def test_what_no_node_has_is_told_with_the_key_to_change(strict, tmp_path, asked, words):
    tiny = TinyRun(tmp_path / "run", strict.environment)
    tiny.profile["stages"] = {"prepare": asked}
    tiny.write()
    done = tiny.pipeline(check=False)
    assert done.returncode == 2
    assert f"change stages.prepare.{words} in {tiny.folder}/cluster.yaml" in done.stderr
    assert strict.queue() == []


def test_two_people_at_once(held, quiet):
    shadow(held, "sbatch", 'sleep 4; exec "$real" "$@"')
    first = held.start("slurm/00_full_pipeline.sh")
    lock = held.run.logs / "lock"
    quiet.wait(lock.exists, "the lock", 60)
    done = held.pipeline(check=False)
    assert done.returncode == 2
    pattern = rf"run tiny is locked by \w+ on {re.escape(socket.gethostname())} \(process {first.pid}\), submitting it to Slurm, since \d{{4}}-"
    assert re.search(pattern, done.stderr)
    assert first.wait(120) == 0
    assert not lock.exists()
    assert [job.stage for job in read_jobs(held.run)] == CHAIN
    assert "nothing to submit" in held.pipeline().stderr


def test_jobs_of_other_settings_are_not_mixed_with(held, quiet):
    held.pipeline()
    before = jobs_of(quiet)
    held.values["sae"]["k"] = 8
    held.write()
    done = held.pipeline(check=False)
    assert done.returncode == 2
    assert re.search(r"train has other settings now: wait for them, or scancel [\d ]+, then", done.stderr)
    assert jobs_of(quiet) == before


def test_read_only_run_folder(held, quiet):
    logs = held.folder / "logs"
    logs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", str(logs)], check=True)
    try:
        done = held.pipeline(check=False)
    finally:
        subprocess.run(["umount", str(logs)], check=True)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "the file system is read-only" in errors[0]
    assert str(logs) in errors[0]
    assert quiet.queue() == []


def test_a_dependency_that_can_never_be_satisfied(held, quiet):
    """Sites may keep such jobs in the queue for ever; resubmitting cancels them and builds the chain anew."""
    held.profile["defaults"]["extra"] = ["--kill-on-invalid-dep=no"]
    held.write()
    quiet.run("scontrol", "update", "nodename=n1,n2", "state=drain", "reason=test")
    held.pipeline()
    first = {job.stage: job.job for job in read_jobs(held.run)}
    quiet.run("scancel", first["extract"] + "_1")
    quiet.run("scancel", first["prepare"])  # fails its dependants for good, without taking them from the queue
    quiet.wait(
        lambda: any(reason == "DependencyNeverSatisfied" for _, _, reason in quiet.queue()),
        "a job that can never start",
        60,
    )
    said = held.status()
    assert "DependencyNeverSatisfied" in said
    held.resubmit()
    jobs = read_jobs(held.run)[len(CHAIN) :]
    assert [job.stage for job in jobs] == CHAIN
    quiet.wait(
        lambda: {job.partition("_")[0] for job, _, _ in quiet.queue()} == {job.job for job in jobs},
        "only the new chain",
        30,
    )


def test_profile_mistakes_are_named_before_anything_is_submitted(held, quiet):
    held.profile["defaults"]["partitoin"] = "shared"
    held.write()
    done = held.pipeline(check=False)
    assert done.returncode == 2
    assert "unknown key defaults.partitoin; did you mean partition?" in done.stderr
    assert quiet.queue() == []


def test_controller_away_for_a_moment_and_for_good(held, quiet):
    held.profile.update(submit_tries=2, submit_wait_seconds=0.1)
    held.write()
    quiet.stop_controller()
    try:
        done = held.pipeline(check=False)
        assert done.returncode == 2
        assert "squeue gives no answer, so what is queued already cannot be told" in done.stderr
        held.profile.update(submit_tries=20, submit_wait_seconds=0.5)
        held.write()
        waiting = held.start("slurm/00_full_pipeline.sh", "--slurm")
        time.sleep(3)
    finally:
        quiet.start_controller()
    _, said = waiting.communicate(timeout=120)
    assert waiting.returncode == 0, said
    assert [job.stage for job in read_jobs(held.run)] == CHAIN
    quiet.stop_controller()
    try:
        assert "squeue gives no answer" in held.status()
    finally:
        quiet.start_controller()


def test_no_local_run_beside_jobs_in_the_queue(held, quiet):
    held.pipeline()
    done = held.pipeline("--local", check=False)
    assert done.returncode == 2
    assert re.search(r"has jobs in the queue: wait for them .* or scancel [\d ]+, then", done.stderr)
    assert held.state("prepare") == "missing"


def test_status_in_json(held, quiet):
    held.pipeline()
    states = {key: task["state"] for key, task in held.tasks().items()}
    assert set(states.values()) == {"queued"}
    assert json.loads(held.status("--json"))["scheduler_problem"] == ""


def test_parts_of_a_stage_share_one_throttle(extracted, quiet):
    """MaxArraySize cuts three layers into three arrays; two nodes are free for them."""
    extracted.profile.update(max_array_size=1, stages={"train": {"throttle": 1}})
    extracted.write()
    extracted.pipeline()
    trains = [job for job in read_jobs(extracted.run) if job.stage == "train"]
    assert len(trains) == 3
    assert [job.dependency for job in trains] == ["", f"afterany:{trains[0].job}", f"afterany:{trains[1].job}"]
    ours, at_once = {job.job for job in trains}, [0]

    def trained() -> bool:
        states = [state for job, state, _ in quiet.queue() if job.partition("_")[0] in ours]
        at_once.append(states.count("RUNNING"))
        return not states

    quiet.wait(trained, "three layers trained", 240)
    assert max(at_once) == 1
    assert [extracted.state("train", task) for task in range(3)] == ["done"] * 3
