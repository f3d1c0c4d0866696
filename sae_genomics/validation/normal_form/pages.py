"""DisGeNET's REST interface: all pages of its gene-disease summary, as one file with one answer per line."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sae_genomics.atomic import put_in_place, read_json, write_json
from sae_genomics.errors import UserError
from sae_genomics.progress import Progress, say
from sae_genomics.validation.normal_form.build import SourceFile, source_file
from sae_genomics.validation.normal_form.service import Service

PER_REQUEST = 10  # genes; a trial key takes no more


def fetch_pages(service: Service, path: Path, url: str, entrez_ids: Sequence[str]) -> SourceFile:
    """Leave the answers at `path`. url: with {page}, counted from 0, and {genes}, in place of which Entrez ids come, ten at a time.

    A fetch that was stopped, for example because the day's quota is used up, goes on from the last whole page. Raises UserError
    where a group of genes has not given as many rows as the service announced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, state = path.with_name(f".unfinished-{path.name}"), path.with_name(f".unfinished-{path.name}.json")
    groups = [list(entrez_ids[i : i + PER_REQUEST]) for i in range(0, len(entrez_ids), PER_REQUEST)] or [[]]
    if "{genes}" in url and not entrez_ids:
        raise UserError(f"{service.name}: asks by gene, and the HGNC table is not there; add hgnc to --only")
    asked = hashlib.sha256(json.dumps([url, groups]).encode()).hexdigest()
    done = read_json(state)
    if not isinstance(done, dict) or done.get("asked") != asked or not partial.exists():
        done = {"asked": asked, "group": 0, "page": 0, "rows": 0, "bytes": 0, "group_at": 0, "warnings": []}
    if done["bytes"]:
        say(f"{service.name}: goes on after {done['group']:,} of {len(groups):,} groups of genes")
    progress = Progress(service.name, len(groups), "groups of genes")
    progress.skip(done["group"])
    with partial.open("r+b" if done["bytes"] else "wb") as file:
        file.seek(done["bytes"])
        file.truncate()
        while done["group"] < len(groups):
            address = url.replace("{genes}", ",".join(groups[done["group"]])).replace("{page}", str(done["page"]))
            answer = _answer(service, address)
            line = json.dumps(answer, separators=(",", ":"), ensure_ascii=False)
            file.write(service.hide(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            before = done["group"]
            done, problem = _after(service, done, answer, file.tell())
            write_json(state, done)
            if problem:
                raise UserError(f"{service.name}: {problem}; type the same command again")
            progress.advance(done["group"] - before)
    progress.finish()
    put_in_place(partial, path)
    state.unlink(missing_ok=True)
    return source_file(path, url=url)


def _answer(service: Service, url: str) -> dict[str, Any]:
    def ask() -> dict[str, Any]:
        with service.open(url, {"accept": "application/json"}) as response:
            answer = json.loads(response.read())
        if not isinstance(answer, dict) or not isinstance(answer.get("payload"), list):
            raise ValueError("no list of associations")
        if not isinstance(answer.get("paging"), dict) or not isinstance(answer["paging"].get("totalElements"), int):
            raise ValueError("no paging.totalElements")
        return answer

    return service.with_retries(ask, url)


def _after(service: Service, done: dict[str, Any], answer: dict[str, Any], end: int) -> tuple[dict[str, Any], str]:
    """What is done with one more page that ends at byte `end`, and what is wrong; a group that is not whole begins anew.

    Warnings are said once: they tell what a key is not allowed to see.
    """
    for warning in answer.get("warnings") or []:
        text = service.hide(str(warning))
        if text not in done["warnings"]:
            say(f"{service.name}: {text}")
            done = done | {"warnings": [*done["warnings"], text]}
    rows, total = done["rows"] + len(answer["payload"]), answer["paging"]["totalElements"]
    if rows < total and answer["payload"]:
        return done | {"page": done["page"] + 1, "rows": rows, "bytes": end}, ""
    anew = {"page": 0, "rows": 0}
    if rows != total:
        return done | anew | {"bytes": done["group_at"]}, f"the service announced {total:,} rows and gave {rows:,}"
    return done | anew | {"group": done["group"] + 1, "bytes": end, "group_at": end}, ""
