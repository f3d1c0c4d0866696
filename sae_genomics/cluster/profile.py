"""What a site has in common: configs/clusters/NAME.yaml, read into typed settings, unknown keys refused with the nearest one."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from sae_genomics.cluster.options import check_extra
from sae_genomics.config import ClusterConfig
from sae_genomics.errors import UserError
from sae_genomics.stages import STAGES

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = (Path("configs/clusters"), REPOSITORY / "configs" / "clusters")
MEMORY = re.compile(r"^(\d+)([KMGT]?)B?$", re.IGNORECASE)
_TIME = re.compile(r"^(\d+|\d+:\d\d|\d+:\d\d:\d\d|\d+-\d+(:\d\d){0,2})$")
_TIME_FORMS = "a Slurm time in quotes: 'HH:MM:SS', 'D-HH:MM:SS' or 'MINUTES'"

MailEvent = Literal["BEGIN", "END", "FAIL", "REQUEUE", "TIME_LIMIT", "TIME_LIMIT_80", "INVALID_DEPEND", "ALL"]


def _amount(value: Any) -> Any:
    """An amount of memory as Slurm wants it; without a unit 64 would be 64 MB to Slurm."""
    match = MEMORY.match(value) if isinstance(value, str) else None
    if value is not None and not (match and match[2]):
        raise ValueError("is an amount with a unit, for example 64G or 900M")
    return value.upper().removesuffix("B") if value else value


class ProfileSection(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True)


class Resources(ProfileSection):
    """What one job, or one task of an array, asks for. None leaves the #SBATCH line of the stage's script in force."""

    partition: str | None = Field(None, description="--partition")
    account: str | None = Field(None, description="--account")
    qos: str | None = Field(None, description="--qos")
    gres: str | None = Field(None, description="--gres, for example gpu:a100:1; stages that use no GPU leave it out")
    gpus: str | None = Field(None, description="--gpus, for sites that want that instead of gres, for example '1'")
    constraint: str | None = Field(None, description="--constraint")
    cpus: int | None = Field(None, ge=1, description="--cpus-per-task")
    memory: str | None = Field(None, description="--mem, for example 64G")
    time: str | None = Field(None, description="--time")
    throttle: int | None = Field(None, ge=1, description="tasks of a stage that run at once; null for no limit")
    extra: list[str] = Field(default_factory=list, description="further sbatch arguments, as typed")

    @field_validator("extra")
    @classmethod
    def _extra(cls, value: list[str]) -> list[str]:
        check_extra(value)
        return value

    @field_validator("gpus", mode="before")
    @classmethod
    def _count(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("memory", mode="before")
    @classmethod
    def _memory(cls, value: Any) -> Any:
        return _amount(value)

    @field_validator("time", mode="before")
    @classmethod
    def _time(cls, value: Any) -> Any:
        if isinstance(value, int):  # YAML reads an unquoted 12:00:00 as 43200
            raise ValueError(f"is {_TIME_FORMS}; without quotes YAML may read it as a number")
        if value is not None and not (isinstance(value, str) and _TIME.match(value)):
            raise ValueError(f"is {_TIME_FORMS}")
        return value


class Mail(ProfileSection):
    """E-mails that Slurm sends."""

    address: str | None = Field(None, description="--mail-user; null for none")
    events: list[MailEvent] = Field(default=["FAIL"], description="--mail-type, for the arrays")
    report: bool = Field(True, description="an e-mail when the report has been made")


class Environment(ProfileSection):
    """Where Python and the package come from on a compute node; see slurm/lib/environment.sh."""

    kind: Literal["venv", "conda", "modules", "apptainer"] = "venv"
    modules: list[str] = Field(default_factory=list, description="modules loaded first, whatever the kind")
    venv: Path | None = Field(None, description="folder of the venv; default: .venv of the repository")
    conda: str | None = Field(None, description="name or folder of the conda environment")
    python: str | None = Field(None, description="interpreter, for modules and apptainer; default: python3")
    image: Path | None = Field(None, description="the .sif file, for apptainer")
    binds: list[str] = Field(default_factory=list, description="folders the container sees, SOURCE or SOURCE:TARGET")
    nv: bool = Field(True, description="--nv for apptainer, where the stage has a GPU")

    def variables(self, gpu: bool) -> dict[str, str]:
        """The variables that slurm/lib/environment.sh reads."""
        values = {
            "ENVIRONMENT": self.kind, "MODULES": " ".join(self.modules), "VENV": self.venv and self.venv.absolute(), "CONDA": self.conda,
            "PYTHON": self.python, "IMAGE": self.image and self.image.absolute(), "BINDS": ",".join(self.binds),
            "NV": "1" if self.kind == "apptainer" and self.nv and gpu else None,
        }  # fmt: skip
        return {f"SAE_GENOMICS_{name}": str(value) for name, value in values.items() if value}


class Profile(ProfileSection):
    """A cluster: what the jobs of each stage ask for, and how often a failing call is repeated."""

    defaults: Resources = Field(default_factory=Resources, description="for every stage")
    stages: dict[str, Resources] = Field(
        default_factory=dict, description="what a stage asks for in place of the defaults"
    )
    mail: Mail = Field(default_factory=Mail)
    environment: Environment = Field(default_factory=Environment)
    scratch: str | None = Field(
        None, description="node-local folder that train copies its activations to, for example $TMPDIR"
    )
    signal_seconds: int = Field(
        120, ge=10, le=3600, description="seconds before the time limit at which a task is told to save"
    )
    max_requeues: int = Field(20, ge=0, description="how often a task is put back into the queue after saving")
    max_memory: str = Field("256G", description="the most memory that a task asks for after OUT_OF_MEMORY")
    max_array_size: int | None = Field(None, ge=1, description="default: the cluster's own MaxArraySize")
    submit_tries: int = Field(8, ge=1, description="how often sbatch is tried while the controller does not answer")
    submit_wait_seconds: float = Field(
        2, ge=0, description="seconds before the second try; doubled before each further try"
    )

    @field_validator("stages", mode="before")
    @classmethod
    def _known_stages(cls, value: Any) -> Any:
        known = [stage.name for stage in STAGES]
        for name in value if isinstance(value, dict) else {}:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
                raise ValueError(
                    f"{name} is no stage; {f'did you mean {near[0]}?' if near else 'known: ' + ', '.join(known)}"
                )
        return value

    @field_validator("max_memory", mode="before")
    @classmethod
    def _cap(cls, value: Any) -> Any:
        return _amount(value)

    def resources(self, stage: str, gpu: bool) -> Resources:
        """What a stage's jobs ask for: its own settings before the defaults. A stage without use for a GPU gets none by default."""
        chosen = self.defaults.model_dump()
        if not gpu:
            chosen.update(gres=None, gpus=None)
        own = self.stages.get(stage, Resources())
        chosen.update({key: getattr(own, key) for key in own.model_fields_set})
        return Resources(**chosen)


def load_profile(config: ClusterConfig) -> Profile:
    """The profile that the config, else $SAE_GENOMICS_CLUSTER, chooses, with the config's overrides.

    Raises UserError naming the file and key of whatever is wrong.
    """
    path = profile_file(config)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read cluster profile {path}: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{path}{f', line {mark.line + 1}' if mark else ''}: not valid YAML") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: a cluster profile is a mapping (defaults:, stages:, environment:, ...)")
    try:
        return Profile.model_validate(_without_empty(_merged(values, config.overrides)))
    except ValidationError as error:
        source = f"{path} with cluster.overrides" if config.overrides else str(path)
        raise UserError(f"{source}: {_first_problem(error)}") from None


