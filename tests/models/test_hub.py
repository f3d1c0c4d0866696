"""The download against a local server that speaks the hub's protocol, with the real client."""

import hashlib
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
RELEASE = ROOT / "tests" / "fixtures" / "tx1_parity" / "relu_70m_style"
COMMIT = "a" * 40


class Hub(ThreadingHTTPServer):
    """Serves a repository's files as the hub does: listing, metadata in headers, byte ranges, a commit hash."""

    def __init__(self, files: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests, self.hold_after = files, [], None
        self.closing = threading.Event()
        self.daemon_threads = True
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool):
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((self.command, path, self.headers.get("Range")))
        repository = "tahoebio/Tahoe-x1"
        if path.startswith(f"/api/models/{repository}/tree/"):
            self.send_json([self.entry(name, data) for name, data in self.server.files.items()])
        elif path.startswith(f"/api/models/{repository}"):
            self.send_json(
                {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.server.files]}
            )
        elif path.startswith(f"/{repository}/resolve/"):
            name = path.split("/resolve/")[1].split("/", 1)[1]
            if name not in self.server.files:
                self.send_error_code(404, "EntryNotFound")
            else:
                self.send_file(self.server.files[name], body)
        else:
            self.send_error_code(404, "RepoNotFound")

    @staticmethod
    def entry(name, data):
        return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def send_json(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def send_error_code(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_file(self, data, body):
        start = 0
        if self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if body:
            hold = self.server.hold_after
            if hold is not None and len(data) > hold and not start:
                self.wfile.write(data[:hold])
                self.wfile.flush()
                self.server.closing.wait(60)
                return
            self.wfile.write(data[start:])


def release_files(folder: str) -> dict[str, bytes]:
    names = ("model_config.yml", "collator_config.yml", "vocab.json", "model.safetensors")
    return {f"{folder}/{name}": (RELEASE / name).read_bytes() for name in names}


@pytest.fixture
def hub():
    server = Hub({**release_files("70m-model"), **release_files("1.3b-model"), "README.md": b"hello"})
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()


def start(code_or_args, hub_url, home, **environment):
    """A process of its own: the hub's client reads its settings from the environment when it is imported."""
    command = [sys.executable, "-c", code_or_args] if isinstance(code_or_args, str) else [sys.executable, *code_or_args]
    env = {
        "PATH": "/usr/bin:/bin",
        "HF_ENDPOINT": hub_url,
        "HF_HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_DISABLE_XET": "1",
        **environment,
    }
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def run(code_or_args, hub_url, home, **environment):
    process = start(code_or_args, hub_url, home, **environment)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


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
