"""Published checkpoints of all families: what is known of them before a download, and the download."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from sae_genomics.errors import UserError
from sae_genomics.models.base import ModelInfo
from sae_genomics.models.esm2 import releases as esm2
from sae_genomics.models.geneformer import releases as geneformer
from sae_genomics.models.hub_errors import Asked, readable_errors, token
from sae_genomics.models.huggingface import releases as huggingface
from sae_genomics.models.releases import INDEX, SINGLE, KnownRelease
from sae_genomics.progress import say
from sae_genomics.revisions import is_commit

_LOG_SECONDS = 15.0
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)  # OWNER/NAME on the hub


def _tahoe(folder: str, n_layers: int, d_model: int, n_heads: int, max_length: int, n_parameters: int) -> KnownRelease:
    small_files = ("model_config.yml", "collator_config.yml", "vocab.json")
    return KnownRelease(
        "tx1", "tahoebio/Tahoe-x1", folder, small_files, n_layers, d_model, n_heads, max_length, n_parameters
    )


RELEASES = {
    "tahoe-x1-70m": _tahoe("70m-model", 12, 512, 8, 1024, 70_000_000),
    "tahoe-x1-1.3b": _tahoe("1.3b-model", 24, 2048, 16, 2048, 1_300_000_000),
    "tahoe-x1-3b": _tahoe("3b-model", 32, 2560, 20, 2048, 3_000_000_000),
    **esm2.RELEASES,
    **huggingface.RELEASES,
    **geneformer.RELEASES,
}
ALIASES = {**esm2.ALIASES, **geneformer.ALIASES}


def describe_release(
    name: str, cache_dir: Path | None, revision: str | None, family: str, describe_folder: Callable[[Path], ModelInfo]
) -> ModelInfo:
    """A published model, without network or download: from its files where they are in the cache, else from RELEASES.

    revision: branch, tag or commit; default: the release's own. Its content hash is its address on the hub and the commit, so
    that a run's fingerprints are the same before and after the download. Where neither `revision` nor the cache tells the commit,
    the revision stands in its place.
    describe_folder: how the family describes a folder of its own.
    """
    known = known_release(name, family)
    commit = find_commit(name, cache_dir, revision, ask_hub=False)
    identity = f"hub:{known.address}@{commit or revision or known.revision}"
    folder = cached_folder(name, cache_dir, commit) if commit else None
    if folder is not None:
        return replace(describe_folder(folder), identity=identity, revision=commit)
    if not known.n_layers:
        raise UserError(
            f"{name} is not in the cache, and its shape is not known before; on a machine with network (a login node) run: "
            f"{_download_command(name, known, revision or known.revision, cache_dir)}"
        )
    return ModelInfo(
        family=family,
        name=name,
        n_layers=known.n_layers,
        d_model=known.d_model,
        n_heads=known.n_heads,
        max_length=known.max_length,
        n_parameters=known.n_parameters,
        identity=identity,
        revision=commit,
    )


def has_releases(family: str) -> bool:
    """Whether models of a family are published on the hub."""
    return any(release.family == family for release in RELEASES.values())


def known_release(name: str, family: str | None = None) -> KnownRelease:
    """What is known of a published model. Any OWNER/NAME that is not one of RELEASES is taken for a language model of that repository.

    Raises UserError for another name that is not one of RELEASES, or not of this family.
    """
    known = RELEASES.get(ALIASES.get(name, name))
    if known is None and family in (None, "huggingface") and _REPOSITORY.fullmatch(name):
        known = huggingface.release_of(name)
    if known is None:
        names = [of for of, release in RELEASES.items() if family in (None, release.family)]
        others = "OWNER/NAME of the hub" if family == "huggingface" else "demo"
        raise UserError(
            f"model.name: {name!r} is not known; write {others}, {', '.join(names)}, or give model.path a folder"
        )
    if family not in (None, known.family):
        raise UserError(f"model.name: {name} is a model of another family; set model.family to {known.family}")
    return known


def find_commit(name: str, cache_dir: Path | None = None, revision: str | None = None, *, ask_hub: bool) -> str | None:
    """The commit that a revision of a published model stands for: the revision itself, else as the cache notes it, else as the
    hub says, which the cache then notes.

    Returns None where only the hub could tell and `ask_hub` is False. Raises UserError when the hub is asked in vain.
    """
    known = known_release(name)
    revision = revision or known.revision
    commit = revision if is_commit(revision) else _noted_commit(known, revision, cache_dir)
    if commit is None and ask_hub:
        with _readable_errors(name, cache_dir, revision):
            commit = _ask_commit(known, revision, cache_dir)
    return commit


def download(name: str, cache_dir: Path | None = None, revision: str | None = None) -> Path:
    """The folder of a published model, downloaded into the hub's cache where it is not there yet.

    cache_dir: the hub cache to use; default: HF_HOME's, else ~/.cache/huggingface/hub. A download that was cut off goes
    on where it stopped. What is complete in the cache is used without asking the hub, so compute nodes need no network.
    revision: branch, tag or commit; default: the release's own. All files are of the one commit that it stands for.

    Raises UserError when the hub cannot be reached, refuses, or lacks a file, and when the disk is full.
    """
    known = known_release(name)
    revision = revision or known.revision
    commit = find_commit(name, cache_dir, revision, ask_hub=False)
    cached = cached_folder(name, cache_dir, commit) if commit else None
    if cached is not None:
        return cached
    say(f"downloading {name} from {known.repository}, revision {commit or revision}")
    with _readable_errors(name, cache_dir, commit or revision):
        commit = commit or _ask_commit(known, revision, cache_dir)
        paths = [_fetch(known, file, commit, cache_dir) for file in known.small_files]
        folder = paths[0].parent
        for file in known.optional_files:
            _fetch_where_there(known, file, commit, cache_dir)
        _fetch_weights(known, commit, cache_dir)
        if known.family == "tx1":
            _fetch_drug_table(folder, known, commit, cache_dir)
    return folder


def cached_folder(name: str, cache_dir: Path | None = None, revision: str | None = None) -> Path | None:
    """The model's folder in the cache when all its files of that revision are there, else None. Uses no network."""
    from huggingface_hub import try_to_load_from_cache

    known = known_release(name)
    commit = find_commit(name, cache_dir, revision, ask_hub=False)
    if commit is None:
        return None

    def cached(file: str) -> Path | None:
        found = try_to_load_from_cache(known.repository, known.path(file), cache_dir=cache_dir, revision=commit)
        return Path(found) if isinstance(found, str) else None

    small = [cached(file) for file in known.small_files]
    weights = [cached(SINGLE)]
    if weights == [None]:
        index = cached(INDEX)
        weights = [None] if index is None else [cached(file) for file in shard_files(index)]
    return small[0].parent if small[0] is not None and None not in (*small, *weights) else None


