"""Whole pipelines on a real Slurm, and what goes wrong on clusters: killed, cancelled, starved, cut off, powered down."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from sae_genomics.atomic import read_json
from sae_genomics.cluster.attempts import attempts_of
from sae_genomics.cluster.jobs import read_jobs
from sae_genomics.sae.fit_layer import CHECKPOINT_FILE
from sae_genomics.stages import stage_named
from tests.cluster.slurm_cluster import SlurmCluster
from tests.cluster.slurm_cluster import cluster as slurm_cluster
from tests.cluster.tiny import TinyRun, process_of, processes_of
from tests.stage_names import OF_LAYERS

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="session")
def undisturbed(template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, str]]:
    """Hashes of each layer's results of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    shutil.copytree(template, folder)
    run = TinyRun(folder, dict(os.environ), layers=(0, 1, 2))
    run.pipeline("--local")
    return {layer: run.results(layer) for layer in run.run.layers}


def ended(cluster: SlurmCluster, run: TinyRun, since: int = 0) -> Counter[tuple[str, str]]:
    """(stage, index or run) to how often Slurm's job log says that a task of the run ended, from line `since` on."""
    rows = cluster.completed()[since:]
    prefix = f"sae-{run.run.name}-"
    return Counter(
        (row["Name"].removeprefix(prefix), row.get("ArrayTaskId", "run")) for row in rows if row.get("NodeList")
    )


def dict_of(counts: Counter[tuple[str, str]]) -> dict[str, int]:
    return {" ".join(key): count for key, count in sorted(counts.items())}


def wait_for_process(cluster: SlurmCluster, run: TinyRun, stage: str, index: int, seconds: float = 240) -> int:
    """Wait until an array task's Python is there; returns its pid."""
    pids: list[int] = []

    def there() -> bool:
        pid = process_of(run.folder, stage, index)
        if pid:
            pids.append(pid)
        return bool(pid)

    cluster.wait(there, f"{stage} {index} to start", seconds)
    return pids[-1]


def test_killed_layers_stop_only_themselves_and_are_run_again_alone(extracted, quiet, undisturbed, figure):
    """One task killed by SIGKILL, one cancelled: the third layer goes on, the report names the two, resubmitting runs the two."""
    run = extracted
    run.pipeline()
    train = next(job.job for job in read_jobs(run.run) if job.stage == "train")
    os.kill(wait_for_process(quiet, run, "train", 0), signal.SIGKILL)
    wait_for_process(quiet, run, "train", 1)
    quiet.run("scancel", f"{train}_1")
    quiet.wait_until_empty(600)

    assert [run.state("validate", task) for task in range(3)] == ["missing", "missing", "done"]
    assert run.results(2) == undisturbed[2]
    assert "cancelled: saved, and not requeued" in run.logs()
    report = run.run.report_file.read_text()
    assert re.search(r"train \| layer 00 .*SIGKILL", report), report
    assert re.search(r"train \| layer 01 .*CANCELLED", report), report
    assert "slurm/resubmit_failed.sh" in report
    tasks = run.tasks()
    assert (tasks["train", "layer_00"]["state"], tasks["train", "layer_01"]["state"]) == ("failed", "failed")
    assert "SIGKILL" in tasks["train", "layer_00"]["note"]
    assert tasks["train", "layer_01"]["kind"] == "CANCELLED"
    assert tasks["associate", "layer_00"]["state"] == "missing"
    assert "slurm/resubmit_failed.sh" in run.status()

    before = len(quiet.completed())
    run.resubmit()
    quiet.wait_until_empty(600)
    figure(
        tasks_submitted_first=sum(len(job.indices or [0]) for job in read_jobs(run.run)[:4]),
        run_again=dict_of(ended(quiet, run, before)),
    )
    two_chains = {(stage, index): 1 for stage in OF_LAYERS for index in ("0", "1")}
    assert ended(quiet, run, before) == {**two_chains, ("report", "run"): 1}
    assert run.all_done()
    assert {layer: run.results(layer) for layer in (0, 1, 2)} == undisturbed
    assert "nothing to submit" in run.pipeline().stderr
    assert "next: read" in run.status()


