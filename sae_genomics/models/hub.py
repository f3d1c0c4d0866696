"""Published Tahoe-x1 checkpoints: what is known of them before a download, and the download."""

from __future__ import annotations

import errno
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from sae_genomics.errors import UserError
from sae_genomics.models.base import ModelInfo
from sae_genomics.models.tx1_config import FILES, describe_folder, read_release
from sae_genomics.progress import say

REPOSITORY = "tahoebio/Tahoe-x1"
_LOG_SECONDS = 15.0


@dataclass(frozen=True)
class KnownRelease:
    """What the release's own documentation says; its config files are read once they are there."""

    folder: str
    n_layers: int
    d_model: int
    n_heads: int
    max_length: int
    n_parameters: int


RELEASES = {
    "tahoe-x1-70m": KnownRelease("70m-model", 12, 512, 8, 1024, 70_000_000),
    "tahoe-x1-1.3b": KnownRelease("1.3b-model", 24, 2048, 16, 2048, 1_300_000_000),
    "tahoe-x1-3b": KnownRelease("3b-model", 32, 2560, 20, 2048, 3_000_000_000),
}


def describe_release(name: str, cache_dir: Path | None = None) -> ModelInfo:
    """A published model, without network or download: from its files where they are in the cache, else from RELEASES.

    Its identity is its place on the hub, so that a run's fingerprints are the same before and after the download; the
    files themselves stay what they are for as long as they are in the cache.
    """
    known = known_release(name)
    identity = f"hub:{REPOSITORY}/{known.folder}"
    folder = cached_folder(name, cache_dir)
    if folder is not None:
        return replace(describe_folder(read_release(folder, with_drugs=False), name), identity=identity)
    return ModelInfo(
        family="tx1",
        name=name,
        n_layers=known.n_layers,
        d_model=known.d_model,
        n_heads=known.n_heads,
        max_length=known.max_length,
        n_parameters=known.n_parameters,
        identity=identity,
    )


def known_release(name: str) -> KnownRelease:
    """Raises UserError for a name that is not one of RELEASES."""
    if name not in RELEASES:
        raise UserError(
            f"model.name: {name!r} is not known; write demo, {', '.join(RELEASES)}, or give model.path a folder"
        )
    return RELEASES[name]


def download(name: str, cache_dir: Path | None = None) -> Path:
    """The folder of a published model, downloaded into the hub's cache where it is not there yet.

    cache_dir: the hub cache to use; default: HF_HOME's, else ~/.cache/huggingface/hub. A download that was cut off goes
    on where it stopped. What is complete in the cache is used without asking the hub, so compute nodes need no network.

    Raises UserError when the hub cannot be reached, refuses, or lacks a file, and when the disk is full.
    """
    known = known_release(name)
    cached = cached_folder(name, cache_dir)
    if cached is not None:
        return cached
    say(f"downloading {name} from {REPOSITORY}")
    with _readable_errors(name, cache_dir):
        for _ in range(
            2
        ):  # should the hub's main branch move on meanwhile, the second round takes what the first lacks
            folders = {_fetch(f"{known.folder}/{file}", cache_dir).parent for file in FILES}
            if len(folders) == 1:
                folder = folders.pop()
                _fetch_drug_table(folder, known, cache_dir)
                return folder
    raise UserError(f"{REPOSITORY} changes while {name} is being downloaded; try again")


def cached_folder(name: str, cache_dir: Path | None = None) -> Path | None:
    """The model's folder in the cache when all its files are there, else None. Uses no network."""
    from huggingface_hub import try_to_load_from_cache

    known = known_release(name)
    found = [
        try_to_load_from_cache(REPOSITORY, f"{known.folder}/{file}", cache_dir=cache_dir, revision="main")
        for file in FILES
    ]
    folders = {Path(path).parent for path in found if isinstance(path, str)}
    return folders.pop() if all(isinstance(path, str) for path in found) and len(folders) == 1 else None


def _fetch_drug_table(folder: Path, known: KnownRelease, cache_dir: Path | None) -> None:
    """The table of drugs that the collator's config names, where the release has one; only model.drug_key needs it."""
    from huggingface_hub.errors import EntryNotFoundError

    collator = yaml.safe_load((folder / "collator_config.yml").read_text(encoding="utf-8"))
    place = collator.get("drug_to_id_path") if isinstance(collator, dict) else None
    if isinstance(place, dict) and isinstance(place.get("local"), str):
        try:
            _fetch(f"{known.folder}/{Path(place['local']).name}", cache_dir)
        except EntryNotFoundError:
            say(f"{REPOSITORY} has no {Path(place['local']).name}: without it model.drug_key cannot be used")


def _fetch(file: str, cache_dir: Path | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        if file.endswith(".safetensors"):
            _fetch_blob(file, cache_dir)
        path: str = hf_hub_download(REPOSITORY, file, revision="main", cache_dir=cache_dir)
    except EntryNotFoundError as error:
        if isinstance(error, LocalEntryNotFoundError):  # which here means that the hub could not be asked
            raise
        raise EntryNotFoundError(file) from error
    return Path(path)


def _fetch_blob(file: str, cache_dir: Path | None) -> None:
    """Put a big file's content where the hub's cache expects it, going on with what an earlier attempt left.

    The client's own download starts from nothing after a kill. In the cache's layout a file's content is
    `blobs/<etag>`; with that in place the client only adds the link from the snapshot.
    """
    from filelock import FileLock
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(REPOSITORY, file, revision="main")
    metadata = get_hf_file_metadata(url)
    if metadata.etag is None or metadata.size is None:
        return
    blobs = (
        Path(cache_dir or constants.HF_HUB_CACHE) / repo_folder_name(repo_id=REPOSITORY, repo_type="model") / "blobs"
    )
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
                headers=build_hf_headers() if same_host else {},  # signed addresses elsewhere take no token
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
def _readable_errors(name: str, cache_dir: Path | None) -> Iterator[None]:
    """Turn what the hub's client raises into one line that says what to do."""
    from huggingface_hub import logging
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    logging.set_verbosity_error()  # it retries for half a minute; only the outcome is news
    where = f" --cache {cache_dir}" if cache_dir is not None else ""
    advice = (
        f"on a machine with network (a login node) run: python scripts/download_model.py {name}{where}; "
        "or give model.path a folder"
    )
    try:
        yield
    except (OfflineModeIsEnabled, LocalEntryNotFoundError):
        raise UserError(f"{name} is not in the cache and the model hub cannot be reached; {advice}") from None
    except GatedRepoError:
        raise UserError(f"{REPOSITORY} asks for a login; accept its terms on the hub and set HF_TOKEN") from None
    except RepositoryNotFoundError:
        raise UserError(f"the hub has no {REPOSITORY}, or HF_TOKEN does not open it; {advice}") from None
    except EntryNotFoundError as error:
        raise UserError(
            f"{REPOSITORY} has no {error}; has the release been rearranged? model.path takes a folder"
        ) from None
    except HfHubHTTPError as error:
        raise UserError(f"the model hub refused {name}: {_first_line(error)}; try again later, or {advice}") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"the disk is full; {name} needs more room in {cache_dir or 'the hub cache'} (paths.cache)"
            ) from None
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise UserError(f"cannot write to the hub cache: {error}; set paths.cache or HF_HOME") from None
        raise UserError(f"{name} could not be downloaded ({_first_line(error)}); {advice}") from None
    except Exception as error:
        if not type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3")):
            raise
        raise UserError(
            f"{name} is not in the cache and the model hub cannot be reached ({_first_line(error)}); {advice}"
        ) from None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
