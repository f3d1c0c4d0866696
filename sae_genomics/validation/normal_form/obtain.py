"""All sources one after the other: fetched, or taken from a folder, and built. One that fails stops no other."""

from __future__ import annotations

import os
import shutil
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from sae_genomics.atomic import atomic_path, read_json, write_json
from sae_genomics.errors import Interrupted, UserError, one_line
from sae_genomics.progress import say
from sae_genomics.validation.normal_form.build import SourceFile, build, built, source_file
from sae_genomics.validation.normal_form.catalogue import Entry, RemoteFile, reader_of
from sae_genomics.validation.normal_form.fetch import Wanted, fetch_file
from sae_genomics.validation.normal_form.hgnc import Genes, find_table, make_genes, no_genes, read_hgnc
from sae_genomics.validation.normal_form.listing import parts_of
from sae_genomics.validation.normal_form.pages import fetch_pages
from sae_genomics.validation.normal_form.schema import FORM, SCHEMAS, SOURCE_FILE
from sae_genomics.validation.normal_form.service import Service
from sae_genomics.web import Patience

GENES = "hgnc"
RAW = "files"  # the folder of a source's own files, as they were fetched
_FETCHED = "fetched.json"


@dataclass(frozen=True)
class Outcome:
    """What came of a source, in one line. failed: a person has to do something."""

    name: str
    state: Literal["built", "there", "skipped", "failed"]
    line: str


@dataclass
class Task:
    """What is asked for. source: a folder with files that were fetched elsewhere; None to fetch them. again: also what is there."""

    catalogue: dict[str, Entry]
    to: Path
    source: Path | None = None
    again: bool = False
    patience: Patience = field(default_factory=Patience)


def obtain(names: list[str], task: Task) -> list[Outcome]:
    """The named sources, HGNC's table before the others, because it tells their genes."""
    if task.source is not None and not task.source.is_dir():
        raise UserError(f"--from: {task.source} is no folder")
    names = sorted(names, key=lambda name: name != GENES)
    if task.source is None and GENES not in names and GENES in task.catalogue and _gene_folder(task) is None:
        say(f"{GENES} is fetched too: it tells which genes the others name")
        names = [GENES, *names]
    outcomes, genes = [], None
    for name in names:
        if genes is None and name != GENES:
            genes = _genes(task)
        outcomes.append(_guarded(name, task, genes))
    return outcomes


def _guarded(name: str, task: Task, genes: Genes | None) -> Outcome:
    key = os.environ.get(task.catalogue[name].key, "").strip() if task.catalogue[name].key else ""
    service = Service(name, task.catalogue[name], key, task.patience)
    try:
        outcome = _from_folder(name, task, genes) if task.source is not None else _from_network(service, task, genes)
    except Interrupted:
        raise
    except Exception as error:
        line = one_line(error)
        if line is None:
            say(service.hide(traceback.format_exc()).rstrip())
            line = service.hide(
                f"{name}: its reader failed ({type(error).__name__}: {error}); the lines above say where"
            )
        line = line if line.startswith(f"{name}: ") else f"{name}: {line}"
        if task.source is None and (task.to / name / RAW / _FETCHED).exists():
            line += "; --again fetches its files anew"
        outcome = Outcome(name, "failed", service.hide(" ".join(line.split())))
    if outcome.state != "failed":
        say(outcome.line)
    return outcome


def _from_folder(name: str, task: Task, genes: Genes | None) -> Outcome:
    assert task.source is not None
    folder = task.source / name
    if not folder.is_dir():
        return Outcome(name, "skipped", f"{name}: passed over, {folder} is not there")
    folder = folder / RAW if (folder / RAW / _FETCHED).exists() else folder
    return _build(name, task, genes, folder, _files_in(folder))


def _files_in(folder: Path) -> list[SourceFile]:
    """What lies in a folder; of folders in it those of Parquet parts."""
    ours = {*SCHEMAS, SOURCE_FILE, _FETCHED}
    plain = [path for path in folder.iterdir() if path.is_file() and path.name not in ours]
    parts = list(folder.glob("*/*.parquet"))
    paths = sorted(path for path in [*plain, *parts] if not path.name.startswith("."))
    fetched = {file["name"]: file for file in (read_json(folder / _FETCHED) or {}).get("files", [])}
    names = [path.relative_to(folder).as_posix() for path in paths]
    return [
        SourceFile(**fetched[name]) if fetched.get(name, {}).get("bytes") == path.stat().st_size else source_file(path, name)
        for path, name in zip(paths, names, strict=True)
    ]  # fmt: skip


def _from_network(service: Service, task: Task, genes: Genes | None) -> Outcome:
    name, entry = service.name, service.entry
    if entry.key and not service.key:
        return Outcome(
            name, "skipped", f"{name}: skipped, the environment variable {entry.key} with its access key is not set"
        )
    read = reader_of(name)  # before anything is fetched for nothing
    del read
    folder, facts = task.to / name / RAW, built(task.to / name)
    if facts and not task.again and _is_current(facts, entry, genes):
        return Outcome(
            name, "there", f"{name}: is there already ({facts['version'] or 'no version'}); --again fetches it again"
        )
    files = _fetch(service, folder, task.again, lambda: _entrez_ids(task))
    return _build(name, task, genes, folder, files)


