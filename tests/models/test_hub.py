"""The download against a local server that speaks the hub's protocol, with the real client."""

import hashlib
import time
from pathlib import Path

import pytest

from tests.hub_server import COMMIT, RELEASE, addresses, run, start

SCRIPT = "scripts/download_model.py"
LOAD = """
from sae_genomics.config import ModelConfig
from sae_genomics.models import describe, load_model
config = ModelConfig(name="tahoe-x1-70m", device="cpu")
before = describe(config)
model = load_model(config)
assert describe(config).identity == before.identity, "fingerprints must not change with the download"
print(model.info.n_layers, model.info.d_model, len(model.vocab))
"""


@pytest.mark.slow
def test_a_login_node_downloads_and_a_compute_node_without_network_loads(hub, tmp_path):
    done = run([SCRIPT, "tahoe-x1-70m"], hub.url, tmp_path)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip().removeprefix("tahoe-x1-70m: "))
    assert folder.is_relative_to(tmp_path), "HF_HOME decides"
    assert COMMIT in folder.parts, "the revision is pinned by the cache's layout"
    assert (folder / "model.safetensors").read_bytes() == (RELEASE / "model.safetensors").read_bytes()
    asked = len(hub.requests)
    loaded = run(LOAD, "http://127.0.0.1:9", tmp_path)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.split() == ["3", "48", "120"]
    assert len(hub.requests) == asked
    assert not any("1.3b" in path for method, path, _ in hub.requests if "resolve" in path), "only what was asked for"


def test_a_cache_folder_of_ones_own(hub, tmp_path):
    done = run([SCRIPT, "tahoe-x1-70m", "--cache", str(tmp_path / "mine")], hub.url, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "mine") in done.stdout
    listed = run([SCRIPT, "--list", "--cache", str(tmp_path / "mine")], "http://127.0.0.1:9", tmp_path / "home")
    assert "tahoe-x1-3b: 32 layers, d_model 2560, not downloaded" in listed.stdout
    assert f"tahoe-x1-70m: 12 layers, d_model 512, {tmp_path / 'mine'}" in listed.stdout


def part_of(home: Path) -> list[Path]:
    return list(home.glob("hub/*/blobs/*.part"))


def test_a_killed_download_goes_on_where_it_stopped(hub, tmp_path):
    weights = hub.files["70m-model/model.safetensors"] = (
        bytes(range(256)) * 60_000
    )  # the client writes 10 MiB at a time
    hub.hold_after = 12_000_000  # sends so much of a file, then nothing
    process = start([SCRIPT, "tahoe-x1-70m"], hub.url, tmp_path)
    deadline = time.monotonic() + 60
    while not (part_of(tmp_path) and part_of(tmp_path)[0].stat().st_size >= 10 << 20):
        assert time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    process.kill()
    process.wait()
    hub.hold_after = None
    done = run([SCRIPT, "tahoe-x1-70m"], hub.url, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "going on after 10.5 of 15.4 MB" in done.stderr
    assert any(path.endswith("model.safetensors") and wanted == "bytes=10485760-" for _, path, wanted in hub.requests)
    folder = Path(done.stdout.strip().removeprefix("tahoe-x1-70m: "))
    assert (folder / "model.safetensors").read_bytes() == weights
    assert not part_of(tmp_path)


def test_damaged_content_is_not_kept(hub, tmp_path):
    blobs = tmp_path / "hub" / "models--tahoebio--Tahoe-x1" / "blobs"
    blobs.mkdir(parents=True)
    weights = hub.files["70m-model/model.safetensors"]
    (blobs / f"{hashlib.sha256(weights).hexdigest()}.part").write_bytes(b"x" * 1000)
    done = run([SCRIPT, "tahoe-x1-70m"], hub.url, tmp_path)
    assert done.returncode == 2
    assert "arrived damaged" in done.stderr
    again = run([SCRIPT, "tahoe-x1-70m"], hub.url, tmp_path)
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("environment", "files", "expected"),
    [
        pytest.param(
            {"HF_ENDPOINT": "http://127.0.0.1:9"},
            None,
            "python scripts/download_model.py tahoe-x1-70m",
            marks=pytest.mark.slow,
        ),
        ({"HF_HUB_OFFLINE": "1"}, None, "python scripts/download_model.py tahoe-x1-70m"),
        ({}, ["70m-model/vocab.json"], "70m-model/vocab.json"),
    ],
    ids=["unreachable", "offline mode", "file missing"],
)
def test_one_line_says_what_to_do(hub, tmp_path, environment, files, expected):
    for name in files or []:
        del hub.files[name]
    done = run([SCRIPT, "tahoe-x1-70m"], environment.pop("HF_ENDPOINT", hub.url), tmp_path, **environment)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 2, "what it set out to do, and why it could not"


