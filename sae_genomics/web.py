"""Asking a web service again where its failure may pass: what every download of data shares."""

from __future__ import annotations

import email.utils
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from typing import TypeVar

import sae_genomics
from sae_genomics.errors import DISK_ERRORS, UserError
from sae_genomics.progress import duration, say

AGENT = f"sae-genomics/{sae_genomics.__version__} (Python)"
TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_LONGEST_WAIT = 120.0
_LONGEST_ASKED = 3600.0

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Patience:
    """wait: seconds before the first retry; each further one waits twice as long. timeout: of a connection and of each read."""

    wait: float = 1.0
    tries: int = 8
    timeout: float = 120.0


def with_retries(
    ask: Callable[[], Answer],
    who: str,
    patience: Patience,
    refused: Callable[[urllib.error.HTTPError], UserError],
    hide: Callable[[str], str] = str,
) -> Answer:
    """What `ask` gives, after as many tries as it takes.

    who: is asked, for messages. refused: what to say of an HTTP status that does not pass. hide: takes keys out of a message.
    Raises UserError where the last try failed too, or the service asks for a longer pause than an hour.
    """
    why = ""
    for attempt in range(patience.tries):
        pause = min(patience.wait * 2**attempt, _LONGEST_WAIT)
        try:
            return ask()
        except urllib.error.HTTPError as error:
            if error.code not in TRY_AGAIN:
                raise refused(error) from None
            why = f"HTTP status {error.code}"
            pause = asked_pause(error.headers, pause)
        except (OSError, EOFError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise  # of this machine, and not of the service
            # Not reached, cut short, too late, or no JSON.
            why = hide(str(getattr(error, "reason", error)) or type(error).__name__)
        if pause > _LONGEST_ASKED:
            raise UserError(f"{who} asks to wait {duration(pause)} ({why}); the same command goes on from here then")
        if attempt + 1 < patience.tries:
            say(f"{who} did not answer ({why}); trying again in {pause:,.0f} s")
            time.sleep(pause)
    raise UserError(f"{who} did not answer {patience.tries} times ({why}); the same command goes on from here later")


def asked_pause(headers: Message, otherwise: float) -> float:
    """Seconds that a service asks to wait: a number, or a date in Retry-After. otherwise: where it asks for none."""
    for name in ("x-rate-limit-retry-after-seconds", "Retry-After"):
        text = headers.get(name)
        if not text:
            continue
        try:
            return max(float(text), 0.0)
        except ValueError:
            pass
        try:
            return max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
        except ValueError:
            pass
    return otherwise


class _StrictRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects are followed, but not from an encrypted address to one in the open."""

    def redirect_request(self, request, file, code, message, headers, new_url):  # type: ignore[no-untyped-def]
        if request.full_url.startswith("https:") and not new_url.startswith("https:"):
            raise urllib.error.HTTPError(request.full_url, 403, "redirected to an address without https", headers, file)
        return super().redirect_request(request, file, code, message, headers, new_url)


def request_for(url: str, headers: dict[str, str], secret: dict[str, str]) -> urllib.request.Request:
    """secret: headers that are not sent on to where a service redirects to."""
    request = urllib.request.Request(url, headers={"User-Agent": AGENT, **headers})
    for name, value in secret.items():
        request.add_unredirected_header(name, value)
    return request


def open_url(request: urllib.request.Request, timeout: float) -> http.client.HTTPResponse:
    """The answer to a request. Raises urllib's errors."""
    return urllib.request.build_opener(_StrictRedirects).open(request, timeout=timeout)  # type: ignore[no-any-return]
