"""Download the proteins of a UniProt query: page by page, with retries, going on where an earlier attempt stopped.

The service's `search` gives at most 500 entries at once, and the next page's address in the header `Link`. Each page is kept as it came
until all are there; then the three files are written that `data.kind: proteins` reads.
"""

from __future__ import annotations

import gzip
import http.client
import json
import re
import shutil
import time
import urllib.error
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlencode

from sae_genomics.atomic import atomic_path, read_json, remove_empty_folders, remove_leftovers, write_json
from sae_genomics.data.proteins import uniprot
from sae_genomics.errors import UserError
from sae_genomics.progress import Progress, say
from sae_genomics.web import Patience, open_url, request_for, with_retries

SERVER = "https://rest.uniprot.org"
LICENCE = "UniProtKB, CC BY 4.0, https://www.uniprot.org/help/license"
FILES = ("proteins.fasta.gz", "spans.tsv.gz", "labels.tsv.gz")
_NEXT = re.compile(r'<([^>]+)>;\s*rel="?next"?')


@dataclass(frozen=True)
class Query:
    """What is asked for. size: entries per page, at most 500. most: entries altogether; None for all."""

    query: str
    features: tuple[str, ...]
    pfam: bool
    server: str = SERVER
    size: int = 500
    most: int | None = None

    def first_url(self) -> str:
        values = {
            "query": self.query,
            "format": "json",
            "fields": uniprot.fields(self.features, self.pfam),
            "size": min(self.size, self.most or self.size),
        }
        return f"{self.server.rstrip('/')}/uniprotkb/search?{urlencode(values)}"

    def asked(self) -> dict[str, Any]:
        """What must be the same for a download to be gone on with."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Page:
    entries: list[dict[str, Any]]
    next_url: str | None
    total: int | None
    release: str | None


def download(query: Query, folder: Path, restart: bool = False, wait: float = 1.0) -> dict[str, Any]:
    """Leave proteins.fasta.gz, spans.tsv.gz, labels.tsv.gz and source.json in `folder`; returns what source.json says.

    restart: begin anew. wait: seconds before the first retry; each further one waits twice as long.

    Raises UserError when the service refuses the query or cannot be reached.
    """
    pages = folder / ".pages"
    if restart:
        shutil.rmtree(pages, ignore_errors=True)
    elif (done := _done(query, folder)) is not None:
        say(f"{folder}: {done['n_proteins']:,} proteins are there already; --restart downloads them again")
        return done
    else:
        _refuse_another(query, folder, pages)
    remove_leftovers(folder)
    pages.mkdir(parents=True, exist_ok=True)
    write_json(pages / "query.json", query.asked())
    try:
        total, release = _fetch_pages(query, pages, wait)
    except UserError:
        if not _page_files(pages):
            shutil.rmtree(pages)
            remove_empty_folders(folder, folder)
        raise
    source = _write_files(query, folder, pages, total, release)
    shutil.rmtree(pages)
    return source


def _done(query: Query, folder: Path) -> dict[str, Any] | None:
    source = read_json(folder / "source.json")
    same = isinstance(source, dict) and source.get("asked") == query.asked()
    return source if same and all((folder / name).is_file() for name in FILES) else None


def _refuse_another(query: Query, folder: Path, pages: Path) -> None:
    """What another query left is not touched unasked."""
    asked = read_json(pages / "query.json")
    if asked is not None and asked != query.asked():
        raise UserError(
            f"{folder} holds an unfinished download of another query ({asked.get('query')}); pass --restart to give it up, or "
            "another --out"
        )
    source = read_json(folder / "source.json")
    if asked is None and isinstance(source, dict) and source.get("asked") != query.asked():
        raise UserError(
            f"{folder} holds the proteins of another query ({source.get('asked', {}).get('query')}); name another folder with --out"
        )


def _page_files(pages: Path) -> list[Path]:
    return sorted(pages.glob("page_*.json.gz"))


def _fetch_pages(query: Query, pages: Path, wait: float) -> tuple[int, str | None]:
    """Fetch every page that is not there yet. Returns how many entries the query has, and UniProt's release."""
    have = [_read_page(file) for file in _page_files(pages)]
    n = sum(len(page.entries) for page in have)
    url = have[-1].next_url if have else query.first_url()
    total, release = (have[0].total or 0, have[0].release) if have else (0, None)
    progress: Progress | None = None
    if have:
        say(f"going on after {n:,} of {total:,} proteins")
    while url is not None and (query.most is None or n < query.most):
        page = _fetch(url, wait, is_first=not n)
        if progress is None:
            total, release = (page.total or total, page.release) if not n else (total, release)
            if not total:
                raise UserError(
                    f"UniProt has no protein for the query {query.query!r}; try it on www.uniprot.org first"
                )
            progress = Progress("download", min(total, query.most or total), "proteins")
            progress.skip(n)
        if page.release != release:
            raise UserError(
                f"UniProt changed from release {release} to {page.release} during the download; pass --restart to begin anew"
            )
        with atomic_path(pages / f"page_{len(_page_files(pages)):06d}.json.gz") as temporary:
            temporary.write_bytes(gzip.compress(json.dumps(asdict(page)).encode()))
        n += len(page.entries)
        progress.advance(len(page.entries))
        url = page.next_url
    if progress is not None:
        progress.finish()
    if query.most is None and n != total:
        raise UserError(f"UniProt announced {total:,} proteins and gave {n:,}; pass --restart to begin anew")
    return total, release