def test_out_of_memory_is_named_and_doubled(extracted, quiet, undisturbed, figure):
    run = extracted
    run.profile["stages"] = {"train": {"memory": "100M"}}
    run.profile["max_memory"] = "1600M"
    run.write()
    run.pipeline("--set", "model.layers=[0]")
    quiet.wait_until_empty(600)
    task = run.tasks()["train", "layer_00"]
    assert (task["state"], task["kind"]) == ("failed", "OUT_OF_MEMORY")
    assert "OUT_OF_MEMORY" in run.run.report_file.read_text()
    figure(shown=task["note"])
    first = run.resubmit("--dry-run", "--only-oom").stdout
    assert "--mem=200M" in next(line for line in first.splitlines() if line.startswith("train"))
    assert "--mem=1500M" in next(line for line in first.splitlines() if line.startswith("associate"))
    done = run.resubmit("--only-oom", "--mem", "1500M")
    assert "train layer_00: asks for 1500M of memory this time" in done.stderr
    quiet.wait_until_empty(600)
    assert run.state("validate") == "done"
    assert run.results(0) == undisturbed[0]
    assert run.resubmit("--only-oom", check=False).returncode == 2


def test_slurmctld_restarted_while_jobs_run(extracted, quiet, undisturbed, figure):
    run = extracted
    run.pipeline()
    wait_for_process(quiet, run, "train", 0)
    since = len(quiet.completed())
    quiet.stop_controller()
    quiet.start_controller()
    quiet.wait_until_empty(600)
    assert run.all_done()
    figure(
        ended_afterwards=sum(ended(quiet, run, since).values()),
        states=sorted({row["JobState"] for row in quiet.completed()[since:]}),
    )
    assert run.results(0) == undisturbed[0]


def test_node_going_down_and_coming_back(extracted, quiet, undisturbed, figure):
    """Power cut: the node's tasks are requeued by Slurm and end on another node; the node takes part again."""
    run = extracted
    run.pipeline()
    quiet.wait(lambda: attempts_of(run.run, stage_named("train"), 0), "train 0 at work", 240)
    train = next(job.job for job in read_jobs(run.run) if job.stage == "train")
    node = quiet.run("squeue", "--noheader", f"--jobs={train}_0", "--format=%N").stdout.strip()
    quiet.kill_node(node)
    killed = time.monotonic()
    quiet.wait(lambda: process_of(run.folder, "train", 0) is None, "the node's processes gone", 10)
    quiet.wait(lambda: quiet.node_states()[node].startswith("down"), f"{node} down", 120)
    noticed = time.monotonic() - killed
    quiet.wait(lambda: process_of(run.folder, "train", 0), "train 0 on the other node", 240)
    figure(seconds_until_down=round(noticed, 1), seconds_until_running_elsewhere=round(time.monotonic() - killed, 1))
    quiet.start_node(node)
    quiet.wait(lambda: "down" not in quiet.node_states()[node], f"{node} back", 60)
    quiet.wait_until_empty(600)
    assert run.all_done()
    assert run.results(0) == undisturbed[0]
    assert len(attempts_of(run.run, stage_named("train"), 0)) == 2


def test_drained_node(extracted, quiet):
    """Drained in the middle: what runs there ends, what comes goes elsewhere."""
    run = extracted
    run.pipeline("--set", "model.layers=[0,1]")
    wait_for_process(quiet, run, "train", 0)
    since = len(quiet.completed())
    quiet.run("scontrol", "update", "nodename=n1", "state=drain", "reason=test")
    assert quiet.node_states()["n1"].startswith("drain")
    quiet.wait_until_empty(600)
    assert [run.state("validate", task) for task in (0, 1)] == ["done", "done"]
    rows = quiet.completed()[since:]
    later = [row for row in rows if not row["Name"].endswith("train")]
    assert {row["NodeList"] for row in later} == {"n2"}


