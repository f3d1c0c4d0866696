"""The stage as a whole on a small real run of proteins, and what is refused before it runs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import sae_genomics
from sae_genomics import artifacts
from sae_genomics.concepts.examples import example_concepts
from sae_genomics.concepts.files import CONCEPTS_FILES, concepts_files
from sae_genomics.concepts.measure import Measured
from sae_genomics.concepts.named import concepts_of, own_columns
from sae_genomics.concepts.settings import check
from sae_genomics.concepts.task import run_task, write_tables
from sae_genomics.concepts.vectors import read_facts, read_vectors
from sae_genomics.config import parse_config
from sae_genomics.errors import UserError
from sae_genomics.execute import execute
from sae_genomics.run import Run
from sae_genomics.stages import stage_named

LAYER = 2


def config(folder: Path, **concepts) -> dict:
    return {
        "run": {"name": "small"},
        "paths": {"checkpoints": str(folder / "c"), "results": str(folder / "r"), "logs": str(folder / "l")},
        "data": {"kind": "proteins", "path": "builtin:demo_proteins", "max_proteins": 300, "label_key": "family",
                 "group_key": "family", "heldout_fraction": 0.3},
        "model": {"family": "esm2", "name": "demo", "layers": [LAYER], "device": "cpu"},
        "activations": {"items_per_shard": 150},
        "sae": {"steps": 20, "batch_tokens": 256, "k": 4, "device": "cpu"},
        "concepts": {"enabled": True, "draws": 39, "bootstraps": 100, "span_items": 40, **concepts},
    }  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder, run, and the files of examples and of further properties that it reads."""
    folder = tmp_path_factory.mktemp("concepts")
    run = Run(parse_config(config(folder), "test"))
    execute(run, stage_named("prepare"), 0)
    for shard in range(run.n_shards):
        execute(run, stage_named("extract"), shard)
    items = run.kind.read_items(run, ["item_id"])["item_id"]
    spans = run.kind.read_spans(run)
    fingers = spans[spans["name"] == "Zinc finger C2H2"]
    rows = [
        f"{items[item]}\tpositive\tmy fingers\t{start + 1}\t{stop}"
        for item, start, stop in zip(fingers["item_index"], fingers["start"], fingers["stop"], strict=True)
    ]
    (folder / "examples.tsv").write_text("item_id\tlabel\tconcept\tstart\tend\n" + "\n".join(rows) + "\n")
    more = "".join(f"{name}\t{'odd' if i % 2 else 'even'}\n" for i, name in enumerate(items))
    (folder / "more.tsv").write_text("item_id\tparity\n" + more)
    half = "".join(f"{name}\t{'low' if i % 3 else 'high'}\n" for i, name in enumerate(items))
    (folder / "labels.tsv").write_text("item_id\tdose\n" + half)
    files = {
        "labels": str(folder / "labels.tsv"),
        "examples": [str(folder / "examples.tsv")],
        "confounds": str(folder / "more.tsv"),
    }
    run = Run(parse_config(config(folder, **files), "test"))
    check(run)
    execute(run, stage_named("train"), 0)
    run_task(run, 0)
    return folder, run


def read(run, table):
    return table.read(run.layer_results(LAYER) / table.file)


def test_it_leaves_its_files_and_no_others(made):
    _, run = made
    assert set(run.layer_results(LAYER).iterdir()) == set(concepts_files(run, 0))
    assert {run.layer_results(LAYER) / name for name in CONCEPTS_FILES} <= set(concepts_files(run, 0))


