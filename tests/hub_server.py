"""A local server that speaks the hub's protocol, downloads and commits, and processes that are pointed at it."""

import base64
import hashlib
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
RELEASE = ROOT / "tests" / "fixtures" / "tx1_parity" / "relu_70m_style"
COMMIT = "a" * 40


class Hub(ThreadingHTTPServer):
    """Serves a repository's files as the hub does: branches and commits, metadata in headers, byte ranges."""

    def __init__(self, files: dict[str, bytes], repository: str = "tahoebio/Tahoe-x1"):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repository = repository
        self.files, self.requests, self.tokens, self.hold_after = files, [], [], None
        self.branches, self.commits = {"main": COMMIT}, {COMMIT: files}
        self.key, self.exists, self.private = (
            None,
            True,
            None,
        )  # a key opens it for writing; without one it is read-only
        self.objects = {}  # large files that were sent, by SHA-256, before a commit names them
        self.closing = threading.Event()
        self.daemon_threads = True
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def publish(self, commit: str, files: dict[str, bytes], branch: str = "main") -> None:
        """Move a branch on to a new commit; the older ones stay."""
        self.commits[commit], self.branches[branch] = files, commit

    def commit(self, changes: dict[str, bytes | None]) -> str:
        """Put a commit on main: files by path, None for one that is deleted. Returns its id."""
        files = {**self.commits[self.branches["main"]], **changes}
        files = {path: data for path, data in files.items() if data is not None}
        commit = hashlib.sha1(b"".join(path.encode() + data for path, data in sorted(files.items()))).hexdigest()
        self.publish(commit, files)
        return commit

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
        self.server.tokens.append(self.headers.get("Authorization"))
        repository = self.server.repository
        if not self.server.exists:
            self.send_error_code(404, "RepoNotFound")
        elif path.startswith(f"/api/models/{repository}/tree/"):
            files = self.server.commits[self.server.branches[path.rpartition("/")[2]]]
            self.send_json(
                [{"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in files.items()]
            )
        elif path.startswith(f"/{repository}/resolve/"):
            revision, name = path.split("/resolve/")[1].split("/", 1)
            commit = self.server.branches.get(revision, revision)
            if commit not in self.server.commits:
                self.send_error_code(404, "RevisionNotFound")
            elif name not in self.server.commits[commit]:
                self.send_error_code(404, "EntryNotFound", commit)
            else:
                self.send_file(self.server.commits[commit][name], body, commit)
        else:
            self.send_error_code(404, "RepoNotFound")

    def do_POST(self):
        path = unquote(urlsplit(self.path).path)
        body = self.body()
        self.server.requests.append((self.command, path, None))
        self.server.tokens.append(self.headers.get("Authorization"))
        repository = self.server.repository
        if path == "/api/validate-yaml":
            self.send_json({"errors": [], "warnings": []})
        elif self.server.key is None or self.headers.get("Authorization") != f"Bearer {self.server.key}":
            self.send_json({"error": "Invalid user token"}, 401)
        elif path == "/api/repos/create":
            asked = json.loads(body)
            assert f"{asked['organization']}/{asked['name']}" == repository
            if not self.server.exists:
                self.server.private = asked.get("visibility") == "private" or asked.get("private") is True
                self.server.exists = True
                self.send_json({"url": f"{self.server.url}/{repository}"})
            else:
                url = f"{self.server.url}/{repository}"
                self.send_json({"error": "You already created this model repo", "url": url}, 409)
        elif path == f"/api/models/{repository}/preupload/main":
            modes = [
                {"path": each["path"], "shouldIgnore": False, "oid": None,
                 "uploadMode": "lfs" if each["path"].endswith((".safetensors", ".parquet")) else "regular"}
                for each in json.loads(body)["files"]
            ]  # fmt: skip
            self.send_json({"files": modes})
        elif path == f"/{repository}.git/info/lfs/objects/batch":
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.server.url}/lfs/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            self.send_json({"transfer": "basic", "objects": objects})
        elif path == f"/api/models/{repository}/commit/main":
            changes = {}
            for line in body.decode().splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "file":
                    changes[value["path"]] = base64.b64decode(value["content"])
                elif entry["key"] == "lfsFile":
                    changes[value["path"]] = self.server.objects[value["oid"]]
                elif entry["key"] == "deletedFile":
                    changes[value["path"]] = None
            commit = self.server.commit(changes)
            url = f"{self.server.url}/{repository}/commit/{commit}"
            self.send_json({"commitUrl": url, "commitOid": commit})
        else:
            self.send_error_code(404, "RepoNotFound")

    def do_PUT(self):
        oid, data = self.path.rpartition("/")[2], self.body()
        assert hashlib.sha256(data).hexdigest() == oid
        self.server.objects[oid] = data
        self.send_json({})

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def send_json(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def send_error_code(self, status, code, commit=None):
        self.send_response(status)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_file(self, data, body, commit):
        start, stop = 0, len(data)
        if self.headers.get("Range"):
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            start, stop = int(first), min(stop, int(last) + 1) if last else stop
        part = start or stop < len(data)
        self.send_response(206 if part else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(stop - start))
        if part:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.end_headers()
        if body:
            hold = self.server.hold_after
            if hold is not None and len(data) > hold and not start:
                self.wfile.write(data[:hold])
                self.wfile.flush()
                self.server.closing.wait(60)
                return
            self.wfile.write(data[start:stop])


def release_files(folder: str) -> dict[str, bytes]:
    names = ("model_config.yml", "collator_config.yml", "vocab.json", "model.safetensors")
    return {f"{folder}/{name}": (RELEASE / name).read_bytes() for name in names}


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


def addresses(hub: Hub) -> set[str]:
    """Revisions that files were asked for by."""
    return {path.split("/resolve/")[1].split("/")[0] for _, path, _ in hub.requests if "/resolve/" in path}
