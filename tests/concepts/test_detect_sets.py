"""Thresholds of gene sets: of tokens, on genes and items that nothing was chosen on; and the same precision and recall in cells not seen."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sae_genomics.concepts.choosing import RULES, TEST, UNUSED, VALIDATION
from sae_genomics.concepts.concept import Concept
from sae_genomics.concepts.detect import Detected, compare, detect, detectors, run_on
from sae_genomics.concepts.detect_sets import Sets
from sae_genomics.concepts.gene_tokens import GeneTokens, SetTable, gene_halves
from sae_genomics.concepts.held_out import read_held_out
from sae_genomics.concepts.item_table import input_columns
from sae_genomics.concepts.named import concepts_of
from sae_genomics.concepts.task import measure_all, read_pool
from sae_genomics.concepts.thresholds import read_thresholds, write_thresholds
from sae_genomics.concepts.vectors import write_vectors
from sae_genomics.config import parse_config
from sae_genomics.data.cells.planted import make_cells
from sae_genomics.data.units import Units
from sae_genomics.execute import execute
from sae_genomics.models.planted import truth
from sae_genomics.progress import Progress
from sae_genomics.run import Run
from sae_genomics.stages import stage_named
from tests.concepts.test_detect import agree

LAYER = 2
SETS = [f"gene_set:{module}" for module in truth.MODULES]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The planted cells, one layer; a set is all genes of a module's programmes. Vectors and thresholds are the stage's."""
    folder = Path(tmp_path_factory.mktemp("sets"))
    genes = {
        module: [truth.GENES[gene] for each in truth.PROGRAMMES if each.module == module for gene in each.genes]
        for module in truth.MODULES
    }
    (folder / "sets.gmt").write_text("".join("\t".join([name, "", *members]) + "\n" for name, members in genes.items()))
    config = {
        "run": {"name": "known"},
        "data": {
            "path": "builtin:planted",
            "cell_type_key": "programme",
            "group_key": "donor",
            "heldout_fraction": 0.4,
        },
        "model": {"family": "planted", "layers": [LAYER]},
        "paths": {name: str(folder / name) for name in ("results", "checkpoints", "logs")},
        "validation": {"builtin": False, "gmt": [str(folder / "sets.gmt")]},
        "concepts": {"enabled": True, "kinds": ["gene_set"], "draws": 19, "bootstraps": 100, "tcav_items": 0},
    }
    path = folder / "known.yaml"
    path.write_text(json.dumps(config))
    run = Run(parse_config(config, "known"), path)
    execute(run, stage_named("prepare"), 0)
    for task in range(run.n_shards):
        execute(run, stage_named("extract"), task)
    columns = input_columns(run)
    named = concepts_of(run, columns)
    pool = read_pool(run, LAYER, named, run.kind.read_units(run), columns)
    measured = measure_all(pool, run.config.concepts, 0, Progress("concepts", len(named), "concepts", None))
    vectors = [each.vector for each in measured if each.vector is not None]
    run.layer_results(LAYER).mkdir(parents=True)
    write_vectors(run.layer_results(LAYER), vectors, run.model_info.d_model, {"layer": LAYER})
    write_thresholds(run, LAYER, read_held_out(run, LAYER, named, vectors))
    return run


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells of another seed."""
    path = Path(tmp_path_factory.mktemp("unseen")) / "new.h5ad"
    make_cells(4711).write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def scored(known: Run, unseen: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Detected]:
    new = run_on(known, unseen, {}, Path(tmp_path_factory.mktemp("new")))
    new.kind.prepare(new)
    return new, detect(new, detectors(known, None, "f1_max"), everything=True)


def test_registry_counts_tokens_of_held_out_genes(known: Run) -> None:
    registry = read_thresholds(known.layer_results(LAYER))
    assert sorted(each["concept"] for each in registry["concepts"]) == sorted(SETS)
    named = {each.id: each for each in concepts_of(known)}
    names = known.kind.read_units(known).unit_name
    heldout = set(names[concepts_of(known).heldout_units])
    for entry in registry["concepts"]:
        concept = named[entry["concept"]]
        assert (entry["score"], entry["groups"], entry["window"]) == ("token", "gene", None)
        assert set(entry["genes"]["members"]) == set(names[concept.units])
        assert set(entry["genes"]["test_members"]) <= set(names[concept.units]) & heldout
        assert set(entry["genes"]["test_others"]) <= set(names[concept.other_units]) & heldout
        assert entry["n_test_groups"] == len(entry["genes"]["test_members"]) + len(entry["genes"]["test_others"])
        assert entry["n_test"] > 500
        at = entry["thresholds"]["fpr_0.05"]
        assert at["recall"][0] > 3 * at["false_positive_rate"][0]


@pytest.mark.parametrize("rule", RULES)
def test_unseen_cells_give_the_registry_s_precision_and_recall(
    known: Run, scored: tuple[Run, Detected], rule: str
) -> None:
    new, detected = scored
    compared = compare(new, detectors(known, None, rule), detected, rule)
    assert sorted(compared["concept"]) == sorted(SETS)
    assert (compared["counted"] == "token").all()
    for row in compared.to_dict("records"):
        for name in ("precision", "recall"):
            assert agree(row, name), (row["concept"], name, {key: row[key] for key in row if key.startswith(name)})
            assert row[f"{name}_registry_low"] <= row[name] <= row[f"{name}_registry_high"]


def test_another_threshold_would_be_noticed(known: Run, scored: tuple[Run, Detected]) -> None:
    new, detected = scored
    found = detectors(known, None, "fpr_0.05")
    low = [replace(each, threshold=each.threshold - 3 * detected.of_genes[0].score.std()) for each in found]
    row = compare(new, low, detected, "fpr_0.05").iloc[0].to_dict()
    assert not agree(row, "false_positive_rate")


def test_a_row_is_what_counting_by_hand_gives(known: Run, scored: tuple[Run, Detected], unseen: Path) -> None:
    """Cells of a module's label show its set, cells without any module do not."""
    import anndata as ad

    rows = scored[1].rows
    assert set(rows["concept"]) == set(SETS)
    detected = rows[rows["detected"]]
    assert (detected["score"] >= detected["threshold"]).all()
    assert (detected["share"] >= 0.5).all()
    assert (detected["share"] > detected["share_others"]).all()
    missed = rows[~rows["detected"]]
    assert ((missed["score"] < missed["threshold"]) | (missed["share"] <= missed["share_others"])).all()
    n_named = rows["genes"].str.split(",").map(lambda names: len([name for name in names if name]))
    np.testing.assert_allclose(n_named / rows["n_tokens"].astype(float), rows["share"])
    label = ad.read_h5ad(unseen).obs["programme"].astype(str)
    own = rows["item_id"].map(label) == rows["name"]
    assert rows.loc[own, "share"].mean() > rows.loc[~own, "share"].mean() + 0.3
    assert detected.groupby("concept").size().min() > 20