def test_the_zinc_finger_is_found_and_is_more_than_composition(made):
    _, run = made
    table = read(run, artifacts.CONCEPT_VECTORS).set_index("name")
    finger = table.loc["Zinc finger C2H2"]
    assert finger["auroc"] > 0.9
    assert finger["p_value"] == 1 / 40
    assert finger["auroc"] > finger["auroc_composition"]
    assert finger["q_value"] < 0.05
    assert finger["split_by"] == "group"
    tested = table[table["untested"].isna()]
    assert len(tested) >= 10
    assert tested["auroc"].between(tested["auroc_low"], tested["auroc_high"]).all()
    assert (tested["p_value"] == tested[["p_shuffled", "p_random"]].max(axis=1)).all()
    assert (tested["q_value"] >= tested["p_value"] - 1e-12).all()
    assert (tested["beyond_composition"] == (tested["difference_low"] > 0)).all()
    assert (tested["auroc_composition"] > 0.7).sum() > len(
        tested
    ) / 2  # motifs of few residues: composition finds them too


def test_examples_of_a_file_get_the_spans_direction(made):
    _, run = made
    vectors = {each.concept: each for each in read_vectors(run.layer_results(LAYER))}
    finger = next(each for each in vectors.values() if each.name == "Zinc finger C2H2")
    own = vectors["examples:my fingers"]
    assert own.kind == "examples"
    assert finger.vector @ own.vector > 0.8  # the same spans; its negatives are all other proteins
    facts = read_facts(run.layer_results(LAYER))
    assert facts["layer"] == LAYER
    assert any(each["kind"] == "label" and "min_items" in each["why"] for each in facts["left_out"])


def test_labels_of_a_file_are_concepts_too(made, tmp_path):
    folder, run = made
    table = read(run, artifacts.CONCEPT_VECTORS).set_index("concept")
    assert {"label:dose: high", "label:dose: low"} <= set(table.index)
    assert table.loc["label:dose: high", "auroc_low"] < 0.55  # drawn by number: there is nothing to find
    (tmp_path / "other.tsv").write_text("item_id\tdose\nnobody\t1\n")
    with pytest.raises(UserError, match=r"none of its item_ids \(the first is nobody\) is among the run's proteins"):
        concepts_of(Run(parse_config(config(folder, labels=str(tmp_path / "other.tsv")), "test")))


def test_columns_of_the_input_are_concepts_and_confounds(made, tmp_path):
    folder, _ = made
    asked = {"label_columns": ["decoys"], "confound_columns": ["family"], "kinds": ["label"]}
    run = Run(parse_config(config(folder, **asked), "test"))
    check(run)
    items = run.kind.read_items(run, ["item_id", "label"])
    found = run.kind.read_columns(run, {"decoys": "x", "family": "y"})
    labels = Path(sae_genomics.__file__).parent / "assets" / "demo_proteins" / "labels.tsv.gz"
    table = pd.read_csv(labels, sep="\t", dtype=str).set_index("accession").loc[items["item_id"]]
    assert found["decoys"].tolist() == table["decoys"].tolist()
    assert found["family"].tolist() == items["label"].tolist()
    named = {each.name: each for each in concepts_of(run)}
    most = table["decoys"].value_counts().index[0]
    assert named[f"decoys: {most}"].items.tolist() == np.flatnonzero((table["decoys"] == most).to_numpy()).tolist()
    assert named[f"decoys: {most}"].column == "decoys"
    assert own_columns(run) == {"family": "label"}  # the column of labels, and of groups
    for key in ("label_columns", "confound_columns"):
        with pytest.raises(UserError, match=rf"concepts\.{key}: no column 'drug'; labels\.tsv\.gz has "):
            check(Run(parse_config(config(folder, **{key: ["drug"]}), "test")))
    (tmp_path / "twice.tsv").write_text(f"item_id\tdecoys\n{items['item_id'][0]}\ta\n")
    both = config(folder, labels=str(tmp_path / "twice.tsv"), label_columns=["decoys"])
    with pytest.raises(UserError, match="both have decoys"):
        concepts_of(Run(parse_config(both, "test")))


def test_every_draw_and_confound_is_written(made):
    _, run = made
    vectors = read(run, artifacts.CONCEPT_VECTORS).set_index("concept")
    tested = vectors[vectors["untested"].isna()]
    nulls, confounds = read(run, artifacts.CONCEPT_NULLS), read(run, artifacts.CONCEPT_CONFOUNDS)
    counts = nulls.groupby(["null", "concept"]).size()
    for null in ("shuffled", "random"):
        assert (counts[null].reindex(tested.index) == tested[f"n_{null}"]).all()
    parity = confounds[confounds["confound"] == "parity"].set_index("concept")
    assert set(parity.index) == set(tested.index)
    assert abs(parity["auroc"].mean() - 0.5) < 0.1
    assert (confounds.groupby("concept")["strongest"].sum() == 1).all()


