"""A hub of this test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hub_server import Hub, release_files


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub({**release_files("70m-model"), **release_files("1.3b-model"), "README.md": b"hello"})
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()
