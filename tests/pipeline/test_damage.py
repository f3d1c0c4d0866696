"""A file damaged after it was written is noticed, named, and made again; results are as if nothing had happened."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
import yaml

from sae_genomics.cli import main
from sae_genomics.validation.files import VALIDATE_FILES
from tests.pipeline.conftest import small_values
from tests.pipeline.test_resume import manifests, same_results


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 16
    path.write_bytes(content)


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
    before = damaged.stat()
    with h5py.File(damaged) as file:
        chunk = file["activations"].id.get_chunk_info(0)
    flip(damaged, chunk.byte_offset + 1000)
    os.utime(damaged, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a failing disk does it: reading alone finds it
    others = {name: value for name, value in manifests(tmp_path / "checkpoints").items() if "shard_0001" not in name}
    capsys.readouterr()

    assert main(["pipeline", config, "--local"]) == 0
    error = capsys.readouterr().err
    assert f"{damaged} is damaged: its content is not what was written" in error
    assert "made again" in error
    after = manifests(tmp_path / "checkpoints")
    assert all(after[name] == value for name, value in others.items()), "only that shard was extracted again"
    same_results(sound / "results" / "small", tmp_path / "results" / "small")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "checkpoints/small/activations/layer_02/shard_0001.h5",
        "checkpoints/small/saes/layer_00/sae_weights.safetensors",
        "checkpoints/small/saes/layer_02/cfg.json",
        "results/small/layer_00/neuron_genes.parquet",
        "results/small/layer_02/features.h5ad",
    ],
)
def test_damage_is_found_in_a_file_that_nobody_reads_any_more(
    name: str, finished: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, config = finished
    file = folder / name
    sound = file.read_bytes()
    if file.suffix == ".h5ad":
        with h5py.File(file) as content:
            at = content["X/data"].id.get_offset() or content["X/data"].id.get_chunk_info(0).byte_offset
    else:
        at = len(sound) // 2
    flip(file, at)
    capsys.readouterr()
    assert main(["pipeline", config, "--local"]) == 0
    assert f"{file.name} is damaged" in capsys.readouterr().err
    assert file.read_bytes() == sound


def overwrite(path: Path, at: int, n_bytes: int = 64) -> None:
    """Change bytes as a failing disk does it: neither size nor time tell."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[at : at + n_bytes] = bytes(byte ^ 1 for byte in content[at : at + n_bytes])
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n_bytes"),
    [
        ("checkpoints/small/saes/layer_00/sae_weights.safetensors", 64),
        ("checkpoints/small/saes/layer_00/cfg.json", 1),
        ("checkpoints/small/saes/layer_00/metrics.json", 1),
        ("checkpoints/small/activations/tokens/shard_0001.h5", 64),
        ("results/small/prepare/plan.json", 1),
        ("results/small/prepare/cells.parquet", 64),
        ("results/small/prepare/genes.parquet", 64),
        ("checkpoints/small/manifests/train/layer_00.json", 1),
        ("results/small/manifests/prepare/run.json", 1),
    ],
)
def test_damage_is_found_by_the_stage_that_reads_the_file(
    name: str, n_bytes: int, finished: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, config = finished
    file, results = folder / name, folder / "results" / "small"
    sound = file.read_bytes()
    tables = {path: path.read_bytes() for path in (results / "layer_00").glob("*.parquet")}
    (results / "manifests" / "associate" / "layer_00.json").unlink()
    for path in (*tables, results / "layer_00" / "features.h5ad"):
        if path.name not in VALIDATE_FILES:
            path.unlink()
    overwrite(file, len(sound) // 2, n_bytes)
    capsys.readouterr()
    assert main(["stage", "associate", "--config", config]) == 0
    error = capsys.readouterr().err
    assert f"{file} is damaged: its content is not what was written; it is made again" in error
    if "manifests" not in name:  # which hold times
        assert file.read_bytes() == sound
    assert len(tables) > 4
    assert all(path.read_bytes() == content for path, content in tables.items())


@pytest.mark.slow
def test_a_damaged_record_of_a_training_is_not_believed(
    finished: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, config = finished
    sae = folder / "checkpoints" / "small" / "saes" / "layer_00"
    record, weights = sae / "training.json", (sae / "sae_weights.safetensors").read_bytes()
    scale = json.loads(record.read_text())["scale"]
    overwrite(record, record.read_bytes().index(b'"scale": ') + 9, 1)
    assert json.loads(record.read_text())["scale"] != scale, "it is valid JSON still"
    (sae / "metrics.json").unlink()
    capsys.readouterr()
    assert main(["stage", "train", "--config", config]) == 0
    assert (
        f"{record} is damaged: its content is not what was written; the SAE is trained again" in capsys.readouterr().err
    )
    assert (sae / "sae_weights.safetensors").read_bytes() == weights
    assert json.loads((sae / "metrics.json").read_text())["activation_scale"] == scale


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that is done: its folder and config file."""
    folder = tmp_path_factory.mktemp("finished")
    config = folder / "small.yaml"
    config.write_text(yaml.safe_dump(small_values(folder)))
    assert main(["pipeline", str(config), "--local"]) == 0
    return folder, str(config)