@pytest.mark.parametrize(
    ("mode", "words"), [("REQUEUE", "saved; Slurm requeues it by itself"), ("CANCEL", "saved and requeued")]
)
def test_preempted_by_a_more_important_job(template, tmp_path, steps_a_second, mode, words, figure):
    """SIGTERM, and a while to save in: the task goes on later where it was, whether Slurm requeues what it preempts or not."""
    settings = {"PreemptType": "preempt/partition_prio", "PreemptMode": mode, "KillWait": 30}
    partitions = {"shared": "PriorityTier=1", "urgent": "PriorityTier=10"}
    with slurm_cluster(nodes=1, cpus=1, settings=settings, partitions=partitions) as cluster:
        shutil.copytree(template, tmp_path / "run")
        run = TinyRun(tmp_path / "run", cluster.environment, layers=(0,))
        run.values["sae"].update(steps=int(25 * steps_a_second), log_every=1000)
        run.write()
        run.pipeline()
        wait_for_training(cluster, run, 0)
        cluster.run("sbatch", "--partition=urgent", "--mem=100M", "--output=/dev/null", "--wrap=sleep 5")
        cluster.wait(lambda: words in run.logs(), "the requeue", 120)
        assert (run.run.sae_dir(0) / "checkpoint" / CHECKPOINT_FILE).exists()
        cluster.wait_until_empty(900)
        steps = run.values["sae"]["steps"]
        again = re.search(r"goes on from step ([\d,]+) of ([\d,]+)", run.logs())
        assert again
        assert 0 < int(again[1].replace(",", "")) < steps == int(again[2].replace(",", ""))
        assert run.state("validate") == "done"
        assert [attempt.outcome for attempt in attempts_of(run.run, stage_named("train"), 0)] == ["interrupted", "done"]
        figure(went_on_from=again[1], steps=steps)


def wait_for_training(cluster: SlurmCluster, run: TinyRun, index: int) -> None:
    """Wait until a training has made steps: it has told so in its heartbeat."""
    beat = run.run.heartbeat_file(stage_named("train"), index)
    cluster.wait(lambda: ((read_json(beat) or {}).get("done") or 0) > 0, "training under way", 240)


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_full_disk_then_room(tiny, quiet, figure):
    """The plan fitted when it was made; then somebody else filled the disk."""
    run = tiny
    run.values["model"]["layers"] = [0]
    run.write()
    with small_disk(run.folder / "checkpoints", 64):
        run.pipeline()
        quiet.wait(lambda: run.state("prepare") == "done", "prepare", 240)
        room = os.statvfs(run.folder / "checkpoints")
        filler = run.folder / "checkpoints" / "filler"
        filler.write_bytes(bytes(room.f_bavail * room.f_bsize - 50_000))
        quiet.wait_until_empty(600)
        tasks = run.tasks()
        assert {tasks["extract", f"shard_000{shard}"]["state"] for shard in (0, 1)} == {"failed"}
        assert "the disk is full" in tasks["extract", "shard_0000"]["note"]
        figure(shown=tasks["extract", "shard_0000"]["note"])
        assert "Traceback" not in run.logs()
        assert not list((run.folder / "checkpoints").rglob(".partial-*"))
        assert "the disk is full" in run.run.report_file.read_text()
        filler.unlink()
        run.resubmit()
        quiet.wait_until_empty(600)
        assert run.all_done()


