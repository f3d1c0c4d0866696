"""Detection in proteins that the run has not seen gives the registry's precision and recall; and every wrong call is one line."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from sae_genomics.concepts.choosing import RULES
from sae_genomics.concepts.detect import Detected, compare, detect, detectors, run_on
from sae_genomics.concepts.held_out import item_blocks, read_held_out
from sae_genomics.concepts.named import NamedConcepts, concepts_of
from sae_genomics.concepts.thresholds import read_thresholds, write_thresholds
from sae_genomics.concepts.vectors import ConceptVector, write_vectors
from sae_genomics.config import parse_config
from sae_genomics.data.proteins.synthetic.writing import make_proteins, write_proteins
from sae_genomics.execute import execute
from sae_genomics.run import Run
from sae_genomics.stages import stage_named

LAYER = 2
ZINC_FINGER, METALLOPEPTIDASE = "span:PS00028", "span:PS00142"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The demo's proteins, one layer: vectors of two domains fitted here in a few lines, and the thresholds of the stage."""
    folder = Path(tmp_path_factory.mktemp("detect"))
    config = {
        "run": {"name": "known"},
        "data": {"kind": "proteins", "path": "builtin:demo_proteins", "label_key": "family", "group_key": "family", "heldout_fraction": 0.5, "max_proteins": 450},
        "model": {"family": "esm2", "name": "demo", "layers": [LAYER]},
        "paths": {name: str(folder / name) for name in ("results", "checkpoints", "logs")},
        "concepts": {"enabled": True, "kinds": ["span"], "min_items": 10},
    }  # fmt: skip
    path = folder / "known.yaml"
    path.write_text(json.dumps(config))
    run = Run(parse_config(config, "known"), path)
    execute(run, stage_named("prepare"), 0)
    execute(run, stage_named("extract"), 0)
    named = concepts_of(run)
    vectors = fitted(run, named)
    run.layer_results(LAYER).mkdir(parents=True)
    write_vectors(run.layer_results(LAYER), vectors, run.model_info.d_model, {"layer": LAYER})
    write_thresholds(run, LAYER, read_held_out(run, LAYER, named, vectors))
    return run


