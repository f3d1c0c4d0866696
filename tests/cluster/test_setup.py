"""scripts/setup.sh and the scripts a person types, in copies of the repository's shell: no package index is needed."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BACKEND = '''
"""A build backend of its own, so that an editable install needs no package index."""
import zipfile


def build_editable(folder, config_settings=None, metadata_directory=None):
    name, info = "tiny_package-1.0-py3-none-any.whl", "tiny_package-1.0.dist-info"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("tiny_package.pth", ".")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: tiny-package\\nVersion: 1.0\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name


def build_wheel(*arguments):
    raise NotImplementedError
'''


@pytest.fixture
def repository(tmp_path) -> Path:
    """A repository with our set-up script, nothing to download, and a space in its path."""
    folder = tmp_path / "a repository"
    (folder / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/setup.sh", folder / "scripts/setup.sh")
    (folder / "requirements.txt").write_text("# nothing\n")
    (folder / "requirements-dev.txt").write_text("-r requirements.txt\n")
    (folder / "backend.py").write_text(BACKEND)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n[project]\nname = "tiny-package"\nversion = "1.0"\n'
    )
    return folder


def setup(repository: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "scripts/setup.sh", *arguments], cwd=repository, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHON": sys.executable, "PIP_NO_INDEX": "1", **environment},
    )  # fmt: skip


def test_makes_an_environment_once(repository):
    first = setup(repository)
    assert first.returncode == 0, first.stderr
    assert "making" in first.stderr
    python = repository / ".venv/bin/python"
    assert (
        subprocess.run(
            [python, "-c", "import importlib.metadata as m; print(m.version('tiny-package'))"],
            capture_output=True,
            text=True,
        ).stdout
        == "1.0\n"
    )
    again = setup(repository)
    assert (again.returncode, again.stderr) == (0, "")


def test_changed_requirements_install_again_and_dev_includes_plain(repository):
    setup(repository)
    dev = setup(repository, "--dev")
    assert "requirements-dev.txt" in dev.stderr
    assert "making" not in dev.stderr
    assert setup(repository).stderr == ""
    (repository / "requirements.txt").write_text("# still nothing\n")
    assert "installing requirements.txt" in setup(repository).stderr


def test_killed_at_any_moment_it_starts_afresh(repository):
    started = subprocess.Popen(
        ["bash", "scripts/setup.sh"], cwd=repository, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHON": sys.executable, "PIP_NO_INDEX": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (repository / ".venv/bin").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    again = setup(repository)
    assert again.returncode == 0, again.stderr
    assert "cut short; starting afresh" in again.stderr
    assert setup(repository).stderr == ""


def test_two_at_once(repository):
    environment = {**os.environ, "PYTHON": sys.executable, "PIP_NO_INDEX": "1"}
    both = [
        subprocess.Popen(
            ["bash", "scripts/setup.sh"], cwd=repository, stderr=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(2)
    ]
    said = [each.communicate(timeout=300)[1] for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    assert sum("making" in text for text in said) == 1
    assert sum("another setup" in text for text in said) <= 1


def test_moved_repository_gets_a_new_environment(repository):
    setup(repository)
    moved = repository.rename(repository.with_name("elsewhere"))
    assert "making" in setup(moved).stderr
    script = (moved / ".venv/bin/pip").read_text()
    assert str(moved) in script


@pytest.mark.parametrize("body", ["exit 127", 'echo "Python 3.9.1"; exit 1'])
def test_unfit_python_is_refused_in_one_line(repository, tmp_path, body):
    shim = tmp_path / "python3"
    shim.write_text(f"#!/bin/sh\n{body}\n")
    shim.chmod(shim.stat().st_mode | stat.S_IXUSR)
    done = setup(repository, PYTHON=str(shim))
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        f"error: PYTHON={shim} is not a Python 3.10, 3.11 or 3.12 with venv and ensurepip"
    ]
    assert not (repository / ".venv/bin").exists()


def test_shims_that_do_not_run_are_passed_over(repository, tmp_path):
    """pyenv leaves a python3.12 on PATH for a version that is not chosen: it is found, and fails."""
    folder = tmp_path / "shims"
    folder.mkdir()
    for name in ("python3", "python3.12", "python3.10"):
        (folder / name).write_text("#!/bin/sh\necho 'not found' >&2\nexit 127\n")
        (folder / name).chmod(0o755)
    (folder / "python3.11").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / "python3.11").chmod(0o755)
    done = setup(repository, PYTHON="", PATH=f"{folder}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr


def test_pip_failing_is_one_line_and_the_next_call_tries_again(repository):
    (repository / "requirements.txt").write_text("no-such-package-of-ours==1\n")
    done = setup(repository)
    assert done.returncode == 2
    assert (
        done.stderr.strip().splitlines()[-1] == "error: pip could not install, see above; the same command tries again"
    )
    (repository / "requirements.txt").write_text("# nothing\n")
    again = setup(repository)
    assert again.returncode == 0
    assert "making" not in again.stderr


def test_relative_paths_count_from_where_they_were_typed(tmp_path):
    """The command runs in the repository, with the config as the person meant it."""
    here = tmp_path / "my work"
    here.mkdir()
    (here / "own.yaml").write_text("")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\npwd\nfor word in "$@"; do echo "$word"; done\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["bash", str(ROOT / "slurm/00_full_pipeline.sh"), "own.yaml", "--set", "a.b=own.yaml", "--dry-run"],
        cwd=here, capture_output=True, text=True, env={**os.environ, "SAE_GENOMICS_PYTHON": str(python)},
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        str(ROOT),
        "-m",
        "sae_genomics.cli",
        "pipeline",
        str(here / "own.yaml"),
        "--set",
        "a.b=own.yaml",
        "--dry-run",
    ]
    shipped = subprocess.run(
        ["bash", str(ROOT / "slurm/status.sh"), "configs/demo.yaml"],
        cwd=here, capture_output=True, text=True, env={**os.environ, "SAE_GENOMICS_PYTHON": str(python)},
    )  # fmt: skip
    assert shipped.stdout.splitlines()[1:] == ["-m", "sae_genomics.cli", "status", "configs/demo.yaml"]


def environment_says(**variables: str) -> subprocess.CompletedProcess[str]:
    """What slurm/lib/environment.sh makes of a profile's variables."""
    script = textwrap.dedent(f"""
        set -u
        root="{ROOT}"
        source "{ROOT}/slurm/lib/environment.sh"
        printf '%s\\n' "${{python[@]}}"
    """)
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, env={**kept, **variables}, cwd="/")