def test_run_folder_turning_read_only(extracted, quiet):
    run = extracted
    run.values["model"]["layers"] = [0]
    run.write()
    saes = run.folder / "checkpoints" / "tiny" / "saes"
    with small_disk(saes, 64):
        subprocess.run(["mount", "-o", "remount,ro", str(saes)], check=True)
        run.pipeline()
        quiet.wait_until_empty(600)
        assert "the file system is read-only" in run.tasks()["train", "layer_00"]["note"]
        assert "Traceback" not in run.logs()
        subprocess.run(["mount", "-o", "remount,rw", str(saes)], check=True)
        run.resubmit()
        quiet.wait_until_empty(600)
        assert run.state("validate") == "done"


def test_array_longer_than_max_array_size(tmp_path):
    """Three shards and three layers where an array holds two: parts of parts still wait for the right ones."""
    with slurm_cluster(nodes=2, cpus=1, settings={"MaxArraySize": 2}) as cluster:
        run = TinyRun(tmp_path / "run", cluster.environment, cells=30, shards=3, layers=(0, 1, 2))
        run.pipeline()
        jobs = read_jobs(run.run)
        assert [(job.stage, job.array.partition("%")[0], job.offset) for job in jobs if job.stage in ("extract", "train")] == [
            ("extract", "0-1", 0), ("extract", "0", 2), ("train", "0-1", 0), ("train", "0", 2),
        ]  # fmt: skip
        by_stage = {stage: [job for job in jobs if job.stage == stage] for stage in ("train", "associate")}
        assert [job.dependency for job in by_stage["associate"]] == [
            f"aftercorr:{job.job}" for job in by_stage["train"]
        ]
        cluster.wait_until_empty(900)
        assert run.all_done()


def test_packed_layers_on_two_gpus(extracted, quiet, undisturbed):
    """Three layers in one array task that has two GPUs: two processes, each seeing one of them."""
    run = extracted
    run.values["sae"].update(layers_per_task=3, gpus_per_task=2)
    run.profile["defaults"]["gres"] = "gpu:1"
    run.profile["defaults"]["memory"] = "2500M"  # two processes of some 750 MB each
    run.write()
    run.pipeline()
    train = next(job for job in read_jobs(run.run) if job.stage == "train")
    assert train.array.partition("%")[0] == "0"
    seen: set[str] = set()

    def two_processes() -> bool:
        for pid in processes_of(run.folder, "train", 0):
            with contextlib.suppress(OSError):
                environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if b"--task" in words:
                    seen.update(each.decode() for each in environment if each.startswith(b"CUDA_VISIBLE_DEVICES="))
        return len(seen) == 2

    quiet.wait(two_processes, "a process for each GPU", 240)
    assert seen == {"CUDA_VISIBLE_DEVICES=0", "CUDA_VISIBLE_DEVICES=1"}
    quiet.wait_until_empty(600)
    assert run.all_done()
    assert {layer: run.results(layer) for layer in (0, 1, 2)} == undisturbed


def test_packed_layers_on_one_gpu_from_local_scratch(extracted, quiet, undisturbed):
    run = extracted
    scratch = run.folder / "scratch"
    scratch.mkdir()
    run.values["sae"].update(layers_per_task=2, gpus_per_task=1)
    run.profile["defaults"]["gres"] = "gpu:2"
    run.profile["scratch"] = str(scratch)
    run.write()
    run.pipeline()
    jobs = {job.stage: job for job in read_jobs(run.run)}
    assert (jobs["train"].array.partition("%")[0], jobs["train"].pack) == ("0-1", 2)
    shown = quiet.run("scontrol", "show", "job", f"{jobs['train'].job}_0").stdout
    assert "gres:gpu:1" in shown
    assert (
        "gpu"
        not in quiet.run("scontrol", "show", "job", f"{jobs['validate'].job}_0").stdout.partition("TresPerNode")[2][:20]
    )
    quiet.wait_until_empty(600)
    assert run.all_done()
    assert {layer: run.results(layer) for layer in (0, 1, 2)} == undisturbed
    assert "copying to" in run.logs()
    assert list(scratch.iterdir()) == []
