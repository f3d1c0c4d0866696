"""A small finished run, made once, that every test here shares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sae_genomics.cli import main
from tests.hub_server import Hub
from tests.pipeline.conftest import small_values

REPOSITORY = "someone/small-saes"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its config file."""
    folder = tmp_path_factory.mktemp("finished")
    values = small_values(folder, validation={"shuffles": 2, "baselines": ["neurons", "untrained"]})
    values["sae"] |= {"steps": 60, "loss_recovered_cells": 6}
    values["associations"] = {"top_genes": 30}
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(values))
    assert main(["pipeline", str(file), "--local"]) == 0
    return file


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub without the repository, until it is created there."""
    server = Hub({".gitattributes": b""}, REPOSITORY)
    server.key, server.exists = "hf_secretsecret", False
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()
