"""ESM2's folders and releases: what is read of them, what is refused, and how they are downloaded."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sae_genomics.config import ModelConfig
from sae_genomics.errors import UserError
from sae_genomics.items import SequenceItems
from sae_genomics.models import describe, load_model
from sae_genomics.models.esm2.folder import read_folder
from sae_genomics.models.esm2.model import load_folder
from sae_genomics.models.esm2.tokenise import MisalignedTokens, check_alignment
from sae_genomics.models.named import published_name
from sae_genomics.sae import loss_recovered
from tests.hub_server import COMMIT, ROOT, Hub, addresses, run
from tests.models.esm2_checkpoints import VOCAB, make, proteins
from tests.models.folder_faults import edit, remove
from tests.models.test_encoder_folders import refused

CPU = torch.device("cpu")


def config(folder: Path | None = None, **model: object) -> ModelConfig:
    return ModelConfig(family="esm2", path=folder, device="cpu", **model)


# --- what a folder says ---


def test_a_description_needs_no_torch(tmp_path: Path) -> None:
    make(tmp_path)
    code = f"""
import sys
from sae_genomics.config import ModelConfig
from sae_genomics.models import describe
from sae_genomics.models.esm2.config import most_residues, unit_tokens
model = ModelConfig(family="esm2", path={str(tmp_path)!r})
print(describe(model), len(unit_tokens(model)), most_residues(model))
assert not {{"torch", "transformers", "numba"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "n_layers=3, d_model=48, n_heads=4, max_length=128" in done.stdout
    assert done.stdout.split()[-2:] == ["25", "126"]


def test_residues_of_the_published_models() -> None:
    """1,026 rows of positions, of which padding and the rows before it take 2, <cls> and <eos> 2."""
    values = {"max_position_embeddings": 1026, "pad_token_id": 1}
    folder = read_folder.__globals__["Esm2Folder"](Path(), (), values, VOCAB, {})
    assert folder.most_residues == 1022
    assert list(folder.residues)[:3] == ["L", "A", "G"]
    assert folder.residues["L"] == 4


def test_without_a_head_there_is_no_loss_and_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, head=False)
    model = load_model(config(tmp_path))
    tokens = model.tokenise(proteins(1, [30]), 0)
    with pytest.raises(UserError, match="has no lm_head"):
        model.masked_loss(tokens, ~tokens.special, "resid_post")
    assert "EsmForMaskedLM" in model.why_no_loss
    monkeypatch.setattr(loss_recovered, "loaded_model", lambda run, may_compile: model)
    assert loss_recovered.loss_recovered(None, 2, None, 10) is None  # type: ignore[arg-type]
    said = capsys.readouterr().err.strip().splitlines()
    assert "layer 2: the loss recovered is left out" in said[-1]


# --- what is refused ---


def shorter_vocab(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(VOCAB[:-1]))


def shard_missing(folder: Path) -> None:
    shutil.rmtree(folder)
    make(folder, max_shard_size="20KB")
    sorted(folder.glob("*.safetensors"))[1].unlink()


def shard_elsewhere(folder: Path) -> None:
    shutil.rmtree(folder)
    make(folder, max_shard_size="20KB")
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00001", "../model-00001"))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (remove("vocab.txt"), "no vocab.txt"),
        (edit(is_folding_model=True), "is_folding_model"),
        (edit(position_embedding_type="relative_key"), "should be rotary or absolute"),
        (edit(mask_token_id=31), "are both of one model"),
        (shorter_vocab, "no <mask> token"),
        (shard_missing, "incomplete: no model-00002"),
        (shard_elsewhere, "should name the .safetensors file"),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_one_line(tmp_path: Path, damage: Callable[[Path], None], says: str) -> None:
    folder = tmp_path / "model"
    make(folder)
    damage(folder)
    refused(config(folder), says)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"name": "esm2_t7"}, "write demo, esm2_t6_8M_UR50D"),
        ({"name": "tahoe-x1-70m"}, "set model.family to tx1"),
        ({"backend": "reference"}, "model.backend is for model.family tx1"),
        ({"compile": True}, "model.compile"),
        ({"drug_key": "drug"}, "model.drug_key"),
    ],
)
def test_settings_of_another_family_are_refused(settings: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        describe(config(**settings))


def test_the_other_family_refuses_an_esm2_name() -> None:
    with pytest.raises(UserError, match=r"set model\.family to esm2"):
        describe(ModelConfig(name="esm2-8m"))


# --- alignment ---


def test_the_guard_names_protein_and_position(tmp_path: Path) -> None:
    make(tmp_path)
    folder, model = read_folder(tmp_path), load_folder(tmp_path)
    items = SequenceItems(np.array([7, 2]), ["MKLA", "GAVJ*B" * 40], overlap=10)
    tokens = model.tokenise(items, 0)
    check_alignment(tokens, items, folder)

    def changed(name: str, row: int, value: int) -> object:
        values = getattr(tokens, name).copy()
        values[row] = value
        return type(tokens)(
            **{**{field: getattr(tokens, field) for field in tokens.__dataclass_fields__}, name: values}
        )

    with pytest.raises(
        MisalignedTokens, match="row 7 of the input, position 3: token 5 has the token of another letter"
    ):
        check_alignment(changed("token", 3, 5), items, folder)
    with pytest.raises(MisalignedTokens, match=r"row 7 of the input, position 5: .* not a position of that protein"):
        check_alignment(changed("position", 3, 5), items, folder)
    with pytest.raises(MisalignedTokens, match="row 7 of the input, position 2: stored 0 times"):
        check_alignment(changed("stored", 2, False), items, folder)
    off_by_one = tokens.position + np.where(tokens.item == 2, 1, 0)
    shifted = type(tokens)(**{**{f: getattr(tokens, f) for f in tokens.__dataclass_fields__}, "position": off_by_one})
    with pytest.raises(MisalignedTokens, match="row 2 of the input"):
        check_alignment(shifted, items, folder)


def test_unknown_letters_are_x(tmp_path: Path) -> None:
    make(tmp_path)
    model = load_folder(tmp_path)
    tokens = model.tokenise(SequenceItems(np.arange(1), ["LJX*A\u00e9"]), 0)
    assert [VOCAB[token] for token in tokens.token] == ["<cls>", "L", "X", "X", "X", "A", "X", "<eos>"]
    assert tokens.unit.tolist() == [-1, 0, 20, 20, 20, 1, 20, -1], (
        "rows of units.parquet, which has the letters in the order of `unit_tokens`"
    )
    assert list(model.folder.residues)[20] == "X"
    assert tokens.position.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert tokens.special.tolist() == [True, *[False] * 6, True]
    assert tokens.stored is None


def test_windows_may_not_overlap_by_all(tmp_path: Path) -> None:
    make(tmp_path)
    model = load_folder(tmp_path)
    with pytest.raises(UserError, match=r"data\.window_overlap"):
        model.tokenise(SequenceItems(np.arange(1), ["A" * 500], overlap=126), 0)
    assert model.tokenise(SequenceItems(np.arange(1), ["A" * 50], overlap=126), 0).n_items == 1


# --- the hub ---

NAME = "esm2_t6_8M_UR50D"
SCRIPT = "scripts/download_model.py"
LOAD = """
from sae_genomics.config import ModelConfig
from sae_genomics.models import describe, load_model
for name in ("esm2_t6_8M_UR50D", "esm2-8m"):
    config = ModelConfig(family="esm2", name=name, device="cpu")
    info = describe(config)
    assert load_model(config).info.identity == info.identity
    print(info.identity, info.revision, info.n_layers, info.name)
"""


@pytest.fixture
def esm_hub(tmp_path: Path) -> Hub:
    make(tmp_path / "release")
    files = {path.name: path.read_bytes() for path in (tmp_path / "release").iterdir()}
    return Hub(files, f"facebook/{NAME}")


def test_a_login_node_downloads_and_a_compute_node_without_network_loads(esm_hub: Hub, tmp_path: Path) -> None:
    done = run([SCRIPT, "esm2-8m"], esm_hub.url, tmp_path)
    assert done.returncode == 0, done.stderr
    assert addresses(esm_hub) == {"main", COMMIT}
    loaded = run(LOAD, "http://127.0.0.1:9", tmp_path)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.splitlines() == [f"hub:facebook/{NAME}@{COMMIT} {COMMIT} 3 {NAME}"] * 2
    listed = run([SCRIPT, "--list"], "http://127.0.0.1:9", tmp_path)
    assert f"{NAME}: 6 layers, d_model 320, {tmp_path}" in listed.stdout
    assert "esm2_t48_15B_UR50D: 48 layers, d_model 5120, not downloaded" in listed.stdout


def test_a_sharded_release(tmp_path: Path) -> None:
    make(tmp_path / "release", max_shard_size="20KB")
    hub = Hub({path.name: path.read_bytes() for path in (tmp_path / "release").iterdir()}, f"facebook/{NAME}")
    done = run([SCRIPT, NAME], hub.url, tmp_path)
    assert done.returncode == 0, done.stderr
    assert run(LOAD, "http://127.0.0.1:9", tmp_path).returncode == 0


def test_a_release_without_safetensors_says_how_to_convert(esm_hub: Hub, tmp_path: Path) -> None:
    esm_hub.files["pytorch_model.bin"] = esm_hub.files.pop("model.safetensors")
    done = run([SCRIPT, NAME], esm_hub.url, tmp_path)
    assert done.returncode == 2
    assert f"from_pretrained('facebook/{NAME}')" in done.stderr
    assert "Traceback" not in done.stderr
    assert not any("pytorch_model.bin" in path for _, path, _ in esm_hub.requests)


def test_before_the_download_the_release_speaks_for_itself(tmp_path: Path) -> None:
    info = describe(config(name="esm2-650m"), tmp_path)
    assert (info.n_layers, info.d_model, info.max_length, info.revision) == (33, 1280, 1024, None)
    assert info.identity == "hub:facebook/esm2_t33_650M_UR50D@main"
    assert published_name(config(name="esm2-650m")) == "esm2_t33_650M_UR50D"
    assert published_name(config(name="demo")) is None


def test_cells_are_refused(tmp_path: Path) -> None:
    from scipy.sparse import csr_matrix

    from sae_genomics.items import CountItems

    make(tmp_path)
    cells = CountItems(np.arange(1), csr_matrix(np.ones((1, 2), np.float32)), np.arange(2, dtype=np.int32))
    with pytest.raises(UserError, match=r"set data\.kind to proteins"):
        load_folder(tmp_path).tokenise(cells, 0)