def profile_file(config: ClusterConfig) -> Path:
    """The file that the config, else $SAE_GENOMICS_CLUSTER, chooses. Raises UserError when there is none."""
    return find_profile(config.profile or os.environ.get("SAE_GENOMICS_CLUSTER") or "default")


def find_profile(name: str) -> Path:
    """The file of a profile given by name, or by path. Raises UserError listing the names there are."""
    if "/" in name or name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"no such cluster profile: {path}")
        return path
    for folder in FOLDERS:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = sorted({path.stem for folder in FOLDERS for path in folder.glob("*.yaml")})
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'none'}"
    raise UserError(f"no cluster profile {name!r} in {FOLDERS[1]}; {hint}")


def memory_mb(text: str) -> int:
    """Mebibytes of a Slurm memory amount; without a unit it is mebibytes already."""
    match = MEMORY.match(text)
    if not match:
        raise UserError(f"{text!r} is not an amount of memory; write it like 64G")
    number, unit = int(match[1]), match[2].upper()
    return max(1, {"K": number // 1024, "": number, "M": number, "G": number * 1024, "T": number * 1024**2}[unit])


def doubled(memory: str, most: str) -> str:
    """Twice the memory, but no more than `most`; what it was, where that is more than `most` already."""
    had = memory_mb(memory)
    megabytes = max(had, min(2 * had, memory_mb(most)))
    return f"{megabytes // 1024}G" if megabytes % 1024 == 0 else f"{megabytes}M"


class _Loader(yaml.SafeLoader):
    """YAML without base-60 numbers: a time such as 12:00:00 stays what was written."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if tag not in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+\.[0-9]*$"), list("-+0123456789"))


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _without_empty(values: dict[str, Any]) -> dict[str, Any]:
    """A heading under which every line is a comment says nothing: as if it were not there."""
    stages = values.get("stages")
    if isinstance(stages, dict):
        values = {**values, "stages": {name: {} if keys is None else keys for name, keys in stages.items()}}
    return {key: value for key, value in values.items() if value is not None or key not in _SECTIONS}


def _first_problem(error: ValidationError) -> str:
    """The first problem as one sentence, unknown keys before others."""
    problem = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        section = _SECTIONS[location[0]] if len(location) > 1 else Profile
        near = difflib.get_close_matches(location[-1], section.model_fields, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(section.model_fields)}"
        return f"unknown key {key}; {hint}"
    if problem["type"] in ("model_type", "dict_type"):
        inside = "stages" if key == "stages" else "keys"
        known = [stage.name for stage in STAGES] if key == "stages" else list(_SECTIONS[location[0]].model_fields)
        return f"{key} = {problem['input']!r}: takes {inside} of its own on the lines below it, for example {known[0]}: ...; known: {', '.join(known)}"
    if problem["type"] == "list_type":
        return (
            f"{key} = {problem['input']!r}: is a list; write it in brackets, for example {_example(problem['input'])}"
        )
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    value = "" if isinstance(problem["input"], dict) else f" = {problem['input']!r}"
    return f"{key}{value}: {message[0].lower()}{message[1:]}"


def _example(value: Any) -> str:
    return f"[{value}]" if isinstance(value, str | int) else "[a, b]"


_SECTIONS: dict[str, type[ProfileSection]] = {
    "defaults": Resources, "stages": Resources, "mail": Mail, "environment": Environment,
}  # fmt: skip
