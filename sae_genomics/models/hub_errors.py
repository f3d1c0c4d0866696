"""What the hub's client raises, turned into one line that says what to do. For models and for published SAEs."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sae_genomics.errors import UserError


@dataclass(frozen=True)
class Asked:
    """What is asked of the hub, and what a reader can do when it is not had.

    name: of the model or SAE. repository, revision: on the hub. advice: a command, or another way. key: the setting of the revision.
    folder: what takes a folder in place of a download. cache_dir: where downloads go, None for the hub's own folder. absent: what stands before "the model hub cannot be reached".
    """

    name: str
    repository: str
    revision: str
    advice: str
    key: str = "model.revision"
    folder: str = "model.path"
    cache_dir: Path | None = None
    absent: str = "is not in the cache and"


def token() -> str | bool:
    """What opens the hub. It is taken from the environment alone; False keeps the client from looking elsewhere."""
    return os.environ.get("HF_TOKEN", "").strip() or False


@contextmanager
def readable_errors(asked: Asked) -> Iterator[None]:
    """Raises UserError for what the hub's client raises."""
    from huggingface_hub import logging
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    logging.set_verbosity_error()  # it retries for half a minute; only the outcome is news
    name, repository, revision, advice = asked.name, asked.repository, asked.revision, asked.advice
    what = f"{name} at revision {revision}"
    try:
        yield
    except (OfflineModeIsEnabled, LocalEntryNotFoundError):
        raise UserError(f"{what} {asked.absent} the model hub cannot be reached; {advice}") from None
    except GatedRepoError:
        raise UserError(f"{repository} asks for a login; accept its terms on the hub and set HF_TOKEN") from None
    except RepositoryNotFoundError:
        raise UserError(f"the hub has no {repository}, or HF_TOKEN does not open it; {advice}") from None
    except RevisionNotFoundError:
        raise UserError(
            f"the hub has no revision {revision} of {repository}; set {asked.key} to one of its branches, tags or commits, "
            f"or give {asked.folder} a folder"
        ) from None
    except EntryNotFoundError as error:
        raise UserError(
            f"{repository} has no {error} at revision {revision}; has the release been rearranged? {asked.folder} takes a folder"
        ) from None
    except HfHubHTTPError as error:
        raise UserError(f"the model hub refused {name}: {first_line(error)}; try again later, or {advice}") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"the disk is full; {name} needs more room in {asked.cache_dir or 'the hub cache'} (paths.cache)"
            ) from None
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise UserError(f"cannot write to the hub cache: {error}; set paths.cache or HF_HOME") from None
        raise UserError(f"{name} could not be downloaded ({first_line(error)}); {advice}") from None
    except Exception as error:
        if not type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3")):
            raise
        raise UserError(
            f"{what} {asked.absent} the model hub cannot be reached ({first_line(error)}); {advice}"
        ) from None


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
