"""A file damaged after it was written is noticed on read, named, and made again; results are as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from sae_genomics.cli import main
from tests.pipeline.test_resume import manifests, same_results


@pytest.mark.slow
def test_a_flipped_bit_is_mended(
    tmp_path: Path, write_config: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    sound = tmp_path / "sound"
    paths = {root: str(sound / root) for root in ("checkpoints", "results", "logs")}
    assert main(["pipeline", str(write_config("sound.yaml", paths=paths)), "--local"]) == 0

    config = str(write_config())
    assert main(["stage", "prepare", "--config", config]) == 0
    assert main(["stage", "extract", "--config", config]) == 0
    damaged = tmp_path / "checkpoints" / "small" / "activations" / "layer_02" / "shard_0001.h5"
    with h5py.File(damaged) as file:
        chunk = file["activations"].id.get_chunk_info(0)
    content = bytearray(damaged.read_bytes())
    content[chunk.byte_offset + 1000] ^= 16
    damaged.write_bytes(content)
    others = {name: value for name, value in manifests(tmp_path / "checkpoints").items() if "shard_0001" not in name}
    capsys.readouterr()

    assert main(["pipeline", config, "--local"]) == 0
    error = capsys.readouterr().err
    assert f"{damaged} is damaged: rows 0 to" in error
    assert "made again" in error
    after = manifests(tmp_path / "checkpoints")
    assert all(after[name] == value for name, value in others.items()), "only that shard was extracted again"
    same_results(sound / "results" / "small", tmp_path / "results" / "small")
