"""How one database's server is asked: with its key, its pause between requests, and retries."""

from __future__ import annotations

import http.client
import time
import urllib.error
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import quote, urlsplit

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.catalogue import Entry
from sae_genomics.web import Patience, open_url, request_for, with_retries

Answer = TypeVar("Answer")


@dataclass
class Service:
    """One database's server. key: its access key; it goes into requests, and into no message and no file."""

    name: str
    entry: Entry
    key: str = field(default="", repr=False)
    patience: Patience = field(default_factory=Patience)
    _last: float = field(default=0.0, repr=False)

    def open(self, url: str, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
        """url: with {key} where the key goes. Raises urllib's errors."""
        wait = self._last + self.entry.pause - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        self._last = time.monotonic()
        secret = {self.entry.key_header: self.key} if self.entry.key_header else {}
        plain = {"Accept-Encoding": "identity", **(headers or {})}
        full = url.replace("{key}", quote(self.key, safe=""))
        return open_url(request_for(full, plain, secret), self.patience.timeout)

    def with_retries(self, ask: Callable[[], Answer], url: str) -> Answer:
        """What `ask` gives in the end. Raises UserError, in one line without the key."""
        who = f"{self.name}: {urlsplit(url).netloc}"
        return with_retries(ask, who, self.patience, lambda error: self._refused(url, error), self.hide)

    def read_text(self, url: str, headers: dict[str, str] | None = None) -> str:
        """A short answer, whole. Raises UserError."""

        def ask() -> str:
            with self.open(url, headers) as answer:
                data = answer.read()  # raises IncompleteRead for half an answer
                return data.decode("utf-8")

        return self.with_retries(ask, url)

    def hide(self, text: str) -> str:
        """The text without the key, as it is and as it stands in an address."""
        for secret in {self.key, quote(self.key, safe="")} - {""}:
            text = text.replace(secret, f"<{self.entry.key}>")
        return text

    def _refused(self, url: str, error: urllib.error.HTTPError) -> UserError:
        hint = "the address has changed? see configs/databases.yaml"
        if self.key and error.code in (401, 403):
            hint = f"is the key in {self.entry.key} right?"
        why = self.hide(str(error.reason))
        return UserError(f"{self.name}: {url} answers HTTP status {error.code} ({why}); {hint}")
