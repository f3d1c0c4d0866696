"""A real Slurm on this host, in a folder of its own: munged, slurmctld and several slurmd, started and stopped by tests.

Its SLURM_CONF keeps it apart from any Slurm the host has; only processes started here, or by Slurm on its behalf, are
ever signalled. Needs root and Debian's slurm-wlm and munge.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel")
MARK = "SAE_GENOMICS_TEST_CLUSTER"


def why_not() -> str | None:
    """Why no test cluster can be started here; None when it can."""
    missing = [name for name in PROGRAMS if find_program(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (apt-get install slurm-wlm munge)"
    if os.geteuid() != 0:
        return "a test Slurm needs root"
    return None


def find_program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")


class SlurmCluster:
    """One cluster. nodes: how many slurmd; cpus: a node; memory_mb: a node; settings: further slurm.conf
    lines, later ones win; partitions: name to what stands on its line, beside `shared`, which is the default."""

    def __init__(
        self,
        nodes: int = 2,
        cpus: int = 1,
        memory_mb: int = 8000,
        settings: Mapping[str, str | int] | None = None,
        partitions: Mapping[str, str] | None = None,
    ):
        # Sockets have short names at most: pytest's folders are too deep.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.cpus, self.memory_mb = cpus, memory_mb
        self.settings = dict(settings or {})
        self.partitions = {"shared": "", **(partitions or {})}
        self.ports = free_ports(nodes + 1)
        self.completed_file = self.folder / "completed.log"
        self.environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}
        for name in list(self.environment):
            if name.startswith(("SLURM_", "SBATCH_", "SQUEUE_")) and name != "SLURM_CONF":
                del self.environment[name]

    # --- starting and stopping ---

    def start(self) -> SlurmCluster:
        self.folder.chmod(0o755)
        (self.folder / "state").mkdir()
        (self.folder / "gpu0").touch()
        (self.folder / "gpu1").touch()
        self._write_configuration()
        self._start_munge()
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)
        self.wait(lambda: self.node_states() == dict.fromkeys(self.nodes, "idle"), "all nodes idle", 60)
        return self

    def stop(self) -> None:
        """End every process of this cluster, jobs included, and remove its folder."""
        pids = [self._pid(name) for name in ("slurmctld", *self.nodes, "munged")]
        for pid in [*filter(None, pids), *self._job_processes()]:
            kill(pid)
        deadline = time.monotonic() + 10
        while self._job_processes() and time.monotonic() < deadline:
            for pid in self._job_processes():
                kill(pid)
            time.sleep(0.1)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_controller(self) -> None:
        self._daemon("slurmctld")
        self.wait(lambda: self.run("scontrol", "ping", check=False).stdout.count("UP") == 1, "slurmctld answers", 30)

    def stop_controller(self) -> None:
        pid = self._pid("slurmctld")
        assert pid
        os.kill(pid, signal.SIGTERM)
        self.wait(lambda: not alive(pid), "slurmctld ended", 30)

    def start_node(self, node: str) -> None:
        self._daemon("slurmd", "-N", node, mark=f"{self.folder}:{node}")

    def kill_node(self, node: str) -> None:
        """What a power cut does: slurmd, and every job process on the node, gone at once."""
        pid = self._pid(node)
        assert pid
        kill(pid)
        for each in self._job_processes(node):
            kill(each)

    # --- looking ---

    def run(self, *command: str, check: bool = True, **keywords: object) -> subprocess.CompletedProcess[str]:
        """Run a command with this cluster's SLURM_CONF."""
        result = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120, **keywords)  # type: ignore[call-overload]
        if check and result.returncode:
            raise AssertionError(
                f"{' '.join(command)}: exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
            )
        return result

    def node_states(self) -> dict[str, str]:
        lines = self.run("sinfo", "--Node", "--noheader", "--format=%N %T", check=False).stdout.split("\n")
        return dict(line.split() for line in lines if line)

    def queue(self) -> list[tuple[str, str, str]]:
        """(job or job_index, state, reason) of everything in the queue, array tasks one by one."""
        lines = self.run("squeue", "--noheader", "--array", "--format=%i|%T|%r").stdout.split("\n")
        return [tuple(line.split("|")) for line in lines if line]  # type: ignore[misc]

    def completed(self) -> list[dict[str, str]]:
        """Every task that Slurm says has ended, from its own job completion log, in order. Requeued ones count each time."""
        if not self.completed_file.exists():
            return []
        return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in self.completed_file.read_text().splitlines()]

    def wait(self, condition: Callable[[], object], what: str, seconds: float = 60) -> None:
        """Wait until a condition holds. Raises AssertionError with the cluster's state when it does not in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds} s in vain for: {what}\n{self.diagnosis()}")
            time.sleep(0.1)

    def wait_until_empty(self, seconds: float = 300) -> None:
        """Wait until nothing is queued or running."""
        self.wait(lambda: not self.queue(), "an empty queue", seconds)

    def diagnosis(self) -> str:
        parts = [f"queue: {self.run('squeue', check=False).stdout}", f"nodes: {self.node_states()}"]
        for log in sorted(self.folder.glob("*.log")):
            parts.append(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:]))
        return "\n".join(parts)

    def clear(self) -> None:
        """Cancel everything and wake every node."""
        self.run("scancel", f"--user={os.environ.get('USER') or 'root'}", check=False)
        for node in self.nodes:
            if self._pid(node) is None:
                self.start_node(node)
        states = self.node_states()
        asleep = [node for node in self.nodes if "down" in states.get(node, "") or "drain" in states.get(node, "")]
        if asleep:
            self.run("scontrol", "update", f"nodename={','.join(asleep)}", "state=resume", check=False)
        self.wait_until_empty(60)

    # --- inside ---

    def _write_configuration(self) -> None:
        host = socket.gethostname().split(".")[0]
        settings: dict[str, str | int] = {
            "ClusterName": "test", "SlurmctldHost": f"{host}(127.0.0.1)", "SlurmctldPort": self.ports[0],
            "SlurmUser": "root", "AuthType": "auth/munge", "AuthInfo": f"socket={self.folder}/munge.socket,cred_expire=5",
            "StateSaveLocation": f"{self.folder}/state", "SlurmdSpoolDir": f"{self.folder}/spool-%n",
            "SlurmctldPidFile": f"{self.folder}/slurmctld.pid", "SlurmdPidFile": f"{self.folder}/%n.pid",
            "SlurmctldLogFile": f"{self.folder}/slurmctld.log", "SlurmdLogFile": f"{self.folder}/%n.log",
            "ProctrackType": "proctrack/linuxproc", "TaskPlugin": "task/none", "SwitchType": "switch/none",
            "SelectType": "select/cons_tres", "SelectTypeParameters": "CR_Core_Memory",
            "AccountingStorageType": "accounting_storage/none", "JobAcctGatherType": "jobacct_gather/linux",
            "JobAcctGatherFrequency": "task=1", "JobAcctGatherParams": "OverMemoryKill",
            "JobCompType": "jobcomp/filetxt", "JobCompLoc": str(self.completed_file),
            "GresTypes": "gpu", "ReturnToService": 2, "KillWait": 30, "SlurmdTimeout": 5, "MessageTimeout": 10,
            "MinJobAge": 60, "UnkillableStepTimeout": 30,
            "SchedulerParameters": "sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0",
            **self.settings,
        }  # fmt: skip
        lines = [f"{key}={value}" for key, value in settings.items()]
        for node, port in zip(self.nodes, self.ports[1:], strict=True):
            lines.append(
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={self.cpus} "
                f"RealMemory={self.memory_mb} Gres=gpu:2 State=UNKNOWN"
            )
        names = ",".join(self.nodes)
        for name, more in self.partitions.items():
            default = "YES" if name == "shared" else "NO"
            lines.append(f"PartitionName={name} Nodes={names} Default={default} MaxTime=INFINITE State=UP {more}")
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "gres.conf").write_text(f"NodeName={names} Name=gpu File={self.folder}/gpu[0-1]\n")
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        files = {
            "key-file": key,
            "socket": "munge.socket",
            "pid-file": "munged.pid",
            "log-file": "munged.log",
            "seed-file": "munge.seed",
        }
        options = [f"--{name}={self.folder / value}" for name, value in files.items()]
        subprocess.run(
            [find_program("munged") or "munged", "--force", *options],
            check=True,
            capture_output=True,
            env=self._marked(str(self.folder)),
        )

    def _daemon(self, name: str, *arguments: str, mark: str | None = None) -> None:
        program = find_program(name)
        assert program
        result = subprocess.run(
            [program, *arguments], env=self._marked(mark or str(self.folder)), capture_output=True, text=True
        )
        if result.returncode:
            raise AssertionError(f"{name}: {result.stdout}{result.stderr}\n{self.diagnosis()}")

    def _marked(self, mark: str) -> dict[str, str]:
        return {**self.environment, MARK: mark}

    def _pid(self, name: str) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.folder / f"{name}.pid").read_text())
            return pid if alive(pid) else None
        return None

    def _job_processes(self, node: str | None = None) -> list[int]:
        """slurmstepd and what runs under it: everything whose environment names this cluster (and node), and their children."""
        wanted = f"{MARK}={self.folder}:{node or ''}".encode()
        conf = f"SLURM_CONF={self.folder}/slurm.conf".encode()
        parents: dict[int, int] = {}
        found: set[int] = set()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                environment = (entry / "environ").read_bytes().split(b"\0")
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                in_job = conf in environment and any(each.startswith(b"SLURM_JOB_ID=") for each in environment)
                on_node = node is None or f"SLURMD_NODENAME={node}".encode() in environment
                if any(each.startswith(wanted) for each in environment) or (in_job and on_node):
                    found.add(int(entry.name))
        for _ in range(5):
            found |= {pid for pid, parent in parents.items() if parent in found}
        daemons = {self._pid(name) for name in ("slurmctld", *self.nodes, "munged")}
        return sorted(found - daemons - {os.getpid()})


@contextlib.contextmanager
def cluster(**keywords: object) -> Iterator[SlurmCluster]:
    """A started cluster, stopped at the end of the block."""
    made = SlurmCluster(**keywords)  # type: ignore[arg-type]
    try:
        yield made.start()
    finally:
        made.stop()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    # python tests/cluster/slurm_cluster.py: a cluster to try things on, until Enter.
    with cluster() as made:
        print(f"export SLURM_CONF={made.folder}/slurm.conf", flush=True)
        sys.stdin.readline()