def test_a_second_run_gives_the_same_bytes(made):
    _, run = made
    folder = run.layer_results(LAYER)
    before = {name: (folder / name).read_bytes() for name in CONCEPTS_FILES}
    run_task(run, 0)
    assert {name: (folder / name).read_bytes() for name in CONCEPTS_FILES} == before


def test_examples_that_do_not_fit_the_run_are_refused(made, tmp_path):
    folder, run = made
    name = run.kind.read_items(run, ["item_id"])["item_id"][0]
    path = tmp_path / "bad.tsv"

    def refused(text):
        path.write_text(text)
        with pytest.raises(UserError) as error:
            concepts_of(Run(parse_config(config(folder, examples=[str(path)]), "test")))
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "none of its proteins (the first is nobody)" in refused("item_id\tlabel\nnobody\tpositive\n")
    said = refused(f"item_id\tlabel\tstart\tend\n{name}\tpositive\t5\t99999\n")
    assert f"line 2: the span ends at 99999, but {name} has" in said
    said = refused(f"item_id\tlabel\n{name}\tpositive\n{name}\tnegative\n")
    assert "line 3: 'bad' has this item as a positive and as a negative" in said


def test_an_unknown_accession_is_refused_unless_the_run_reads_a_subset(made, tmp_path):
    folder, run = made
    name = run.kind.read_items(run, ["item_id"])["item_id"][0]
    path = tmp_path / "some.tsv"
    path.write_text(f"item_id\tlabel\n{name}\tpositive\nnobody\tpositive\nnoone\tpositive\n")
    values = config(folder, examples=[str(path)])
    ids = run.kind.read_items(run, ["item_id"])["item_id"]
    assert len(example_concepts(Run(parse_config(values, "test")), ids)) == 1
    del values["data"]["max_proteins"]
    with pytest.raises(UserError) as error:
        example_concepts(Run(parse_config(values, "test")), ids)
    assert str(error.value) == (
        f"{path}, line 3: nobody is not among the proteins of the run; 2 lines name such proteins; correct or remove what is not there"
    )


def test_settings_that_cannot_work_are_refused(tmp_path):
    def refused(**concepts):
        with pytest.raises(UserError) as error:
            check(Run(parse_config(config(tmp_path, **concepts), "test")))
        return str(error.value)

    assert "concepts.kinds is empty" in refused(kinds=[])
    assert "no such file of examples" in refused(examples=[str(tmp_path / "absent.tsv")])
    assert "concepts.stop_after = 50 is more than concepts.draws = 39" in refused(stop_after=50)
    with pytest.raises(UserError, match=r"concepts\.draws"):
        parse_config(config(tmp_path, draws=3), "test")


def test_tables_without_any_concept_can_be_read(tmp_path):
    write_tables(tmp_path, [], ())
    for table in (artifacts.CONCEPT_VECTORS, artifacts.CONCEPT_NULLS, artifacts.CONCEPT_CONFOUNDS):
        assert len(table.read(tmp_path / table.file)) == 0
    facts = {
        "concept": "label:a",
        "kind": "label",
        "name": "a",
        "level": "item",
        "split_by": "group",
        "untested": "why",
    }
    write_tables(tmp_path, [Measured(None, facts)], ())
    row = artifacts.CONCEPT_VECTORS.read(tmp_path / artifacts.CONCEPT_VECTORS.file).iloc[0]
    assert row["untested"] == "why"
    assert np.isnan(row["auroc"])
    assert np.isnan(row["q_value"])
    assert not row["beyond_composition"]
    assert isinstance(row["n_positive"], int | np.integer)
    assert pd.isna(row["strongest_confound"])
