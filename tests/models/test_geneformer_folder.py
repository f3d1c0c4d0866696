"""Geneformer's folders, dictionaries and releases: what is read of them, what is refused, and how they are downloaded."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_genomics.config import ModelConfig
from sae_genomics.errors import UserError
from sae_genomics.models import describe, load_model, tokeniser_settings, vocabulary
from sae_genomics.models.geneformer.model import load_folder
from sae_genomics.models.geneformer.releases import RELEASES
from tests.hub_server import COMMIT, ROOT, Hub, addresses, run
from tests.models.esm2_checkpoints import close
from tests.models.folder_faults import edit, remove
from tests.models.geneformer_checkpoints import cells, genes, make, tokens_of, write_dictionaries
from tests.models.test_encoder_folders import refused

CPU = torch.device("cpu")


def config(folder: Path | None = None, **model: object) -> ModelConfig:
    return ModelConfig(family="geneformer", path=folder, device="cpu", **model)


# --- what a folder says ---


def test_a_description_needs_no_torch(tmp_path: Path) -> None:
    make(tmp_path)
    code = f"""
import sys
from sae_genomics.config import ModelConfig
from sae_genomics.models import describe, tokeniser_settings, vocabulary
model = ModelConfig(family="geneformer", path={str(tmp_path)!r})
print(describe(model), tokeniser_settings(model), len(vocabulary(model)))
assert not {{"torch", "transformers", "numba"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "n_layers=3, d_model=48, n_heads=4, max_length=40" in done.stdout
    assert "RankSettings(max_length=40, n_special=2) 120" in done.stdout


def test_series_1_has_no_special_tokens(tmp_path: Path) -> None:
    make(tmp_path, "V1")
    settings = tokeniser_settings(config(tmp_path))
    assert (settings.max_length, settings.n_special) == (40, 0)


def test_names_are_ids_first_then_mapped_ids_and_symbols(tmp_path: Path) -> None:
    make(tmp_path)
    ids, tokens = genes(), tokens_of("V2")
    mapping = {ids[3]: ids[4], "ENSG77777777777": ids[5], "ENSG66666666666": "unknown"}
    (tmp_path / "ensembl_mapping_dict.pkl").write_bytes(pickle.dumps(mapping))
    names = vocabulary(config(tmp_path))
    assert list(names)[: len(ids)] == list(tokens)[4:]
    assert names[ids[0]] == names["SYM0"] == tokens[ids[0]]
    assert names[ids[3]] == tokens[ids[4]], "as Geneformer's tokenizer reads an id that is mapped to another one"
    assert names["ENSG77777777777"] == tokens[ids[5]]
    assert "ENSG66666666666" not in names


@pytest.mark.parametrize("place", ["model", "model/geneformer", "geneformer", "geneformer/gene_dictionaries_30m"])
def test_dictionaries_are_found_where_the_hub_keeps_them(tmp_path: Path, place: str) -> None:
    make(tmp_path / "model", dictionaries=False)
    write_dictionaries(tmp_path / place, tag="_gc104M", end="json" if place == "model" else "pkl")
    if place != "geneformer":
        write_dictionaries(tmp_path / "geneformer", "V1", tag="_gc30M", n=80)  # of another model
    assert len(vocabulary(config(tmp_path / "model"))) == 120
    here = os.getcwd()
    os.chdir(tmp_path / "model")
    try:
        assert len(vocabulary(config(Path("../model")))) == len(vocabulary(config(Path()))) == 120
    finally:
        os.chdir(here)


def test_without_a_head_there_is_no_loss(tmp_path: Path) -> None:
    make(tmp_path, head=False)
    for backend in ("native", "reference"):
        model = load_model(config(tmp_path, backend=backend))
        tokens = model.tokenise(cells("V2", [30]), 0)
        with pytest.raises(UserError, match="save it from BertForMaskedLM"):
            model.masked_loss(tokens, ~tokens.special, "resid_post")
    found = load_folder(tmp_path)
    predicted = found.resume(found.pause(tokens, 1, "mlp_out"))
    assert predicted.token is None
    last = found.forward_layers(tokens, [2], "resid_post")[2]
    assert close(predicted.embedding.numpy(), last[:1].numpy())  # <cls>


# --- what is refused ---


def rewrite(stem: str, change: Callable[[dict[str, Any]], dict[str, Any]], tag: str = "") -> Callable[[Path], None]:
    def work(folder: Path) -> None:
        path = folder / f"{stem}.pkl"
        content = pickle.dumps(change(pickle.loads(path.read_bytes())))
        path.unlink()
        (folder / f"{stem}{tag}.pkl").write_bytes(content)

    return work


def both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda folder: [change(folder) for change in changes] and None


def without(*keys: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda entries: {key: value for key, value in entries.items() if key not in keys}


def same(entries: dict[str, Any]) -> dict[str, Any]:
    return entries


def one_more(folder: Path) -> None:
    (folder / "token_dictionary_2.json").write_text(
        json.dumps({gene: len(tokens_of("V2")) - 1 - token for gene, token in tokens_of("V2").items()})
    )


TOKENS, MEDIANS = "token_dictionary", "gene_median_dictionary"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (remove(f"{TOKENS}.pkl"), r"has no token_dictionary\*"),
        (remove(f"{MEDIANS}.pkl"), r"has no gene_median\*"),
        (edit(is_decoder=True), "is_decoder"),
        (edit(use_te_layers=True), "use_te_layers"),
        (edit(position_embedding_type="relative_key"), "should be absolute"),
        (edit(hidden_act="tanh"), "hidden_act"),
        (edit(max_position_embeddings=2), "no room for a gene"),
        (edit(pad_token_id=3), "are both of one model"),
        (edit(vocab_size=65), r"config.json says vocab_size: 65, but .*token_dictionary.pkl has 64 entries"),
        (rewrite(TOKENS, without("<cls>", "<eos>")), r"vocab_size: 64, but .*token_dictionary.pkl has 62 entries"),
        (both(rewrite(TOKENS, without("<eos>")), edit(vocab_size=63)), "numbers 0 to 62, each once"),
        (rewrite(TOKENS, lambda entries: {**without("<eos>")(entries), "x": 3}), "has <cls> but no <eos>"),
        (rewrite(TOKENS, lambda entries: {**entries, "<pad>": 1.5}), "a whole number"),
        (rewrite(TOKENS, lambda entries: {**without("<mask>")(entries), "x": 1}), "has no <mask>"),
        (rewrite(MEDIANS, lambda entries: {**entries, genes()[3]: 0.0}), "the median of ENSG00000000003 is 0.0"),
        (rewrite(MEDIANS, lambda entries: {**entries, genes()[3]: float("nan")}), "is nan"),
        (rewrite(MEDIANS, lambda entries: {f"ENSMUSG{n}": 1.0 for n in range(60)}), "median of 0 of them alone"),
        (both(rewrite(TOKENS, same, "_gc104M"), rewrite(MEDIANS, same, "_gc30M")), "is of series V2, but .* is of series V1"),
        (one_more, "two token dictionaries of 64 entries"),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_one_line(tmp_path: Path, damage: Callable[[Path], None], says: str) -> None:
    folder = tmp_path / "model"
    make(folder)
    damage(folder)
    refused(config(folder), says)


def test_the_same_file_under_two_names_is_one(tmp_path: Path) -> None:
    """The hub had gc95M and has gc104M, with one content."""
    make(tmp_path / "model", dictionaries=False)
    for tag in ("_gc95M", "_gc104M"):
        write_dictionaries(tmp_path / "geneformer", tag=tag)
    assert len(vocabulary(config(tmp_path / "model"))) == 120


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "set model.name to Geneformer-V2-104M"),
        ({"name": "geneformer"}, "Geneformer-V2-104M"),
        ({"name": "tahoe-x1-70m"}, "set model.family to tx1"),
        ({"compile": True}, "model.compile"),
        ({"drug_key": "drug"}, "model.drug_key"),
    ],
)
def test_settings_of_another_family_are_refused(settings: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        describe(config(**settings))


# --- the hub ---

NAME = "Geneformer-V2-104M"
SCRIPT = "scripts/download_model.py"
LOAD = """
from sae_genomics.config import ModelConfig
from sae_genomics.models import describe, load_model, vocabulary
for name in ("Geneformer-V2-104M", "geneformer-v2-104m"):
    config = ModelConfig(family="geneformer", name=name, device="cpu")
    info = describe(config)
    assert load_model(config).info.identity == info.identity
    print(info.identity, info.revision, info.n_layers, info.name, len(vocabulary(config)))
"""


def test_a_login_node_downloads_and_a_compute_node_without_network_loads(tmp_path: Path) -> None:
    """The dictionaries come too, from another folder of the repository."""
    make(tmp_path / "release" / NAME, dictionaries=False)
    write_dictionaries(tmp_path / "release" / "geneformer", tag="_gc104M")
    (tmp_path / "release/geneformer/ensembl_mapping_dict_gc104M.pkl").write_bytes(pickle.dumps({}))
    root = tmp_path / "release"
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    hub = Hub(files, "ctheodoris/Geneformer")
    done = run([SCRIPT, "geneformer-v2-104m"], hub.url, tmp_path)
    assert done.returncode == 0, done.stderr
    assert addresses(hub) == {"main", COMMIT}
    loaded = run(LOAD, "http://127.0.0.1:9", tmp_path)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.splitlines() == [f"hub:ctheodoris/Geneformer/{NAME}@{COMMIT} {COMMIT} 3 {NAME} 120"] * 2
    listed = run([SCRIPT, "--list"], "http://127.0.0.1:9", tmp_path)
    assert f"{NAME}: 12 layers, d_model 768, {tmp_path}" in listed.stdout


def test_before_the_download_the_release_speaks_for_itself(tmp_path: Path) -> None:
    info = describe(config(name="Geneformer-V1-10M"), tmp_path)
    assert (info.n_layers, info.d_model, info.n_heads, info.max_length) == (6, 256, 4, 2048)
    assert info.identity == "hub:ctheodoris/Geneformer/Geneformer-V1-10M@main"
    known = RELEASES["Geneformer-V1-10M"]
    assert [known.path(file) for file in known.small_files][:2] == [
        "Geneformer-V1-10M/config.json",
        "geneformer/gene_dictionaries_30m/token_dictionary_gc30M.pkl",
    ]