def test_script_prints_tokens_beside_the_registry(known: Run, unseen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    spec = importlib.util.spec_from_file_location("detect_concepts", Path("scripts/detect_concepts.py"))
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.modules["detect_concepts"] = script
    spec.loader.exec_module(script)
    out = tmp_path / "found.parquet"
    call = ["--config", str(known.config_file), "--data", str(unseen), "--concepts", SETS[0], "--out", str(out)]
    assert script.main(call) == 0
    rows = pd.read_parquet(out)
    assert rows["detected"].all()
    assert rows["start"].isna().all()
    assert " tokens " in capsys.readouterr().out


def test_a_gene_and_a_group_are_in_one_half() -> None:
    rng = np.random.default_rng(0)
    n = 4000
    unit, item = rng.integers(0, 30, n), rng.integers(0, 60, n)
    tokens = GeneTokens(np.zeros(n, np.int64), item, unit, rng.random(n).astype(np.float32), unit < 9)
    group = np.arange(60) // 3
    half = gene_halves(tokens, group, rng)
    assert half is not None
    for values in (unit, group[item]):
        assert not set(values[half == VALIDATION]) & set(values[half == TEST])
    for each in (VALIDATION, TEST):
        assert len(set(unit[(half == each) & (unit < 9)])) in (4, 5)
        assert 0.2 < (half == each).mean() < 0.3
    assert (half == UNUSED).mean() > 0.4
    few = GeneTokens(np.zeros(n, np.int64), item, unit, tokens.score, unit < 3)
    assert gene_halves(few, group, rng) is None  # three members cannot be two in each half


def test_shares_and_scores_of_items_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(1)
    names = np.array([f"G{number}" for number in range(12)], object)
    units = Units(np.arange(12, dtype=np.int32), names, names, np.ones(12))
    known = [
        {"score": "mean"},
        {"score": "token", "genes": {"members": ["g1", "G2", "G3", "absent"], "test_members": ["G2"], "test_others": ["G5", "G7"]}},
        {"score": "token", "genes": {"members": ["G8"], "test_members": ["G8"], "test_others": ["G9"]}},
    ]  # fmt: skip
    sets = Sets.of(known, units)
    ptr = np.array([0, 10, 10, 24, 40])
    values, unit = rng.normal(size=(40, 3)).astype(np.float32), rng.integers(0, 12, 40)
    threshold = np.array([0.0, 0.2, -0.1])
    found = sets.found(values, ptr, unit, threshold)
    for item in range(4):
        for column, (number, genes) in enumerate(((1, {1, 2, 3}), (2, {8}))):
            rows = range(ptr[item], ptr[item + 1])
            own = sorted((values[row, number] for row in rows if unit[row] in genes), reverse=True)
            others = [values[row, number] >= threshold[number] for row in rows if unit[row] not in genes]
            assert found.n_tokens[item, column] == len(own)
            if not own:
                assert np.isnan(found.score[item, column])
                assert not found.detected[item, column]
                continue
            share = np.mean(np.array(own) >= threshold[number])
            assert found.share[item, column] == pytest.approx(share)
            assert found.share_others[item, column] == pytest.approx(np.mean(others))
            assert found.score[item, column] == own[(len(own) + 1) // 2 - 1]
            assert found.detected[item, column] == (share >= 0.5 and share > np.mean(others))
    tokens = sets.tokens(values, np.repeat(np.arange(4), np.diff(ptr)), unit)
    mine = tokens.of(1)
    assert set(mine.unit) <= {2, 5, 7}
    np.testing.assert_array_equal(mine.is_member, mine.unit == 2)
    np.testing.assert_array_equal(mine.score, values[np.isin(unit, [2, 5, 7]), 1])


def test_a_layer_without_gene_sets_has_no_tokens() -> None:
    label = Concept("label:a", "label", "a", "item", np.arange(3), np.arange(3, 6))
    table = SetTable.of([label], np.ones(5, bool))
    found = table.tokens(np.zeros((4, 1), np.float32), np.arange(4), np.arange(4), np.arange(4))
    assert len(found.item) == len(found.score) == 0