def test_environments_of_compute_nodes(tmp_path):
    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    assert environment_says(SAE_GENOMICS_VENV=str(tmp_path / "venv")).stdout.strip() == str(python)
    missing = environment_says(SAE_GENOMICS_VENV="/nowhere")
    assert missing.returncode == 2
    assert "no Python in /nowhere" in missing.stderr

    tools = tmp_path / "tools"
    tools.mkdir()
    image = tmp_path / "i.sif"
    image.write_text("")
    (tools / "apptainer").write_text("#!/bin/sh\n")
    (tools / "apptainer").chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    words = environment_says(SAE_GENOMICS_ENVIRONMENT="apptainer", SAE_GENOMICS_IMAGE=str(image), SAE_GENOMICS_NV="1", SAE_GENOMICS_BINDS="/a,/b:/c", PATH=path)  # fmt: skip
    assert words.stdout.split() == [
        str(tools / "apptainer"),
        "exec",
        "--bind",
        str(ROOT),
        "--bind",
        "/",
        "--pwd",
        "/",
        "--bind",
        "/a,/b:/c",
        "--nv",
        str(image),
        "python3",
    ]
    assert (
        "no image at"
        in environment_says(SAE_GENOMICS_ENVIRONMENT="apptainer", SAE_GENOMICS_IMAGE="/nowhere.sif", PATH=path).stderr
    )

    lmod = tmp_path / "lmod"
    (lmod / "init").mkdir(parents=True)
    (lmod / "init/bash").write_text('module() { echo "module $*" >&2; [ "$2" != bad/1 ]; }\n')
    done = environment_says(
        SAE_GENOMICS_ENVIRONMENT="modules", SAE_GENOMICS_MODULES="python/3.11 cuda/12", LMOD_PKG=str(lmod)
    )
    assert done.stderr.splitlines() == ["module load python/3.11", "module load cuda/12"]
    assert done.stdout.strip() == "python3"
    bad = environment_says(SAE_GENOMICS_ENVIRONMENT="modules", SAE_GENOMICS_MODULES="bad/1", LMOD_PKG=str(lmod))
    assert bad.returncode == 2
    assert "module load bad/1 failed" in bad.stderr

    conda = tmp_path / "conda"
    (conda / "etc/profile.d").mkdir(parents=True)
    (conda / "etc/profile.d/conda.sh").write_text('conda() { [ "$2" = good ] && export CONDA_PREFIX=/envs/good; }\n')
    executable = tmp_path / "conda.exe"
    executable.write_text(f"#!/bin/sh\necho {conda}\n")
    executable.chmod(0o755)
    assert (
        environment_says(
            SAE_GENOMICS_ENVIRONMENT="conda", SAE_GENOMICS_CONDA="good", CONDA_EXE=str(executable)
        ).stdout.strip()
        == "/envs/good/bin/python"
    )
    assert (
        "conda activate bad failed"
        in environment_says(
            SAE_GENOMICS_ENVIRONMENT="conda", SAE_GENOMICS_CONDA="bad", CONDA_EXE=str(executable)
        ).stderr
    )
