"""A run's SAEs are packed, loaded again, and used by another run: its tables are the same. And everything that can go wrong is one line."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sae_lens
import torch
import yaml

from sae_genomics.artifacts import ANNOTATION_NULLS
from sae_genomics.cli import main as cli
from sae_genomics.sae.load import load_encoder
from sae_genomics.share import facts
from sae_genomics.share.facts import features_of, read, run_of
from sae_genomics.share.page import page
from tests.hub_server import ROOT, Hub, run
from tests.share.conftest import REPOSITORY

SCRIPT = "scripts/share_saes.py"
LOAD = f"""
import json, sys, torch
from sae_lens import SAE
sae = SAE.from_pretrained(release="{REPOSITORY}", sae_id="layer_02")
x = torch.arange(64 * 3, dtype=torch.float32).reshape(3, 64).sin()
print(json.dumps(sae.encode(x).tolist()))
"""


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("share_saes", ROOT / SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def share(*arguments: object) -> int:
    code: int = script().main([str(each) for each in arguments])
    return code


def another(config: Path, folder: Path, **sae: Any) -> Path:
    """The same run under other folders, with other settings of the SAE."""
    values = yaml.safe_load(config.read_text())
    values["run"]["name"] = "another"
    values["paths"] |= {name: str(folder / name) for name in ("checkpoints", "results", "logs")}
    values["sae"] = {**values["sae"], **sae}
    file = folder / "another.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def same_tables(first: Path, second: Path) -> int:
    """Compare every table of two runs' results; how many there are."""
    tables = sorted(path.relative_to(first) for path in first.rglob("*.parquet"))
    for name in tables:
        pd.testing.assert_frame_equal(pd.read_parquet(first / name), pd.read_parquet(second / name))
    return len(tables)