def test_an_unknown_name(tmp_path):
    done = run([SCRIPT, "tahoe-x2"], "http://127.0.0.1:9", tmp_path)
    assert done.returncode == 2
    assert "tahoe-x1-1.3b" in done.stderr


OTHER = "b" * 40


def test_all_files_are_of_one_commit_though_the_branch_moves_on(hub, tmp_path):
    hub.publish(OTHER, {**hub.files, "70m-model/vocab.json": b"{}"}, branch="next")
    assert run([SCRIPT, "tahoe-x1-70m"], hub.url, tmp_path).returncode == 0
    assert addresses(hub) == {"main", COMMIT}
    assert [path for _, path, _ in hub.requests if "/main/" in path] == [
        "/tahoebio/Tahoe-x1/resolve/main/70m-model/model_config.yml"
    ] * 2, "the branch is looked up with one file (its metadata, its content)"


@pytest.mark.parametrize("revision", ["next", OTHER, OTHER.upper()])
def test_another_revision(hub, tmp_path, revision):
    hub.publish(OTHER, dict(hub.files), branch="next")
    done = run([SCRIPT, "tahoe-x1-70m", "--revision", revision], hub.url, tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"/snapshots/{OTHER}/70m-model" in done.stdout
    assert addresses(hub) <= {"next", OTHER}
    listed = run([SCRIPT, "--list", "--revision", revision], "http://127.0.0.1:9", tmp_path)
    assert f"/snapshots/{OTHER}/70m-model" in listed.stdout
    assert "tahoe-x1-70m: 12 layers, d_model 512, not downloaded" in run([SCRIPT, "--list"], hub.url, tmp_path).stdout


@pytest.mark.parametrize(
    ("revision", "says"),
    [
        ("gone", "has no revision gone of tahoebio/Tahoe-x1; set model.revision"),
        ("c" * 40, f"has no revision {'c' * 40}"),
        ("abc1234", "write all 40 digits"),
        ("../main", "a branch, a tag"),
    ],
)
def test_one_line_for_a_revision_that_is_not_there(hub, tmp_path, revision, says):
    done = run([SCRIPT, "tahoe-x1-70m", "--revision", revision], hub.url, tmp_path)
    assert done.returncode == 2
    assert says in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


KNOWN_COMMIT = f"""
from dataclasses import replace
from sae_genomics.config import ModelConfig
from sae_genomics.models import describe, hub, load_model
hub.RELEASES["tahoe-x1-70m"] = replace(hub.RELEASES["tahoe-x1-70m"], revision={OTHER!r})
before = describe(ModelConfig(name="tahoe-x1-70m"))
assert before.identity == "hub:tahoebio/Tahoe-x1/70m-model@" + {OTHER!r}, before.identity
loaded = load_model(ModelConfig(name="tahoe-x1-70m", device="cpu")).info
assert (loaded.identity, loaded.revision, before.revision) == (before.identity, {OTHER!r}, {OTHER!r})
"""


@pytest.mark.slow
def test_a_release_whose_commit_is_known_is_never_looked_up(hub, tmp_path):
    hub.publish(OTHER, dict(hub.files), branch="next")
    done = run(KNOWN_COMMIT, hub.url, tmp_path)
    assert done.returncode == 0, done.stderr
    assert addresses(hub) == {OTHER}


def test_the_token_is_taken_from_the_environment_alone(hub, tmp_path):
    tmp_path.joinpath("token").write_text("hf_of_a_file")  # where the client keeps that of a login
    assert run([SCRIPT, "tahoe-x1-70m"], hub.url, tmp_path).returncode == 0
    assert set(hub.tokens) == {None}
    done = run([SCRIPT, "tahoe-x1-1.3b"], hub.url, tmp_path, HF_TOKEN="hf_of_the_environment")
    assert set(hub.tokens) == {None, "Bearer hf_of_the_environment"}
    assert "hf_of" not in done.stdout + done.stderr