def _is_current(facts: dict[str, Any], entry: Entry, genes: Genes | None) -> bool:
    same_genes = genes is None or facts.get("gene_table", {}).get("sha256") == genes.sha256
    fetched = any(file["url"] for file in facts.get("files", []))
    return fetched and same_genes and facts.get("form") == FORM and facts.get("catalogue_version") == entry.version


def _fetch(service: Service, folder: Path, again: bool, entrez_ids: Callable[[], list[str]]) -> list[SourceFile]:
    """All files of a source, those that are there already only where that is asked for."""
    entry, state = service.entry, read_json(folder / _FETCHED) or {}
    usable = not again and state.get("version") == entry.version
    have = {file["name"]: SourceFile(**file) for file in state.get("files", [])} if usable else {}
    earlier = {*state.get("earlier", []), *(file["name"] for file in state.get("files", []))}
    files: list[SourceFile] = []

    def note(others: set[str]) -> None:
        facts = {"version": entry.version, "files": [asdict(file) for file in files], "earlier": sorted(others)}
        write_json(folder / _FETCHED, facts)

    def fetch(remote: RemoteFile) -> None:
        name, url = entry.resolved(remote.name), entry.resolved(remote.url)
        parts = {name: url}
        if remote.kind == "directory":
            parts = {f"{name}/{part}": address for part, address in parts_of(service, url).items()}
        for part, address in parts.items():
            path, known = folder / part, have.get(part)
            if known and known.url == address and path.is_file() and path.stat().st_size == known.bytes:
                file = known
            elif remote.kind == "pages":
                file = fetch_pages(service, path, address, entrez_ids())
            else:
                md5 = service.read_text(entry.resolved(remote.md5_url)).split()[:1] if remote.md5_url else [""]
                file = fetch_file(service, Wanted(path, address, remote.sha256, (md5 or [""])[0].lower()))
            files.append(SourceFile(**{**asdict(file), "name": part}))
            note(earlier)

    for remote in entry.files:
        try:
            fetch(remote)
        except UserError as error:
            if not remote.optional:
                raise
            say(f"{service.name}: goes on without {remote.name}: {service.hide(' '.join(str(error).split()))}")
    # What an earlier release left, which a reader would take for a part of this one.
    for name in earlier - {file.name for file in files}:
        (folder / name).unlink(missing_ok=True)
    note(set())
    return files


def _build(name: str, task: Task, genes: Genes | None, folder: Path, files: list[SourceFile]) -> Outcome:
    statements = reader_of(name)(folder)
    if genes is None:
        genes = _read_genes(folder)
    facts = build(name, statements, task.catalogue[name], genes, files, task.to / name)
    if name == GENES and folder != task.to / name / RAW:
        table = find_table(folder)
        with atomic_path(task.to / name / RAW / "hgnc_complete_set.txt") as temporary:
            shutil.copyfile(table, temporary)
    counts = facts["counts"]
    edges = f", {counts['edges']:,} edges" if counts["edges"] else ""
    return Outcome(
        name, "built", f"{name}: {counts['rows_read']:,} rows read, {counts['statements']:,} statements on {counts['terms']:,} terms and "
        f"{counts['genes']:,} genes{edges}, {counts['negative']:,} negative; unmapped genes {counts['unmapped_share']:.1%}: {task.to / name}"
    )  # fmt: skip


def _gene_folder(task: Task) -> Path | None:
    """Where HGNC's table is: that of --from before one that was built earlier."""
    folders = [task.source / GENES, task.source / GENES / RAW] if task.source is not None else []
    for folder in [*folders, task.to / GENES / RAW]:
        try:
            find_table(folder)
        except UserError:
            continue
        return folder
    return None


def _genes(task: Task) -> Genes:
    folder = _gene_folder(task)
    if folder is None:
        say(
            "there is no HGNC table: genes keep the symbols and Ensembl ids of the databases, old symbols too; fetch it with --only hgnc"
        )
        return no_genes()
    try:
        genes = _read_genes(folder)
    except UserError as error:
        say(f"genes keep the symbols and Ensembl ids of the databases: {error}")
        return no_genes()
    if genes.is_excerpt:
        say(
            f"the HGNC table is an excerpt of {len(genes.table):,} genes: those that it does not know keep their symbol and Ensembl id"
        )
    return genes


def _read_genes(folder: Path) -> Genes:
    path = find_table(folder)
    return make_genes(read_hgnc(path), source_file(path).sha256)


def _entrez_ids(task: Task) -> list[str]:
    """Of all genes that make proteins, for an interface that is asked by gene."""
    folder = _gene_folder(task)
    if folder is None:
        return []
    table = read_hgnc(find_table(folder))
    of_proteins = table["locus_group"].isin(["protein-coding gene"])
    ids = table.loc[of_proteins & table["entrez_id"].str.fullmatch(r"\d+"), "entrez_id"]
    return sorted(set(ids), key=int)
