"""Running again does nothing; a changed setting redoes exactly the tasks that depend on it, and says so first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sae_genomics.cli import main
from tests.pipeline.test_resume import manifests


@pytest.mark.slow
def test_again_changed_and_extended(
    tmp_path: Path, write_config: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config()
    assert main(["pipeline", str(config), "--local"]) == 0
    said = capsys.readouterr()
    assert "report.md" in said.out + said.err
    first = manifests(tmp_path)

    assert main(["pipeline", str(config), "--local"]) == 0
    assert manifests(tmp_path) == first, "nothing is done twice"
    capsys.readouterr()

    assert main(["status", str(config), "--json", "--set", "validation.fdr=0.01"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status

    config = write_config(validation={"fdr": 0.01})
    assert main(["pipeline", str(config), "--local"]) == 0
    error = capsys.readouterr().err
    assert "validation.fdr was 0.05, is 0.01" in error
    assert error.index("validation.fdr was") < error.index("validate layer_00: started")
    changed = {name for name, value in manifests(tmp_path).items() if first[name] != value}
    assert {name.split("/")[-2] for name in changed} == {"validate", "report"}

    config = write_config(validation={"fdr": 0.01}, model={"layers": [0, 1, 2]})
    second = manifests(tmp_path)
    assert main(["pipeline", str(config), "--local"]) == 0
    third = manifests(tmp_path)
    redone = {name for name in second if third[name] != second[name]}
    assert {name.split("/")[-2] for name in redone} == {"extract", "report"}, "old layers are left alone"
    assert {name.split("/")[-1] for name in third.keys() - second.keys()} == {"layer_01.json"}