def shard_files(index: Path) -> list[str]:
    """The weight files that an index names. Raises UserError when it cannot be read, or names a file elsewhere."""
    try:
        files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if files and all(Path(file).name == file and file.endswith(".safetensors") for file in files):
            return files
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise UserError(f"{index} should name the .safetensors file of each tensor; copy or download it again")


def _noted_commit(known: KnownRelease, revision: str, cache_dir: Path | None) -> str | None:
    """The commit that a branch or tag stood for when the cache last asked the hub."""
    try:
        noted = (_repository_folder(known, cache_dir) / "refs" / revision).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return noted if is_commit(noted) else None


def _ask_commit(known: KnownRelease, revision: str, cache_dir: Path | None) -> str:
    """Fetch one small file of the revision: the client notes in the cache which commit it is of."""
    file = known.small_files[0]
    commit = _fetch(known, file, revision, cache_dir).parents[known.path(file).count("/")].name
    if not is_commit(commit):
        raise UserError(
            f"the hub does not say which commit {known.repository} has at {revision}; set model.revision to a commit"
        )
    return commit


def _repository_folder(known: KnownRelease, cache_dir: Path | None) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(cache_dir or constants.HF_HUB_CACHE) / repo_folder_name(repo_id=known.repository, repo_type="model")


def _fetch_drug_table(folder: Path, known: KnownRelease, commit: str, cache_dir: Path | None) -> None:
    """The table of drugs that the collator's config names, where the release has one; only model.drug_key needs it."""
    from huggingface_hub.errors import EntryNotFoundError

    collator = yaml.safe_load((folder / "collator_config.yml").read_text(encoding="utf-8"))
    place = collator.get("drug_to_id_path") if isinstance(collator, dict) else None
    if isinstance(place, dict) and isinstance(place.get("local"), str):
        try:
            _fetch(known, Path(place["local"]).name, commit, cache_dir)
        except EntryNotFoundError:
            say(f"{known.repository} has no {Path(place['local']).name}: without it model.drug_key cannot be used")


def _fetch_where_there(known: KnownRelease, file: str, commit: str, cache_dir: Path | None) -> None:
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        _fetch(known, file, commit, cache_dir)
    except EntryNotFoundError as missing:
        if isinstance(missing, LocalEntryNotFoundError):
            raise


