"""One array's sbatch command line: the profile's wishes on top of the #SBATCH lines of the stage's script."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sae_genomics.cluster.arrays import Array, index_list
from sae_genomics.cluster.options import replaced
from sae_genomics.cluster.profile import REPOSITORY, Profile, Resources
from sae_genomics.cluster.queue import job_name, make_comment
from sae_genomics.commands import command
from sae_genomics.run import Run
from sae_genomics.stage import Stage

ANY_STAGE = REPOSITORY / "slurm" / "stage.sh"  # takes the stage's name first


@dataclass(frozen=True)
class Call:
    """A command line, ready but for the ids of jobs it depends on, which stand as `{name}` in `dependency`.

    variables: set for the job beside the submitter's environment. token: finds the job when sbatch's answer is lost.
    """

    array: Array
    options: tuple[str, ...]
    dependency: str
    arguments: tuple[str, ...]
    variables: dict[str, str]
    token: str
    memory: str
    time: str
    output: str
    error: str

    def command(self, ids: Mapping[str, str]) -> list[str]:
        """argv. ids: name of an array of this submission to its job id."""
        dependency = [f"--dependency={self.dependency.format_map(ids)}"] if self.dependency else []
        return ["sbatch", *self.options, *dependency, *self.arguments]

    def shell(self) -> str:
        """The same as a line of shell, in which earlier jobs' ids are variables."""
        names = {name: f"${{{name}}}" for name in re.findall(r"\{(\w+)\}", self.dependency)}
        parts = [f"{name}={shlex.quote(value)}" for name, value in self.variables.items()]
        dependency = [f"--dependency={self.dependency.format_map(names)}"] if self.dependency else []
        parts += ["sbatch", shlex.join(self.options), *dependency, shlex.join(self.arguments)]
        return f"{self.array.name}=$({' '.join(parts)})"


def make_call(run: Run, profile: Profile, array: Array, config_copy: Path) -> Call:
    """The sbatch call of one array. config_copy: the config as it is now, for the job to read."""
    stage, script = array.stage, script_of(array.stage)
    wish = resources_of(run, profile, stage)
    wish = wish.model_copy(
        update={key: value for key, value in (("memory", array.change.memory), ("time", array.change.time)) if value}
    )
    output, error = log_patterns(run, array)
    comment, token = make_comment(run, stage, array.offset, array.pack)
    options = ["--parsable", f"--job-name={job_name(run, stage)}", f"--comment={comment}", f"--chdir={Path.cwd()}"]
    if array.indices is not None:
        throttle = f"%{array.throttle}" if array.throttle else ""
        options.append(f"--array={index_list(array.indices)}{throttle}")
    options += [f"--output={output}", f"--error={error}"]
    manners = {
        "open-mode": "append", "kill-on-invalid-dep": "yes", "requeue": None, "export": "ALL",
        "signal": f"B:USR1@{profile.signal_seconds}",
    }  # fmt: skip
    options += [  # of two contradictory options sbatch does not always take the later
        f"--{name}={value}" if value else f"--{name}"
        for name, value in manners.items()
        if not replaced(name, wish.extra)
    ]
    options += [*resource_options(wish), *_mail_options(profile, stage)]
    # sbatch takes ',' between terms as "and"; terms of one kind share the word: afterok:1:2.
    kinds: dict[str, list[str]] = {}
    for term in array.dependencies:
        kind, _, job = term.partition(":")
        kinds.setdefault(kind, []).append(job)
    arguments = [str(script), *([stage.name] if script == ANY_STAGE else []), str(config_copy)]
    if run.config_file:
        arguments += ["--source", str(run.config_file)]
    # CONFIG holds them already: they are for the commands that the job prints, in its report and its error lines.
    arguments += [part for each in run.overrides for part in ("--set", each)]
    if array.offset:
        arguments += ["--offset", str(array.offset)]
    if array.pack > 1:
        arguments += ["--pack", str(array.pack)]
    if profile.scratch and stage.reads_repeatedly:
        arguments += ["--scratch", profile.scratch]
    return Call(
        array=array,
        options=tuple(options),
        dependency=",".join(":".join([kind, *jobs]) for kind, jobs in kinds.items()),
        arguments=tuple(arguments),
        variables={
            "SAE_GENOMICS_ROOT": str(REPOSITORY),
            "SAE_GENOMICS_MAX_REQUEUES": str(profile.max_requeues),
            "SAE_GENOMICS_RESUBMIT": command("resubmit", run),
            **profile.environment.variables(gpu=wish.gres is not None or wish.gpus is not None),
        },
        token=token,
        memory=wish.memory or directive(script, "mem") or "",
        time=wish.time or directive(script, "time") or "",
        output=output,
        error=error,
    )


def resources_of(run: Run, profile: Profile, stage: Stage) -> Resources:
    """What the profile says, with the number of GPUs that the stage's own key asks for where the config sets it."""
    wish = profile.resources(stage.name, stage.gpu)
    count = gpus_set(run, stage)
    if count is None:
        return wish
    return wish.model_copy(update={"gres": _with_count(wish.gres, count), "gpus": _with_count(wish.gpus, count)})


def gpus_set(run: Run, stage: Stage) -> int | None:
    """What the config sets under the stage's `gpus_key`; None where it says nothing."""
    if stage.gpus_key is None:
        return None
    section, _, key = stage.gpus_key.partition(".")
    settings = getattr(run.config, section)
    return int(getattr(settings, key)) if key in settings.model_fields_set else None


def _with_count(request: str | None, count: int) -> str | None:
    """gpu:a100:1 with 2 becomes gpu:a100:2; with 0, nothing."""
    if request is None or count == 0:
        return None
    kind = re.sub(r":?\d+$", "", request)
    return f"{kind}:{count}" if kind else str(count)


def resource_options(wish: Resources) -> list[str]:
    """--partition and so on, for everything that is set."""
    names = {
        "partition": wish.partition, "account": wish.account, "qos": wish.qos, "gres": wish.gres, "gpus": wish.gpus,
        "constraint": wish.constraint, "cpus-per-task": wish.cpus, "mem": wish.memory, "time": wish.time,
    }  # fmt: skip
    return [f"--{name}={value}" for name, value in names.items() if value is not None] + wish.extra


def _mail_options(profile: Profile, stage: Stage) -> list[str]:
    mail = profile.mail
    if not mail.address:
        return []
    events = ["END", "FAIL"] if stage.partial and mail.report else mail.events
    return [f"--mail-user={mail.address}", f"--mail-type={','.join(events)}"] if events else []


def script_of(stage: Stage) -> Path:
    """The stage's batch script; one for all stages where it has none of its own."""
    own = REPOSITORY / "slurm" / f"{stage.number:02d}_{stage.name}.sh"
    return own if own.exists() else ANY_STAGE


def directive(script: Path, option: str) -> str | None:
    """The value of an #SBATCH line of a batch script: its default where the profile says nothing."""
    found = re.search(rf"^#SBATCH\s+--{option}=(\S+)", script.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else None


def log_patterns(run: Run, array: Array) -> tuple[str, str]:
    """Output and error file of a job, in Slurm's notation: %A the array, %a the index, %j the job."""
    stem = f"{array.stage.name}_%j" if array.indices is None else f"{array.stage.name}_%A_%a"
    folder = str(run.logs.absolute()).replace("%", "%%")
    return f"{folder}/{stem}.out", f"{folder}/{stem}.err"


def submitter_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """This process' environment for sbatch, without what a surrounding job (salloc, say) set for itself."""
    kept = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_") or name in kept}
    return {**environment, **variables}
