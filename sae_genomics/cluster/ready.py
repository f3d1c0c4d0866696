"""Mistakes that every task would end with on its node, told before anything is submitted or run."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from sae_genomics.cluster.profile import Environment, Profile, profile_file
from sae_genomics.commands import REPOSITORY, path_words
from sae_genomics.errors import UserError
from sae_genomics.run import Run
from sae_genomics.stages import stages_of


def check_jobs(run: Run, profile: Profile) -> None:
    """Raise UserError when jobs of this profile would find no Python, or lack a package that the config asks for."""
    source = path_words(profile_file(run.config.cluster).absolute())
    variables = {**os.environ, **profile.environment.variables(gpu=False)}
    problem = _problem(profile.environment, variables)
    if problem:
        raise UserError(f"{source}: {problem}")
    if profile.environment.kind == "venv" and os.path.abspath(_python(variables)) == os.path.abspath(sys.executable):
        check_packages(run)  # of another Python's packages nothing is known here


def check_packages(run: Run) -> None:
    """Raise UserError when a package that a stage would use by the config, a logger say, is not installed in this Python."""
    for stage in stages_of(run):
        if stage.packages_key is None:
            continue
        wanted = run.values([stage.packages_key])[stage.packages_key]
        missing = [name for name in wanted if not _installed(name)]
        if missing and not all(state.done for state in run.states(stage)):
            raise UserError(
                f"{stage.packages_key}: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed; fix it with: "
                f"{path_words(sys.executable)} -m pip install {' '.join(missing)}, or leave it out with --set {stage.packages_key}=[]"
            )


def _problem(environment: Environment, variables: Mapping[str, str]) -> str:
    """What is wrong, as slurm/lib/environment.sh would find on the node; empty when nothing is."""
    kind = environment.kind
    if kind == "venv":
        python = _python(variables)
        return "" if shutil.which(python) else _no_python(environment, python)
    if kind == "conda":
        name = variables.get("SAE_GENOMICS_CONDA", "")
        if not name:
            return "environment.kind is conda, but no conda environment is named; set environment.conda to its name or folder"
        if "/" in name and not (Path(name) / "bin" / "python").exists():
            return f"environment.conda: there is no Python in {name}; set it to a conda environment's name or folder"
    if kind == "apptainer":
        image = variables.get("SAE_GENOMICS_IMAGE", "")
        if not image:
            return "environment.kind is apptainer, but no image is named; set environment.image to a .sif file"
        if not Path(image).exists():
            return f"environment.image: there is no {image}; build it with: apptainer build {image} slurm/apptainer.def"
    return ""


def _python(variables: Mapping[str, str]) -> str:
    folder = variables.get("SAE_GENOMICS_VENV") or REPOSITORY / ".venv"
    return variables.get("SAE_GENOMICS_PYTHON") or f"{folder}/bin/python"


def _no_python(environment: Environment, python: str) -> str:
    folder = python.removesuffix("/bin/python")
    if folder == python:
        return f"environment.python: {python} was not found; set it to a Python that this package is installed in"
    key = "environment.venv" if environment.venv else "environment.kind is venv"
    return f"{key}: there is no Python in {folder}; make it with: SAE_GENOMICS_VENV={folder} bash scripts/setup.sh"


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
