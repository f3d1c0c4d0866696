"""How long a web service is waited for."""

from __future__ import annotations

import urllib.error
from email.message import Message

import pytest

from sae_genomics import web
from sae_genomics.errors import UserError
from sae_genomics.web import Patience, asked_pause, with_retries


def headers(**values: str) -> Message:
    message = Message()
    for name, value in values.items():
        message[name.replace("_", "-")] = value
    return message


def busy(said: Message, status: int = 429) -> urllib.error.HTTPError:
    return urllib.error.HTTPError("http://x", status, "busy", said, None)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("12", 12), ("0", 0), ("99999", 99999), (None, 5), ("soon", 5), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)],
)
def test_what_retry_after_may_say(said, seconds):
    assert asked_pause(headers(Retry_After=said) if said else headers(), 5) == seconds


def test_the_pause_that_is_asked_for_is_kept(monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(web.time, "sleep", pauses.append)
    failures = [
        busy(headers(Retry_After="7")),
        busy(headers(x_rate_limit_retry_after_seconds="31")),
        busy(headers(), 503),
        TimeoutError("timed out"),
    ]

    def ask() -> str:
        if failures:
            raise failures.pop(0)
        return "answer"

    assert with_retries(ask, "the service", Patience(1.0), lambda error: UserError("refused")) == "answer"
    assert pauses == [7.0, 31.0, 4.0, 8.0]


def test_a_pause_of_hours_ends_with_one_line(monkeypatch):
    monkeypatch.setattr(web.time, "sleep", lambda seconds: pytest.fail("waits"))

    def ask() -> str:
        raise busy(headers(x_rate_limit_retry_after_seconds="79200"))

    with pytest.raises(UserError, match=r"the service asks to wait 22 h 00 min \(HTTP status 429\)"):
        with_retries(ask, "the service", Patience(), lambda error: UserError("refused"))
