"""Fetch a file of a database: going on where it stopped, checked, and under its name only when it is whole."""

from __future__ import annotations

import email.utils
import gzip
import hashlib
import http.client
import os
import re
import urllib.error
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from sae_genomics.atomic import UNFINISHED, partials_in, put_in_place, read_json, temporary_beside, write_json
from sae_genomics.errors import UserError
from sae_genomics.progress import Progress, say
from sae_genomics.validation.normal_form.build import SourceFile
from sae_genomics.validation.normal_form.service import Service

_CHUNK = 1 << 20
_DAMAGED_TRIES = 2
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class _Damaged(Exception):
    """A file that came whole by its length, and is not what it should be."""


class _WebPage(Exception):
    """A web page came in place of a file."""


@dataclass(frozen=True)
class Wanted:
    """A file to fetch. url: may have {key}. sha256, md5: what it must have; empty where that is not known."""

    path: Path
    url: str
    sha256: str = ""
    md5: str = ""


def fetch_file(service: Service, wanted: Wanted) -> SourceFile:
    """Leave the file at its path; returns what is recorded of it.

    An interrupted transfer goes on from where it stopped, by the same process or a later one, where the server says that the file is
    still the same. Raises UserError where it cannot be had, or is damaged, or a web page.
    """
    wanted.path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, _DAMAGED_TRIES + 1):
        partial = _partial(wanted.path)
        notes = partial.with_name(partial.name + ".json")
        try:
            return _fetch(service, wanted, partial, notes)
        except _WebPage:
            _remove(partial, notes)
            raise UserError(
                f"{service.name}: {wanted.url} gives a web page and not {wanted.path.name}: a key has expired, or the address has changed; "
                "see configs/databases.yaml"
            ) from None
        except _Damaged as damage:
            _remove(partial, notes)
            problem = f"{service.name}: {wanted.path.name} {damage}"
            if attempt == _DAMAGED_TRIES:
                raise UserError(
                    f"{problem}, {attempt} times; is {wanted.url} right? see configs/databases.yaml"
                ) from None
            say(f"{problem}; fetching it again")
        finally:
            if not partial.exists() or not partial.stat().st_size:
                _remove(partial, notes)
    raise AssertionError("the last try returns or raises")


def _fetch(service: Service, wanted: Wanted, partial: Path, notes: Path) -> SourceFile:
    modified = service.with_retries(lambda: _transfer(service, wanted, partial, notes), wanted.url)
    sha256 = _check(partial, wanted)
    size = partial.stat().st_size
    put_in_place(partial, wanted.path)
    return SourceFile(wanted.path.name, wanted.url, size, sha256, modified)


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    """The unfinished file of a process that has ended, as this one's own; else a new name."""
    mine = temporary_beside(path, UNFINISHED)
    for left in partials_in(path.parent, UNFINISHED):
        notes = left.path.with_name(left.path.name + ".json")
        if left.final == path.name and (left.is_of_a_dead_process or (left.pid == os.getpid() and left.is_of_this_host)):
            if notes.exists() and not mine.exists():
                os.replace(left.path, mine)
                os.replace(notes, mine.with_name(mine.name + ".json"))
            else:
                left.remove()
    return mine


def _transfer(service: Service, wanted: Wanted, partial: Path, notes: Path) -> str:
    """Fetch the rest of the file into `partial`; returns the day of its last change. Raises OSError for half a body."""
    have = partial.stat().st_size if partial.exists() else 0
    known = read_json(notes) or {}
    same = known.get("validator", "")
    if not same:
        have = 0
    headers = {"Range": f"bytes={have}-", "If-Range": same} if have else {}
    try:
        answer = service.open(wanted.url, headers)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # what is here is as long as the file, or longer
            partial.unlink(missing_ok=True)
            raise ConnectionError("the file has changed") from None
        raise
    with answer:
        start, total = _extent(answer, have)
        _refuse_type(answer)
        if start:
            say(f"{service.name}: {wanted.path.name} goes on after {start:,} bytes")
        else:
            write_json(notes, {"validator": _validator(answer)})
        _receive(answer, partial, start, total, f"{service.name}: {wanted.path.name}")
        return _day(answer.headers.get("Last-Modified"))


def _extent(answer: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """From which byte on the answer is, and how long the file is in all."""
    if answer.status == 206:
        extent = _RANGE.fullmatch(answer.headers.get("Content-Range") or "")
        if extent is None or int(extent.group(1)) != have:
            raise ConnectionError("the server sent another part than it was asked for")
        return have, None if extent.group(2) == "*" else int(extent.group(2))
    length = answer.headers.get("Content-Length")
    return 0, int(length) if length is not None else None


def _validator(answer: http.client.HTTPResponse) -> str:
    """What tells that a file is still the same: a strong ETag, or the time of its last change."""
    tag = answer.headers.get("ETag") or ""
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified") or ""


def _refuse_type(answer: http.client.HTTPResponse) -> None:
    """A body that the server packed for transport is not the file whose length and checksum are known."""
    if answer.headers.get("Content-Encoding", "identity") not in ("identity", ""):
        raise ConnectionError("the server packed the file although it was asked not to")


def _receive(answer: http.client.HTTPResponse, partial: Path, start: int, total: int | None, label: str) -> None:
    progress = Progress(label, total, "bytes")
    progress.skip(start)
    have = start
    with partial.open("r+b" if start else "wb") as file:
        file.seek(start)
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
            have += len(chunk)
            progress.advance(len(chunk))
        file.truncate()
    if total is not None and have != total:
        raise ConnectionError(f"{have:,} of {total:,} bytes came")
    progress.finish()


def _day(text: str | None) -> str:
    try:
        return email.utils.parsedate_to_datetime(text).strftime("%Y-%m-%d") if text else ""
    except ValueError:
        return ""


def _check(partial: Path, wanted: Wanted) -> str:
    """Returns the SHA-256. Raises _Damaged, or _WebPage, which another try would bring again."""
    with partial.open("rb") as file:
        first = file.read(1024)
    if not first.strip():
        raise _Damaged("is empty")
    if is_web_page(first):
        raise _WebPage
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with partial.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
    if wanted.sha256 and sha256.hexdigest() != wanted.sha256:
        raise _Damaged(f"has the SHA-256 {sha256.hexdigest()[:12]}… and should have {wanted.sha256[:12]}…")
    if wanted.md5 and md5.hexdigest() != wanted.md5:
        raise _Damaged(f"has the MD5 {md5.hexdigest()} and should have {wanted.md5}")
    _check_archive(partial, wanted.path.name, first)
    return sha256.hexdigest()


def is_web_page(first: bytes) -> bool:
    """Whether a file that begins so is HTML."""
    start = first.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith(b"<") and any(mark in start for mark in (b"<!doctype html", b"<html", b"<head"))


def _check_archive(partial: Path, name: str, first: bytes) -> None:
    """That a packed file can be unpacked to its end: a cut-off one may have a plausible size."""
    try:
        if name.endswith(".gz"):
            with gzip.open(partial) as file:
                while file.read(_CHUNK):
                    pass
        elif name.endswith((".zip", ".xlsx")):
            with zipfile.ZipFile(partial) as archive:
                if (bad := archive.testzip()) is not None:
                    raise _Damaged(f"is damaged ({bad})")
        elif name.endswith(".parquet"):
            with partial.open("rb") as file:
                file.seek(-4, os.SEEK_END)
                if first[:4] != b"PAR1" or file.read(4) != b"PAR1":
                    raise _Damaged("is cut off, or no Parquet file")
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _Damaged(f"is damaged or cut off ({error})") from None