@pytest.mark.slow
def test_shared_loaded_again_and_used_by_another_run(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_ = run_of(finished)
    assert share(run_.results, "--to", tmp_path / "shared") == 0
    x = np.sin(np.arange(64 * 50, dtype=np.float32)).reshape(50, 64)
    for layer in (0, 2):
        theirs = sae_lens.SAE.load_from_disk(tmp_path / "shared" / f"layer_{layer:02d}")
        token, feature, activation = load_encoder(run_.sae_dir(layer)).encode_sparse(x)
        ours = np.zeros((50, 128), np.float32)
        ours[token, feature] = activation
        with torch.no_grad():
            np.testing.assert_allclose(theirs.encode(torch.from_numpy(x)).numpy(), ours, rtol=1e-5, atol=1e-5)

    other = another(finished, tmp_path, **{"from": str(tmp_path / "shared"), "stability": True})
    capsys.readouterr()
    assert cli(["pipeline", str(other), "--local"]) == 0
    said = capsys.readouterr().err
    assert "nothing is trained" in said
    assert "sae.stability is left out" in said
    assert same_tables(run_.results, tmp_path / "results" / "another") > 20
    report = (tmp_path / "results" / "another" / "report.md").read_text()
    assert "a published sparse autoencoder" in report
    assert "none was trained here" in report
    assert "Sae.stability is left out" in report
    assert "sae.expansion" not in report
    assert "which no autoencoder was trained on" not in report
    assert "published SAEs" in (tmp_path / "results" / "another" / "dashboard.html").read_text()
    assert share(other, "--to", tmp_path / "again") == 0
    card = (tmp_path / "again" / "README.md").read_text()
    assert "none here: published SAEs, taken over from shared/layer_00, shared/layer_02" in card
    assert str(tmp_path) not in card + (tmp_path / "again" / "layer_00" / "cfg.json").read_text()
    assert str(tmp_path) not in (tmp_path / "again" / "layer_00" / "metrics.json").read_text()

    # what follows is stale once the shared SAE of a layer is another one
    shutil.copytree(tmp_path / "shared" / "layer_00", tmp_path / "other_00")
    for name in ("cfg.json", "sae_weights.safetensors"):
        shutil.copyfile(tmp_path / "shared" / "layer_02" / name, tmp_path / "shared" / "layer_00" / name)
    cfg = json.loads((tmp_path / "shared" / "layer_00" / "cfg.json").read_text())
    cfg["metadata"] |= {"hook_name": "blocks.0.hook_resid_post", "hook_layer": 0}
    (tmp_path / "shared" / "layer_00" / "cfg.json").write_text(json.dumps(cfg))
    capsys.readouterr()
    assert cli(["status", str(other), "--json"]) == 0
    tasks = json.loads(capsys.readouterr().out)["tasks"]
    states = {(each["stage"], each["unit"]): each["state"] for each in tasks}
    assert states["train", "layer_00"] == "stale"
    assert states["train", "layer_02"] == states["associate", "layer_02"] == "done"
    assert cli(["stage", "train", "--config", str(other)]) == 0
    capsys.readouterr()
    assert cli(["status", str(other), "--json"]) == 0
    tasks = json.loads(capsys.readouterr().out)["tasks"]
    states = {(each["stage"], each["unit"]): each["state"] for each in tasks}
    assert states["train", "layer_00"] == states["validate", "layer_02"] == "done"
    assert states["associate", "layer_00"] == states["report", "run"] == "stale"


def test_the_card_has_the_runs_own_numbers(finished: Path, tmp_path: Path) -> None:
    assert share(finished, "--to", tmp_path / "shared", "--layers", "2") == 0
    folder = tmp_path / "shared"
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["layer_02"]
    text = (folder / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "saelens"
    run_ = run_of(finished)
    metrics = json.loads((run_.sae_dir(2) / "metrics.json").read_text())
    assert f"| {metrics['fvu']:.3f} | 1 (the mean activation) |" in body
    nulls = ANNOTATION_NULLS.read(run_.layer_results(2) / ANNOTATION_NULLS.file)
    real = nulls[(nulls["source"] == "features") & (nulls["collection"] == "all")].iloc[0]
    assert f"({real['n_annotated']:,} of {real['n_units']:,})" in body
    assert "gene names shuffled" in body
    assert "0.5 by chance" in body
    assert "features on an untrained model" in body
    assert run_.model_info.identity in body
    assert run_.content_hashes["data"] in body
    assert str(tmp_path) not in body
    features = pd.read_parquet(folder / "features.parquet")
    assert len(features) == 128
    assert set(features["layer"]) == {2}
    assert {"name", "top_gene_symbols"} <= set(features)
    lines = (folder / "features.tsv").read_text().splitlines()
    assert len(lines) == 129
    assert {line.count("\t") for line in lines} == {features.shape[1] - 1}
    assert set(pd.read_parquet(folder / "annotations.parquet")["layer"]) == {2}


def test_the_page_is_escaped_and_needs_nothing_from_elsewhere(finished: Path) -> None:
    shared = read(run_of(finished))
    evil = "<script>alert(1)</script>\"'&"
    shared.layers[0].features.loc[0, "name"] = evil
    shared.layers[0].features.loc[0, "name_q_matched"] = 0.0
    shared.notes.append(evil)
    text = page(shared)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;" in text
    assert "http://" not in text
    assert "https://" not in text
    assert "src=" not in text
    assert text.count("<tr>") > 150


def test_names_of_features_are_those_of_the_run(finished: Path) -> None:
    run_ = run_of(finished)
    table = features_of(run_, 0)
    names = pd.read_parquet(run_.layer_results(0) / "feature_names.parquet").set_index("feature")["name"]
    for feature, name in zip(table["feature"], table["name"], strict=True):
        assert name == names.get(feature, name)


def test_what_is_wrong_is_one_line(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    foreign, file = tmp_path / "foreign", tmp_path / "file"
    foreign.mkdir()
    (foreign / "thesis.docx").write_text("x")
    file.write_text("x")
    unfinished = another(finished, tmp_path)
    cases = [
        ((finished, "--to", foreign), "was not made by this script"),
        ((finished, "--to", file), "is a file; name a folder"),
        ((finished, "--to", "hub:someone/name"), "HF_TOKEN is not set"),
        ((finished, "--to", "hub:name"), "write hub:ORG/NAME"),
        ((finished, "--to", "hub:a/../b"), "write hub:ORG/NAME"),
        ((finished, "--to", tmp_path / "x", "--private"), "--private is for hub:ORG/NAME"),
        ((finished, "--to", tmp_path / "x", "--layers", "1"), "has no layer 1; it has 0, 2"),
        ((finished, "--to", tmp_path / "x", "--layers", "all"), "write numbers with commas"),
        ((unfinished, "--to", tmp_path / "x"), "is not finished: prepare is missing"),
        ((tmp_path / "nowhere", "--to", tmp_path / "x"), "name results/RUN, or the config file of a run"),
        ((foreign, "--to", tmp_path / "x"), "has no config.yaml"),
    ]  # fmt: skip
    for arguments, words in cases:
        capsys.readouterr()
        assert share(*arguments) == 2, words
        said = capsys.readouterr()
        assert words in said.err, said.err
        assert len(said.err.splitlines()) == 1, said.err
    assert not (tmp_path / "x").exists()
    assert (foreign / "thesis.docx").read_text() == "x"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".partial")]


def test_a_folder_of_ours_is_replaced_unless_something_was_put_into_it(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "shared"
    assert share(finished, "--to", target) == 0
    assert share(finished, "--to", target, "--layers", "0") == 0
    assert sorted(path.name for path in target.iterdir() if path.is_dir()) == ["layer_00"]
    (target / "mine.txt").write_text("x")
    capsys.readouterr()
    assert share(finished, "--to", target) == 2
    assert "also holds mine.txt" in capsys.readouterr().err
    assert (target / "mine.txt").exists()
    assert not (target / "layer_02").exists()


@pytest.mark.slow
def test_the_hub_and_back(finished: Path, tmp_path: Path, hub: Hub) -> None:
    key = {"HF_TOKEN": str(hub.key)}
    done = run([SCRIPT, str(finished), "--to", f"hub:{REPOSITORY}", "--private"], hub.url, tmp_path / "home", **key)
    assert done.returncode == 0, done.stderr
    assert hub.private is True
    assert str(hub.key) not in done.stdout + done.stderr
    there = hub.commits[hub.branches["main"]]
    assert {"README.md", "index.html", "layer_00/cfg.json", "layer_02/sae_weights.safetensors"} <= set(there)
    assert hub.branches["main"] in done.stderr
    assert f'release="{REPOSITORY}", sae_id="layer_00"'.encode() in there["README.md"]

    loaded = run(LOAD, hub.url, tmp_path / "reader", **key)
    assert loaded.returncode == 0, loaded.stderr
    x = np.sin(np.arange(64 * 3, dtype=np.float32)).reshape(3, 64)
    token, feature, activation = load_encoder(run_of(finished).sae_dir(2)).encode_sparse(x)
    ours = np.zeros((3, 128), np.float32)
    ours[token, feature] = activation
    np.testing.assert_allclose(np.array(json.loads(loaded.stdout.splitlines()[-1])), ours, rtol=1e-5, atol=1e-5)

    # another run takes them from the hub, and does not ask it again
    other = another(finished, tmp_path, **{"from": REPOSITORY})
    for name in ("prepare", "extract", "train"):
        made = run(
            ["-m", "sae_genomics.cli", "stage", name, "--config", str(other)], hub.url, tmp_path / "reader", **key
        )
        assert made.returncode == 0, made.stderr
    first, second = run_of(finished), run_of(other)
    for layer in (0, 2):
        name = "sae_weights.safetensors"
        assert (first.sae_dir(layer) / name).read_bytes() == (second.sae_dir(layer) / name).read_bytes()
        metrics = json.loads((second.sae_dir(layer) / "metrics.json").read_text())
        assert metrics["from"]["commit"] == hub.branches["main"]
        assert metrics["from"]["name"] == f"{REPOSITORY}/layer_{layer:02d}"
    asked = len(hub.requests)
    offline = run(["-m", "sae_genomics.cli", "stage", "train", "--config", str(other), "--set", "sae.evaluate_tokens=500"], hub.url,
                  tmp_path / "reader", HF_HUB_OFFLINE="1")  # fmt: skip
    assert offline.returncode == 0, offline.stderr
    assert len(hub.requests) == asked
    wrong = run(["-m", "sae_genomics.cli", "stage", "train", "--config", str(other), "--set", f"sae.from={REPOSITORY}/layer_{{layer}}x"],
                hub.url, tmp_path / "reader")  # fmt: skip
    assert wrong.returncode == 2
    assert f"{REPOSITORY} has no layer_0x/cfg.json at revision main" in wrong.stderr

    # sent again with fewer layers: what the first upload left goes
    done = run([SCRIPT, str(finished), "--to", f"hub:{REPOSITORY}", "--layers", "0"], hub.url, tmp_path / "home", **key)
    assert done.returncode == 0, done.stderr
    assert "layer_02/cfg.json" not in hub.commits[hub.branches["main"]]

    hub.commit({"theirs.bin": b"x"})
    done = run([SCRIPT, str(finished), "--to", f"hub:{REPOSITORY}"], hub.url, tmp_path / "home", **key)
    assert done.returncode == 2
    assert "holds theirs.bin, which this script did not put there" in done.stderr
    done = run([SCRIPT, str(finished), "--to", f"hub:{REPOSITORY}"], hub.url, tmp_path / "home", HF_TOKEN="hf_wrong")
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "hf_wrong" not in done.stderr


def test_proteins_have_concepts_and_letters_in_place_of_names(tmp_path: Path) -> None:
    """The same functions over a run of proteins: its tables have other names, and no gene sets."""
    from tests.report.planted_proteins import planted_proteins

    planted = planted_proteins(tmp_path)
    layer = facts._layer(planted, planted.layers[0])
    names = [each.name for each in layer.numbers]
    assert "Concepts found" in names
    assert "Features with a gene set" not in names
    found = next(each for each in layer.numbers if each.name == "Concepts found")
    assert "raw neurons" in found.chance
    assert {"best_concept", "best_concept_f1", "best_label", "top_unit_names"} <= set(layer.features)
    text = page(facts.Shared(planted, [layer], [], []))
    assert "Best concept" in text
    assert "Best label" in text
