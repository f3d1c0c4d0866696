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
    assert setup(repository).stderr == ""
    (repository / "requirements.txt").write_text("# still nothing\n")
    assert "installing requirements.txt" in setup(repository).stderr
    assert setup(repository).stderr == ""


def test_only_what_an_installation_reads_of_pyproject_counts(repository):
    setup(repository)
    pyproject = repository / "pyproject.toml"
    text = pyproject.read_text()
    pyproject.write_text(text + "[tool.ruff]\nline-length = 100\n")
    assert setup(repository).stderr == ""
    pyproject.write_text(text.replace("1.0", "1.1"))
    assert "making" in setup(repository).stderr


def test_killed_at_any_moment_it_starts_afresh(repository):
    started = subprocess.Popen(
        ["bash", "scripts/setup.sh"], cwd=repository, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHON": sys.executable, "PIP_NO_INDEX": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(repository.glob(".venv/versions/*/bin")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    again = setup(repository)
    assert again.returncode == 0, again.stderr
    assert "cut short; starting afresh" in again.stderr
    assert len(versions(repository / ".venv")) == 1
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


def test_copied_repository_gets_a_new_environment(repository):
    setup(repository)
    copied = repository.with_name("copy")
    shutil.copytree(repository, copied, symlinks=True)
    assert "making" in setup(copied).stderr
    assert setup(repository).stderr == ""
    assert setup(copied).stderr == ""


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
    assert not (repository / ".venv").exists()


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
    assert versions(repository / ".venv") == []
    assert setup(repository).returncode == 0


# --- nothing is touched that this script did not make ---


def tree(folder: Path) -> dict[str, tuple]:
    """Everything below a folder, itself included: kind, size, times, content, where a link points."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        about = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path)] = (about.st_mode, about.st_size, about.st_mtime_ns, about.st_ino, content)
    return found


def full(folder: Path) -> None:
    (folder / "thesis").mkdir(parents=True)
    (folder / "thesis/chapter.tex").write_text("years of work")
    (folder / "bin").mkdir()
    (folder / "lib").mkdir()


def foreign_venv(folder: Path, pip: bool = True) -> None:
    """What `python -m venv` leaves, as far as anybody can tell it from outside, and a package of its owner's."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").symlink_to(sys.executable)
    (folder / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).parent}\n")
    if pip:
        (folder / "bin/pip").write_text(f"#!{folder}/bin/python\n")
    (folder / "lib/python3.11/site-packages/theirs").mkdir(parents=True)
    (folder / "lib/python3.11/site-packages/theirs/__init__.py").touch()


def linked(folder: Path) -> None:
    full(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))


def linked_venv(folder: Path) -> None:
    foreign_venv(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))


def only_a_lock(folder: Path) -> None:
    folder.mkdir()
    (folder / ".sae-genomics-lock").touch()


FOREIGN = {
    "a full folder": full,
    "a link to a full folder": linked,
    "a venv": foreign_venv,
    "a link to a venv": linked_venv,
    "a venv without pip": lambda folder: foreign_venv(folder, pip=False),
    "a file": lambda folder: folder.write_text("text"),
    "a link to nothing": lambda folder: folder.symlink_to(folder.with_name("nowhere")),
    "only a lock": only_a_lock,
}


@pytest.mark.parametrize("named", ["by the variable", "as .venv"])
@pytest.mark.parametrize("kind", list(FOREIGN))
@pytest.mark.parametrize("option", [(), ("--if-missing",)])
def test_a_folder_of_somebody_else_is_refused_and_left_as_it_is(repository, tmp_path, kind, named, option):
    surroundings = tmp_path / "surroundings"
    surroundings.mkdir()
    folder = surroundings / "folder" if named == "by the variable" else repository / ".venv"
    FOREIGN[kind](folder)
    before = tree(tmp_path)
    done = setup(repository, *option, **({"SAE_GENOMICS_VENV": str(folder)} if named == "by the variable" else {}))
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: {folder} ")
    assert "set SAE_GENOMICS_VENV to a new or an empty folder" in done.stderr
    assert tree(tmp_path) == before


@pytest.mark.parametrize("which", ["/", "home", "empty home", "repository", "a link to the repository"])
def test_folders_that_are_somebody_s_whatever_they_hold(repository, tmp_path, which):
    home = tmp_path / "home"
    home.mkdir()
    if which == "home":
        (home / ".sae-genomics-installed").touch()
    (tmp_path / "link").symlink_to(repository)
    folder = {"/": "/", "repository": str(repository), "a link to the repository": str(tmp_path / "link")}.get(
        which, home
    )
    before = tree(tmp_path)
    done = setup(repository, SAE_GENOMICS_VENV=str(folder), HOME=str(home))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "an environment needs a folder for itself" in done.stderr
    assert tree(tmp_path) == before
    assert not list(Path("/").glob(".sae-genomics-*"))


@pytest.mark.parametrize("kind", ["new", "empty", "a link to an empty folder", "relative"])
def test_a_new_or_empty_folder_is_taken(repository, tmp_path, kind):
    folder = repository / "../elsewhere/venv" if kind == "relative" else tmp_path / "deep/venv"
    if kind == "empty":
        folder.mkdir(parents=True)
    elif kind != "relative" and kind != "new":
        (tmp_path / "target").mkdir()
        folder.parent.mkdir()
        folder.symlink_to(tmp_path / "target")
    done = setup(repository, SAE_GENOMICS_VENV="../elsewhere/venv" if kind == "relative" else str(folder))
    assert done.returncode == 0, done.stderr
    assert subprocess.run([folder / "bin/python", "-c", "import tiny_package"], capture_output=True).returncode == 1
    assert subprocess.run([folder / "bin/pip", "--version"], capture_output=True).returncode == 0
    assert not (repository / ".venv").exists()


# --- an environment is never changed under what runs in it ---


def versions(venv: Path) -> list[str]:
    return sorted(path.name for path in venv.glob("versions/*"))


def python_of(repository: Path, **environment: str) -> str:
    """The interpreter that a Slurm task would be started with."""
    script = f"set -u; root='{repository}'; source '{ROOT}/slurm/lib/environment.sh'; echo \"${{python[0]}}\""
    shutil.copytree(ROOT / "slurm", repository / "slurm", dirs_exist_ok=True)
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    ).stdout.strip()


def late_module(venv: Path, text: str) -> None:
    (next(venv.glob("lib/python3*/site-packages")) / "late_module.py").write_text(f"text = {text!r}\n")


def at_work(python: str, folder: Path) -> subprocess.Popen[str]:
    """A job that imports something long after it was started."""
    (folder / "go").unlink(missing_ok=True)
    program = f"import os, time\nprint('at work', flush=True)\nwhile not os.path.exists({str(folder / 'go')!r}): time.sleep(0.02)\nimport late_module\nprint(late_module.text)"
    started = subprocess.Popen([python, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert started.stdout.readline() == "at work\n"
    return started


def imports_at_last(started: subprocess.Popen[str], folder: Path) -> str:
    (folder / "go").touch()
    output, error = started.communicate(timeout=60)
    assert started.returncode == 0, error
    return output.strip()


def test_a_job_at_work_keeps_its_environment_when_requirements_change(repository, tmp_path):
    assert setup(repository).returncode == 0
    late_module(repository / ".venv", "before")
    job = at_work(python_of(repository), tmp_path)
    (repository / "requirements.txt").write_text("# other\n")
    assert "making" in setup(repository).stderr
    late_module(repository / ".venv", "after")
    assert imports_at_last(job, tmp_path) == "before"
    assert imports_at_last(at_work(python_of(repository), tmp_path), tmp_path) == "after"
    assert imports_at_last(at_work(str(repository / ".venv/bin/python"), tmp_path), tmp_path) == "after"


def test_by_another_name_the_repository_has_the_same_environment(repository, tmp_path):
    assert setup(repository).returncode == 0
    before = tree(repository / ".venv")
    link = tmp_path / "a link"
    link.symlink_to(repository)
    for arguments in (["scripts/setup.sh"], [str(link / "scripts/setup.sh")], ["scripts/setup.sh", "--if-missing"]):
        done = subprocess.run(
            ["bash", *arguments], cwd=link, capture_output=True, text=True, timeout=300,
            env={**os.environ, "PYTHON": sys.executable, "PIP_NO_INDEX": "1", "PWD": str(link)},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
    assert tree(repository / ".venv") == before


def plain_environment(repository: Path, name: str | None = None) -> None:
    """What this script once left: one environment that fills the folder, and a stamp. name: the repository's, as it was typed."""
    venv = repository / ".venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    (venv / ".sae-genomics-lock").touch()
    texts = [(repository / each).read_bytes() for each in ("requirements.txt", "pyproject.toml")]
    stamp = subprocess.run(["cksum"], input=b"".join([*texts, f"{name or repository}\n".encode()]), capture_output=True)
    (venv / ".sae-genomics-installed").write_bytes(stamp.stdout * 2)


def test_an_environment_of_an_earlier_edition_is_ours_and_stays_in_use(repository):
    plain_environment(repository)
    before = tree(repository / ".venv")
    done = setup(repository)
    assert (done.returncode, done.stderr) == (0, "")
    assert tree(repository / ".venv") == before
    assert python_of(repository) == str(repository / ".venv/bin/python")


def test_an_environment_of_an_earlier_edition_is_kept_when_a_new_one_takes_over(repository, tmp_path):
    """The job of the old one was started by the folder's own name: it finds there what the new one has."""
    plain_environment(repository, "/home/me/by-another-name")
    late_module(repository / ".venv", "before")
    (repository / ".venv/notes.txt").write_text("mine")
    job = at_work(str(repository / ".venv/bin/python"), tmp_path)
    done = setup(repository, PYTHON="")
    assert done.returncode == 0, done.stderr
    assert "the environment of before is kept in" in done.stderr
    kept = next((repository / ".venv/versions").glob("plain-*"))
    assert list(kept.glob("lib/python3*/site-packages/late_module.py"))
    assert (repository / ".venv/notes.txt").read_text() == "mine"
    late_module(repository / ".venv", "after")
    assert imports_at_last(job, tmp_path) == "after"
    assert setup(repository).stderr == ""
    (repository / "requirements.txt").write_text("# other\n")
    assert setup(repository).returncode == 0
    assert kept.exists()


def test_commands_that_only_look_build_nothing_where_there_is_an_environment(repository):
    shutil.copytree(ROOT / "slurm", repository / "slurm")
    (repository / "sae_genomics").mkdir()
    (repository / "sae_genomics/cli.py").write_text("import sys; print(*sys.argv[1:])")

    def typed(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SAE_GENOMICS")}
        return subprocess.run(
            ["bash", *words], cwd=repository, capture_output=True, text=True, timeout=300,
            env={**environment, "PYTHON": sys.executable, "PIP_NO_INDEX": "1"},
        )  # fmt: skip

    assert "making" in typed("slurm/status.sh").stderr, "there was none"
    (repository / "requirements.txt").write_text("# other\n")
    before = tree(repository / ".venv")
    looks = (
        ["slurm/status.sh"], ["slurm/status.sh", "--watch"], ["slurm/00_full_pipeline.sh", "--help"],
        ["slurm/00_full_pipeline.sh", "--dry-run"], ["slurm/resubmit_failed.sh", "-h"], ["slurm/resubmit_failed.sh", "--dry-run"],
    )  # fmt: skip
    for words in looks:
        done = typed(*words)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [{"00_full_pipeline": "pipeline", "resubmit_failed": "resubmit", "status": "status"}[Path(words[0]).stem], *words[1:]]  # fmt: skip
        assert len(done.stderr.splitlines()) == 1
        assert "is used as it is; renew it with: bash scripts/setup.sh" in done.stderr
    assert tree(repository / ".venv") == before
    assert "making" in typed("slurm/00_full_pipeline.sh").stderr
    assert typed("slurm/status.sh").stderr == ""


def test_interrupted_at_any_moment_the_environment_before_stays_usable(repository):
    assert setup(repository).returncode == 0
    python = repository / ".venv/bin/python"
    (repository / "requirements.txt").write_text("# other\n")
    for seconds in (0.3, 1.0, 2.0, 4.0):
        started = subprocess.Popen(
            ["bash", "scripts/setup.sh"], cwd=repository, stderr=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "PYTHON": sys.executable, "PIP_NO_INDEX": "1"},
        )  # fmt: skip
        time.sleep(seconds)
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
        assert subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0
    assert setup(repository).returncode == 0
    assert len(versions(repository / ".venv")) == 2
    assert setup(repository).stderr == ""


def test_only_old_versions_of_ours_are_removed(repository):
    venv = repository / ".venv"
    assert setup(repository).returncode == 0
    first = versions(venv)[0]
    (venv / "versions/mine").mkdir()
    (venv / "versions/mine/notes.txt").write_text("mine")
    (repository / "requirements.txt").write_text("# second\n")
    assert setup(repository).returncode == 0
    second = (venv / "current").resolve().name
    (repository / "requirements.txt").write_text("# third\n")
    long_ago = time.time() - 15 * 86400
    os.utime(venv / "versions" / first / ".sae-genomics-replaced", (long_ago, long_ago))
    assert "replaced more than 14 days ago" in setup(repository).stderr
    third = (venv / "current").resolve().name
    assert versions(venv) == sorted([second, third, "mine"])
    assert (venv / "versions/mine/notes.txt").read_text() == "mine"


def test_requirements_that_come_back_find_their_environment(repository):
    assert setup(repository).returncode == 0
    first = (repository / ".venv/current").resolve()
    before = (repository / "requirements.txt").read_text()
    (repository / "requirements.txt").write_text("# other\n")
    assert setup(repository).returncode == 0
    (repository / "requirements.txt").write_text(before)
    back = setup(repository)
    assert "suits again" in back.stderr
    assert "making" not in back.stderr
    assert (repository / ".venv/current").resolve() == first
    assert not (first / ".sae-genomics-replaced").exists()
    assert setup(repository).stderr == ""


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
