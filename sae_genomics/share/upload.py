"""Shared SAEs on the hub. The key is read from HF_TOKEN alone, and is never written or said."""

from __future__ import annotations

import json
import re
from pathlib import Path

from sae_genomics.errors import UserError
from sae_genomics.models.hub_errors import Asked, readable_errors, token
from sae_genomics.share.pack import MARK

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.\-]{0,95}/[A-Za-z0-9][\w.\-]{0,95}")


def repository_of(text: str) -> str:
    """ORG/NAME of `hub:ORG/NAME`. Raises UserError for anything else."""
    name = text.removeprefix("hub:")
    if not _REPOSITORY.fullmatch(name) or ".." in name or "--" in name:
        raise UserError(f"--to {text}: write hub:ORG/NAME, with letters, digits, '.', '_' and '-'")
    return name


def needs_token() -> str:
    """The key. Raises UserError where there is none."""
    key = token()
    if not isinstance(key, str):
        raise UserError("HF_TOKEN is not set; make a token with write access on the hub, and type: export HF_TOKEN=...")
    return key


def upload(folder: Path, repository: str, private: bool, message: str) -> str:
    """Send a packed folder as one commit; returns the commit. What an earlier upload of this script left there is replaced.

    Raises UserError for a repository that holds files of others, and where the hub refuses.
    """
    from huggingface_hub import HfApi

    key = needs_token()
    api = HfApi(token=key)
    advice = "set HF_TOKEN to a token with write access to it, or pack a folder with --to FOLDER"
    asked = Asked(f"the upload to {repository}", repository, "main", advice, "--to", "--to", absent="failed:")
    with readable_errors(asked):
        api.create_repo(repository, private=private, exist_ok=True, repo_type="model")
        there = set(api.list_repo_files(repository)) - {".gitattributes"}
        earlier = _earlier(repository, key) if MARK in there else set()
        if others := sorted(there - earlier - {MARK}):
            raise UserError(
                f"--to: {repository} holds {others[0]}, which this script did not put there; name another repository"
            )
        gone = sorted(earlier - {path.relative_to(folder).as_posix() for path in folder.rglob("*")})
        sent = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message=message,
            repo_type="model",
            delete_patterns=gone or None,
        )
    return str(sent.oid)


def _earlier(repository: str, key: str) -> set[str]:
    """Files that an earlier upload of this script left."""
    from huggingface_hub import hf_hub_download

    path = Path(hf_hub_download(repository, MARK, token=key))
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
    except (ValueError, KeyError, TypeError):
        return set()
    return set(files) if isinstance(files, dict) else set()
