"""The commands that we print: they can be typed as they stand, and act on the very run that they are printed for.

The shell scripts go to the repository first, so that relative paths in a config count from there. Where this process works in
another folder, the command is the Python one, which stays in that folder.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from sae_genomics.run import Run
from sae_genomics.stage import Stage

REPOSITORY = Path(__file__).resolve().parents[1]
_SCRIPTS = {
    "pipeline": "slurm/00_full_pipeline.sh", "status": "slurm/status.sh", "resubmit": "slurm/resubmit_failed.sh",
}  # fmt: skip


def command(name: str, run: Run, *options: str) -> str:
    """`bash slurm/status.sh configs/demo.yaml --set run.name=x --watch`. name: pipeline, status or resubmit."""
    if _in_repository():
        program = ["bash", _script(_SCRIPTS[name], run)]
    else:
        program = [sys.executable, "-m", "sae_genomics.cli", name]
    return " ".join([shlex.join(program), config_words(run), *options])


def stage_command(stage: Stage, run: Run, task: int) -> str:
    """The same for one stage by hand: by its script, for example 02_extract.py, or by its name where it has none."""
    script = f"scripts/{stage.number:02d}_{stage.name}.py"
    has_script = (REPOSITORY / script).exists()
    arguments = [_script(script, run)] if has_script else ["-m", "sae_genomics.cli", "stage", stage.name]
    program = shlex.join([path_words(sys.executable), *arguments])
    return f"{program} --config {config_words(run)} --task {task}"


def script_command(name: str, run: Run, *options: str) -> str:
    """The same for another script that reads a run, such as detect_concepts.py. options: words, or a placeholder in capitals."""
    program = shlex.join([path_words(sys.executable), _script(f"scripts/{name}", run)])
    return " ".join([program, "--config", config_words(run), *options])


def config_words(run: Run) -> str:
    """The run's config file, and the settings that were typed beside it, quoted for a shell."""
    settings = [part for each in run.overrides for part in ("--set", each)]
    return shlex.join([path_words(config_path(run)), *settings])


def config_path(run: Run) -> Path:
    """The file that the run was read from; of a run made in memory, the one that its report leaves."""
    return run.config_file or run.results.absolute() / "config.yaml"


def path_words(path: Path | str) -> str:
    """A path as a person types it here: relative where it stands below the working directory."""
    path = Path(path)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _in_repository() -> bool:
    return Path.cwd() == REPOSITORY


def _script(name: str, run: Run) -> str:
    """Relative where the config is: who typed a config of another folder may stand there, and not in the repository."""
    near = _in_repository() and config_path(run).is_relative_to(REPOSITORY)
    return name if near else str(REPOSITORY / name)