def _fetch_weights(known: KnownRelease, commit: str, cache_dir: Path | None) -> None:
    """One file, or the files that an index names."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        _fetch(known, SINGLE, commit, cache_dir)
        return
    except EntryNotFoundError as missing:
        if isinstance(missing, LocalEntryNotFoundError) or not known.saved_from:
            raise
    try:
        index = _fetch(known, INDEX, commit, cache_dir)
    except EntryNotFoundError as missing:
        if isinstance(missing, LocalEntryNotFoundError):
            raise
        raise UserError(
            f"{known.repository} has no {SINGLE} at revision {commit}, and pytorch_model.bin files are not read because they can run code; "
            f"fix it with: {conversion(known.repository, known.saved_from)}; then set model.path to that folder"
        ) from None
    for file in shard_files(index):
        _fetch(known, file, commit, cache_dir)


def conversion(source: str, saved_from: str = "EsmForMaskedLM") -> str:
    """A command that writes FOLDER with safetensors files, from a folder or repository that has other ones.

    saved_from: transformers' class of such models. ESM2 and language models need their tokenizer too."""
    has_tokenizer = saved_from.startswith(("Esm", "Auto"))
    classes = f"AutoTokenizer as T, {saved_from} as M" if has_tokenizer else f"{saved_from} as M"
    loop = "[C.from_pretrained('{}').save_pretrained('FOLDER') for C in (T, M)]"
    one = "M.from_pretrained('{}').save_pretrained('FOLDER')"
    code = (loop if has_tokenizer else one).format(source)
    return f'python -c "from transformers import {classes}; {code}"'


def _fetch(known: KnownRelease, file: str, revision: str, cache_dir: Path | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        if file.endswith(".safetensors"):
            _fetch_blob(known, known.path(file), revision, cache_dir)
        path: str = hf_hub_download(
            known.repository, known.path(file), revision=revision, cache_dir=cache_dir, token=token()
        )
    except EntryNotFoundError as error:
        if isinstance(error, LocalEntryNotFoundError):  # which here means that the hub could not be asked
            raise
        raise EntryNotFoundError(known.path(file)) from error
    return Path(path)


def _fetch_blob(known: KnownRelease, file: str, revision: str, cache_dir: Path | None) -> None:
    """Put a big file's content where the hub's cache expects it, going on with what an earlier attempt left.

    The client's own download starts from nothing after a kill. In the cache's layout a file's content is
    `blobs/<etag>`; with that in place the client only adds the link from the snapshot.
    """
    from filelock import FileLock
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(known.repository, file, revision=revision)
    metadata = get_hf_file_metadata(url, token=token())
    if metadata.etag is None or metadata.size is None:
        return
    blobs = _repository_folder(known, cache_dir) / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    blob, partial = blobs / metadata.etag, blobs / f"{metadata.etag}.part"
    same_host = urlsplit(metadata.location).netloc == urlsplit(url).netloc
    with FileLock(f"{partial}.lock"):
        if blob.exists():
            return
        have = partial.stat().st_size if partial.exists() else 0
        if have:
            say(f"{file}: going on after {have / 1e6:,.1f} of {metadata.size / 1e6:,.1f} MB")
        with partial.open("ab", buffering=0) as target:
            http_get(
                metadata.location,
                target,
                resume_size=have,
                headers=build_hf_headers(token=token())
                if same_host
                else {},  # signed addresses elsewhere take no token
                expected_size=metadata.size,
                displayed_filename=file,
                **_progress_bar(http_get),
            )
        if len(metadata.etag) == 64 and _sha256(partial) != metadata.etag:  # the hub names big files by their SHA-256
            partial.unlink()
            raise UserError(f"{file} arrived damaged and was removed; run the same command again")
        partial.replace(blob)
    Path(f"{partial}.lock").unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _progress_bar(function: Callable[..., Any]) -> dict[str, Any]:
    """The argument that gives a download its bar: the hub's own on a terminal, in a log a line every fifteen seconds."""
    from huggingface_hub.utils import tqdm

    if sys.stderr.isatty() or "tqdm_class" not in inspect.signature(function).parameters:
        return {}

    class LoggedProgress(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(
                *args, **{**kwargs, "mininterval": _LOG_SECONDS, "maxinterval": _LOG_SECONDS, "ncols": 100}
            )

        def display(self, msg: str | None = None, pos: int | None = None) -> None:
            if self.n:
                say(str(self) if msg is None else msg)

    return {"tqdm_class": LoggedProgress}


@contextmanager
def _readable_errors(name: str, cache_dir: Path | None, revision: str) -> Iterator[None]:
    """Turn what the hub's client raises into one line that says what to do. revision: what it is asked for."""
    known = known_release(name)
    advice = (
        f"on a machine with network (a login node) run: {_download_command(name, known, revision, cache_dir)}; "
        "or give model.path a folder"
    )
    with readable_errors(Asked(name, known.repository, revision, advice, cache_dir=cache_dir)):
        yield


def _download_command(name: str, known: KnownRelease, revision: str, cache_dir: Path | None) -> str:
    options = f" --revision {revision}" if revision != known.revision else ""
    options += f" --cache {shlex.quote(str(cache_dir))}" if cache_dir is not None else ""
    return f"python scripts/download_model.py {name}{options}"
