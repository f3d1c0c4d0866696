"""An artifact that is made anew makes what was derived from it stale, unless it came out the same bit for bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import pyarrow.parquet as pq
import pytest

from sae_genomics.artifacts import LAYER_TABLES
from sae_genomics.cli import main
from sae_genomics.content import content_hash
from sae_genomics.sae import task as train_task
from tests.pipeline.test_resume import manifests

LAYERS = (0, 2)


def redone(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """<stage>/<unit> of the tasks whose manifests were written again. The report is left out: it quotes how long training took."""
    assert before.keys() == after.keys()
    changed = {"/".join(Path(name).with_suffix("").parts[-2:]) for name in before if before[name] != after[name]}
    return {each for each in changed if not each.startswith("report/")}


def weights_of(folder: Path, layer: int) -> str:
    return content_hash(folder / f"checkpoints/small/saes/layer_{layer:02d}/sae_weights.safetensors")


def named_weights(folder: Path, layer: int) -> dict[str, str | None]:
    """The weights that each artifact of a layer says it describes."""
    saes, results = folder / f"checkpoints/small/saes/layer_{layer:02d}", folder / f"results/small/layer_{layer:02d}"
    found: dict[str, str | None] = {
        "cfg.json": json.loads((saes / "cfg.json").read_text())["metadata"]["sae_genomics"]["weights"],
        "metrics.json": json.loads((saes / "metrics.json").read_text())["weights"],
    }
    with h5py.File(results / "features.h5ad") as file:
        found["features.h5ad"] = file["uns/sae_genomics/weights"].asstr()[()]
    for path in sorted(results.glob("*.parquet")):
        found[path.name] = pq.read_schema(path).metadata.get(b"weights", b"").decode()
    return found


def check_names(folder: Path) -> None:
    """Everything names the weights that lie there; so does the report."""
    report = (folder / "results/small/report.md").read_text()
    for layer in LAYERS:
        named, weights = named_weights(folder, layer), weights_of(folder, layer)
        assert len(named) == len(LAYER_TABLES) + 3  # and cfg.json, metrics.json, features.h5ad
        assert set(named.values()) == {weights}, named
        assert weights in report


@pytest.mark.slow
def test_trained_again(tmp_path: Path, write_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    config = str(write_config())
    assert main(["pipeline", config, "--local"]) == 0
    check_names(tmp_path)
    first = manifests(tmp_path)

    shutil.rmtree(tmp_path / "checkpoints/small/saes/layer_02")
    assert main(["pipeline", config, "--local"]) == 0
    assert redone(first, manifests(tmp_path)) == {"train/layer_02", "associate/layer_02"}, (
        "the same weights, bit for bit"
    )

    shutil.rmtree(tmp_path / "checkpoints/small")
    assert main(["pipeline", config, "--local"]) == 0
    second = manifests(tmp_path)
    again = {f"train/layer_{layer:02d}" for layer in LAYERS} | {f"extract/shard_{shard:04d}" for shard in range(3)}
    again |= {f"associate/layer_{layer:02d}" for layer in LAYERS}  # which keeps the untrained model's SAEs there
    assert redone(first, second) - {"prepare/all"} == again
    check_names(tmp_path)

    # another machine may train other weights from the same settings
    with monkeypatch.context() as patch:
        patch.setattr(train_task, "_seed", lambda *given: 4711)
        shutil.rmtree(tmp_path / "checkpoints/small/saes/layer_02")
        before = weights_of(tmp_path, 0)
        assert main(["stage", "train", "--config", config, "--task", "1"]) == 0
    assert main(["pipeline", config, "--local"]) == 0
    expected = {f"{stage}/layer_02" for stage in ("train", "associate", "validate")}
    assert redone(second, manifests(tmp_path)) == expected
    assert weights_of(tmp_path, 0) == before
    check_names(tmp_path)
