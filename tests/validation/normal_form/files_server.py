"""A local server of files that resumes, redirects and fails as the databases' servers do."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Your key has expired.</body></html>"


class FileServer(ThreadingHTTPServer):
    """files: path -> body. failures: for each coming request what goes wrong (None: nothing): a status, a status with headers, "half",
    "drop", "slow", "html". redirects: path -> where to. rows: what the REST interface has per gene. requests: path and headers of all.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.failures: list[Any] = []
        self.redirects: dict[str, str] = {}
        self.rows: dict[str, int] = {}
        self.announced_too_many = 0
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.tags = True
        self.patience = 3.0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        path = urlsplit(self.path).path
        failure = self.server.failures.pop(0) if self.server.failures else None
        status, headers = failure if isinstance(failure, tuple) else (failure, {})
        if isinstance(status, int):
            return self._say(status, b"busy", {"Retry-After": "0"} | headers)
        if failure == "drop":
            return self.connection.close()
        if failure == "slow":
            time.sleep(self.server.patience)
        if failure == "html":
            return self._say(200, PAGE, {"Content-Type": "text/html"})
        if path in self.server.redirects:
            return self._say(302, b"", {"Location": self.server.redirects[path]})
        if path == "/gda/summary":
            return self._rows(parse_qs(urlsplit(self.path).query))
        body = self.server.files.get(path)
        if body is None:
            return self._say(404, b"no such file", {})
        return self._file(body, half=failure == "half")

    def _file(self, body: bytes, half: bool) -> None:
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        headers = {"ETag": tag, "Last-Modified": "Fri, 04 Sep 2026 10:00:00 GMT"} if self.server.tags else {}
        first = 0
        if (text := self.headers.get("Range")) and self.headers.get("If-Range") == tag:
            first = int(text.removeprefix("bytes=").rstrip("-"))
            if first >= len(body):
                return self._say(416, b"", {})
            headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
        self._say(206 if first else 200, body[first:], headers, half)

    def _rows(self, query: dict[str, list[str]]) -> None:
        genes, page = query["gene_ncbi_id"][0].split(","), int(query["page_number"][0])
        rows = [{"geneNcbiID": int(gene), "n": i} for gene in genes for i in range(self.server.rows.get(gene, 0))]
        answer = {
            "status": "OK", "warnings": ["only curated sources for this key"], "payload": rows[page * 5 : page * 5 + 5],
            "paging": {"totalElements": len(rows) + self.server.announced_too_many}, "requestpar": dict(self.headers),
        }  # fmt: skip
        self._say(200, json.dumps(answer).encode(), {})

    def _say(self, status: int, body: bytes, headers: dict[str, str], half: bool = False) -> None:
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if half else body)
