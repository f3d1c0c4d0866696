"""A local server that pages, fails and compresses as UniProt's REST service does."""

from __future__ import annotations

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


def entry(number: int, sequence: str = "MKVLAACDEFGHIKLMNPQRSTVWYACDEF") -> dict[str, Any]:
    """One entry in the service's form."""
    return {
        "entryType": "UniProtKB reviewed (Swiss-Prot)" if number % 2 else "UniProtKB unreviewed (TrEMBL)",
        "primaryAccession": f"P{number:05d}",
        "uniProtkbId": f"T{number}_HUMAN",
        "organism": {"scientificName": "Homo sapiens", "taxonId": 9606},
        "proteinDescription": {"recommendedName": {"fullName": {"value": f"Zinc finger protein {number}"}}},
        "genes": [{"geneName": {"value": f"ZNF{number}"}}],
        "comments": [
            {"commentType": "FUNCTION", "texts": [{"value": "Belongs to nothing."}]},
            {"commentType": "SIMILARITY", "texts": [{"value": f"Belongs to the family{number % 3} family. Some subfamily."}]},
        ],
        "sequence": {"value": sequence, "length": len(sequence)},
        "features": [
            feature("Zinc finger", 3, 9, "C2H2-type 1"),
            feature("Zinc finger", 12, 18, "C2H2-type 2; degenerate"),
            feature("Transmembrane", 1, 5, "Helical; Name=1"),
            feature("Signal", 1, 4, ""),
            feature("Binding site", 20, 20, "", ligand={"name": "Zn(2+)", "id": "ChEBI:CHEBI:29105"}),
            feature("Domain", 2, 30, "SH3", start_modifier="OUTSIDE"),
            {"type": "Domain", "location": {"start": {"value": None, "modifier": "UNKNOWN"}, "end": {"value": 9, "modifier": "EXACT"}}},
            {**feature("Domain", 2, 8, "of an isoform"), "location": {**feature("Domain", 2, 8, "")["location"], "sequence": "P1-2"}},
        ],
        "uniProtKBCrossReferences": [{"database": "Pfam", "id": "PF00096", "properties": []}, {"database": "PDB", "id": "1ABC"}],
    }  # fmt: skip


def feature(
    kind: str, start: int, end: int, description: str, start_modifier: str = "EXACT", **more: Any
) -> dict[str, Any]:
    location = {"start": {"value": start, "modifier": start_modifier}, "end": {"value": end, "modifier": "EXACT"}}
    return {"type": kind, "location": location, "description": description, **more}


class UniProt(ThreadingHTTPServer):
    """entries: what there is. failures: for each coming request, what goes wrong with it (None: nothing)."""

    daemon_threads = True

    def __init__(self, entries: list[dict[str, Any]]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.entries = entries
        self.failures: list[Any] = []
        self.requests: list[dict[str, str]] = []
        self.release = "2026_05"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: UniProt

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        values = {key: value[0] for key, value in parse_qs(parts.query).items()}
        self.server.requests.append(values | {"agent": self.headers["User-Agent"]})
        failure = self.server.failures.pop(0) if self.server.failures else None
        if isinstance(failure, int):
            return self._say(failure, {"url": "x", "messages": ["the service is busy"]}, {"Retry-After": "0"})
        if failure == "drop":
            return self.connection.close()
        if parts.path != "/uniprotkb/search" or "wrong:" in values.get("query", ""):
            return self._say(400, {"url": "x", "messages": ["'wrong' is not a valid search field"]}, {})
        first = int(values.get("cursor", "0"))
        size = int(values["size"])
        assert 1 <= size <= 500
        chosen = [] if values["query"] == "nothing" else self.server.entries
        headers = {"X-Total-Results": str(len(chosen)), "X-UniProt-Release": self.server.release}
        if first + size < len(chosen):
            url = f"{self.server.url}{parts.path}?format=json&query=q&fields={values['fields']}&cursor={first + size}&size={size}"
            headers["Link"] = f'<{url}>; rel="next"'
        self._say(200, {"results": chosen[first : first + size]}, headers, cut=failure == "cut")

    def _say(self, status: int, value: Any, headers: dict[str, str], cut: bool = False) -> None:
        data = json.dumps(value).encode()
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            data = gzip.compress(data)
            headers = headers | {"Content-Encoding": "gzip"}
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
