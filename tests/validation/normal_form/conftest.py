"""What the tests of the normal form share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sae_genomics import web
from tests.validation.normal_form.files_server import FileServer


@pytest.fixture
def server() -> Iterator[FileServer]:
    server = FileServer()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """The pauses before another try, none of which is waited for."""
    taken: list[float] = []

    class Clock:
        sleep = staticmethod(taken.append)
        time = staticmethod(web.time.time)

    monkeypatch.setattr(web, "time", Clock)
    return taken