def _read_page(file: Path) -> Page:
    try:
        return Page(**json.loads(gzip.decompress(file.read_bytes())))
    except (OSError, EOFError, ValueError, TypeError):
        raise UserError(f"{file} is damaged; pass --restart to begin anew") from None


def _fetch(url: str, wait: float, is_first: bool) -> Page:
    """One page. Raises UserError when the service refuses it, or does not answer after several tries."""
    patience = Patience(wait)

    def ask() -> Page:
        with open_url(request_for(url, {"Accept-Encoding": "gzip"}, {}), patience.timeout) as answer:
            return _page(answer)

    return with_retries(ask, "UniProt", patience, lambda error: _refused(error, is_first))


def _page(answer: http.client.HTTPResponse) -> Page:
    entries = _body(answer)["results"]
    if not isinstance(entries, list):
        raise ValueError("no list of results")
    link = _NEXT.search(answer.headers.get("Link") or "")
    total = answer.headers.get("X-Total-Results")
    return Page(
        entries,
        link.group(1) if link else None,
        int(total) if total is not None else None,
        answer.headers.get("X-UniProt-Release"),
    )


def _body(answer: http.client.HTTPResponse | urllib.error.HTTPError) -> Any:
    data = answer.read()
    if answer.headers.get("Content-Encoding") == "gzip":
        data = gzip.decompress(data)
    return json.loads(data)


def _refused(error: urllib.error.HTTPError, is_first: bool) -> UserError:
    try:
        messages = _body(error).get("messages", [])
    except (OSError, EOFError, ValueError, AttributeError):
        messages = []
    why = "; ".join(str(message) for message in messages) or error.reason
    hint = "correct the query" if is_first else "pass --restart to begin anew"
    return UserError(f"UniProt refuses the request (HTTP status {error.code}: {why}); {hint}")


def _proteins(query: Query, pages: Path) -> Iterator[uniprot.Protein]:
    seen: set[str] = set()
    for file in _page_files(pages):
        for entry in _read_page(file).entries:
            if query.most is not None and len(seen) >= query.most:
                return
            try:
                protein = uniprot.read_entry(entry, query.pfam)
            except (KeyError, TypeError) as error:
                name = entry.get("primaryAccession", "an entry") if isinstance(entry, dict) else "an entry"
                raise UserError(
                    f"UniProt's answer for {name} is not as expected ({error}); is --server right?"
                ) from None
            if protein.accession not in seen:
                seen.add(protein.accession)
                yield protein


def _write_files(query: Query, folder: Path, pages: Path, total: int, release: str | None) -> dict[str, Any]:
    n, n_spans, skipped = 0, 0, 0
    with ExitStack() as stack:
        temporary = [stack.enter_context(atomic_path(folder / name)) for name in FILES]
        with ExitStack() as files:
            fasta, spans, labels = (files.enter_context(_text(path)) for path in temporary)
            spans.write("\t".join(["accession", "start", "end", "concept", "name"]) + "\n")
            labels.write("\t".join([*uniprot.LABELS, *(["pfam"] if query.pfam else [])]) + "\n")
            for protein in _proteins(query, pages):
                fasta.write(protein.fasta)
                labels.write("\t".join(protein.labels) + "\n")
                spans.writelines(
                    f"{protein.accession}\t{start}\t{end}\t{concept}\t{name}\n"
                    for start, end, concept, name in protein.spans
                )
                n += 1
                n_spans += len(protein.spans)
                skipped += protein.skipped
    source = {
        "source": LICENCE, "release": release, "downloaded": time.strftime("%Y-%m-%d"), "n_proteins": n, "n_of_query": total,
        "n_spans": n_spans, "n_features_without_exact_ends": skipped, "asked": query.asked(),
    }  # fmt: skip
    write_json(folder / "source.json", source)
    return source


def _text(path: Path) -> IO[str]:
    return gzip.open(path, "wt", encoding="utf-8", newline="\n", compresslevel=6)  # type: ignore[return-value]