def fitted(run: Run, named: NamedConcepts) -> list[ConceptVector]:
    training = np.flatnonzero(~named.heldout)[::3]
    blocks = list(item_blocks(run, LAYER, run.kind.read_units(run), training))
    x = np.concatenate([block.x for block in blocks])
    item = np.concatenate([np.repeat(block.item, np.diff(block.ptr)) for block in blocks])
    position, unit = (np.concatenate([getattr(block, name) for block in blocks]) for name in ("position", "unit"))
    vectors = []
    for concept in named:
        if concept.id not in (ZINC_FINGER, METALLOPEPTIDASE):
            continue
        truth = concept.token_truth(item, position, unit)
        rows = np.flatnonzero(truth >= 0)[::4]
        fit = LogisticRegression(C=0.1, class_weight="balanced", max_iter=200).fit(x[rows], truth[rows])
        length = float(np.linalg.norm(fit.coef_))
        vector = (fit.coef_[0] / length).astype(np.float32)
        vectors.append(
            ConceptVector(concept.id, "span", concept.name, vector, float(fit.intercept_[0] / length), length)
        )
    return vectors


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Proteins of another seed: no family of the demo is among them."""
    folder = Path(tmp_path_factory.mktemp("unseen"))
    write_proteins(make_proteins(40, 4711), folder)
    return folder


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("detect_concepts", Path("scripts/detect_concepts.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["detect_concepts"] = module
    spec.loader.exec_module(module)
    return module


def test_registry_is_of_items_that_nothing_was_fitted_on(known: Run) -> None:
    registry = read_thresholds(known.layer_results(LAYER))
    assert {each["concept"] for each in registry["concepts"]} == {ZINC_FINGER, METALLOPEPTIDASE}
    n_heldout = int(known.kind.read_items(known, ["heldout"])["heldout"].sum())
    for each in registry["concepts"]:
        assert each["n_validation"] + each["n_test"] == n_heldout  # every protein of the demo has a span
        assert each["score"] == "window"
        assert 10 <= each["window"] <= 30
    zinc = next(each for each in registry["concepts"] if each["concept"] == ZINC_FINGER)
    assert zinc["thresholds"]["f1_max"]["f1"][0] > 0.8


@pytest.fixture(scope="module")
def scored(known: Run, unseen: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Detected]:
    """The unseen proteins through the model, once: scores are the same for every rule."""
    settings = {"spans": str(unseen / "spans.tsv.gz"), "labels": str(unseen / "labels.tsv.gz"), "group_key": "family"}
    new = run_on(known, unseen / "proteins.fasta.gz", settings, Path(tmp_path_factory.mktemp("new")))
    new.kind.prepare(new)
    return new, detect(new, detectors(known, None, "f1_max"))


@pytest.mark.parametrize("rule", RULES)
def test_unseen_proteins_give_the_registry_s_precision_and_recall(
    known: Run, scored: tuple[Run, Detected], rule: str
) -> None:
    new, detected = scored
    compared = compare(new, detectors(known, None, rule), detected, rule)
    assert set(compared["concept"]) == {ZINC_FINGER, METALLOPEPTIDASE}
    for row in compared.to_dict("records"):
        for name in ("precision", "recall"):
            assert agree(row, name), (row["concept"], name, {key: row[key] for key in row if key.startswith(name)})


def agree(row: dict[str, float], name: str) -> bool:
    """Whether the 95 % interval of the difference of both estimates holds 0 (Newcombe 1998, Stat. Med. 17:873, from both shares' intervals)."""
    new, registry = ([row[f"{name}{of}{end}"] for end in ("", "_low", "_high")] for of in ("", "_registry"))
    lower, upper = (new, registry) if new[0] < registry[0] else (registry, new)
    return upper[0] - lower[0] <= np.hypot(upper[0] - upper[1], lower[2] - lower[0])


def test_a_threshold_that_is_not_the_registry_s_would_be_noticed(known: Run, scored: tuple[Run, Detected]) -> None:
    new, detected = scored
    found = detectors(known, None, "f1_max")
    too_low = [
        replace(each, threshold=each.threshold - 3 * detected.score[number].std(axis=0))
        for number, each in enumerate(found)
    ]
    zinc = compare(new, too_low, detected, "f1_max").set_index("concept").loc[ZINC_FINGER].to_dict()
    assert not agree(zinc, "precision")


def test_script_writes_stretches_where_the_spans_are(
    known: Run, unseen: Path, tmp_path: Path, script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.tsv"
    assert known.config_file is not None
    code = script.main(["--config", str(known.config_file), "--data", str(unseen / "proteins.fasta.gz"), "--spans", str(unseen / "spans.tsv.gz"), "--concepts", ZINC_FINGER, "--out", str(out)])  # fmt: skip
    assert code == 0
    rows = pd.read_csv(out, sep="\t")
    assert set(rows["concept"]) == {ZINC_FINGER}
    assert (rows["score"] >= rows["threshold"]).all()
    spans = pd.read_csv(unseen / "spans.tsv.gz", sep="\t")
    own = spans[spans["concept"] == "PS00028"]
    touched = sum(
        bool(((own["accession"] == row["item_id"]) & (own["start"] <= row["end"]) & (own["end"] >= row["start"])).any())
        for row in rows.to_dict("records")
    )
    assert touched / len(rows) > 0.7
    said = capsys.readouterr()
    assert "registry" in said.out
    assert ZINC_FINGER in said.out
    assert "rows found in" in said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "found.csv"], "must end in .tsv or .parquet"),
        (["--data", "nothing.fasta"], "no such file: nothing.fasta"),
        (["--concepts", "span:NONE"], "--concepts span:NONE"),
        (["--layers", "0"], "has the layers 2"),
    ],
)
def test_a_wrong_call_is_one_line(known: Run, unseen: Path, tmp_path: Path, script: ModuleType, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:  # fmt: skip
    out = tmp_path / "found.tsv"
    usual = ["--config", str(known.config_file), "--data", str(unseen / "proteins.fasta.gz"), "--out", str(out)]
    assert script.main([*usual, *arguments]) == 2
    told = capsys.readouterr().err.strip()
    assert said in told
    assert "Traceback" not in told
    assert len(told.splitlines()) == 1
    assert not out.exists()


def test_help_says_what_to_type(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script.main(["--help"])
    assert "python scripts/detect_concepts.py --config" in capsys.readouterr().out
