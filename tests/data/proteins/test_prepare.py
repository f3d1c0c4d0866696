"""Stage prepare over proteins: what it leaves, what it says, what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sae_genomics.associations.spans.counts import ConceptCounts
from sae_genomics.config import load_config, parse_config
from sae_genomics.data import groups, labelled
from sae_genomics.data.plan_file import read_plan
from sae_genomics.data.proteins import prepare
from sae_genomics.data.proteins.settings import BUILTIN
from sae_genomics.data.split import split_items
from sae_genomics.errors import UserError
from sae_genomics.execute import execute
from sae_genomics.stages import stage_named
from tests.data.conftest import files_under
from tests.data.proteins import toy_family
from tests.data.proteins.conftest import FIXTURE, write

SIX = ">A1 first\nMKVLAACDEF\n>A2\nGGHHKLMN\n>A3\nMKVLAACDEFGHIK\n>A4\nWWYY\n>A5\nACDEFGHIKL\n>A6\nMNPQRS\n"
SPANS = "accession\tstart\tend\tconcept\tname\nA1\t1\t3\tD1\tstart domain\nA3\t2\t5\tD1\tstart domain\nA3\t4\t9\tD2\tother\n"
LABELS = (
    "accession\tfamily\torganism\nA1\tf1\tHuman\nA2\tf1\tMouse\nA3\tf2\tHuman\nA4\tf2\t\nA5\tf3\tMouse\nA6\tf3\tHuman\n"
)


@pytest.fixture
def six(tmp_path: Path) -> Path:
    return write(tmp_path / "six.fasta", SIX)


def prepared(run):
    run.kind.prepare(run)
    return read_plan(run)


def test_six_proteins_alone(six, make_run):
    run = make_run(six)
    plan = prepared(run)
    assert (plan["kind"], plan["n_items"], plan["n_items_input"], plan["n_residues"]) == ("proteins", 6, 6, 52)
    assert plan["shards"] == [{"shard": 0, "items": 4, "tokens": 44}, {"shard": 1, "items": 2, "tokens": 20}]
    assert plan["n_tokens"] == plan["n_tokens_read"] == 64
    assert {each["stage"] for each in plan["estimates"]} >= {"prepare", "extract", "train", "associate", "report"}
    items = run.kind.read_items(run)
    assert list(items.columns) == ["item", "item_id", "heldout", "group", "label"]
    assert items["item"].tolist() == list(range(6))
    assert items["item_id"].tolist() == ["A1", "A2", "A3", "A4", "A5", "A6"]
    assert plan["n_heldout"] == items["heldout"].sum()
    assert 1 <= plan["n_heldout"] <= 2
    assert items["group"].isna().all()
    more = run.kind.read_items(run, ["name", "length", "n_windows"])
    assert more["name"].tolist() == ["first", None, None, None, None, None]
    assert more["length"].tolist() == [10, 8, 14, 4, 10, 6]
    assert run.kind.read_spans(run) is None
    assert not (run.prepare_dir / "spans.parquet").exists()
    assert any("independent" in note for note in plan["notes"])


def test_units_are_the_models_letters_in_its_order(six, make_run):
    run = make_run(six)
    prepared(run)
    units = run.kind.read_units(run)
    assert "".join(units.unit_id) == toy_family.LETTERS
    assert units.token.tolist() == list(range(4, 29))
    assert units.unit_name[list(units.unit_id).index("C")] == "Cys (C)"
    letters = "".join(line for line in SIX.split("\n") if not line.startswith(">"))
    assert dict(zip(units.unit_id, units.counts, strict=True)) == {a: letters.count(a) for a in toy_family.LETTERS}
    assert units.lookup()[4:].tolist() == list(range(25))


def test_spans_labels_and_groups(six, tmp_path, make_run):
    spans, labels = write(tmp_path / "s.tsv.gz", SPANS + "Q9\t1\t2\tD1\t\n"), write(tmp_path / "l.tsv", LABELS)
    data = {
        "spans": str(spans),
        "labels": str(labels),
        "label_key": "organism",
        "group_key": "family",
        "heldout_fraction": 0.3,
    }
    run = make_run(six, data=data)
    plan = prepared(run)
    items = run.kind.read_items(run)
    assert items["group"].tolist() == ["f1", "f1", "f2", "f2", "f3", "f3"]
    assert items["label"].tolist() == ["Human", "Mouse", "Human", None, "Mouse", "Human"]
    assert items.groupby("group")["heldout"].nunique().tolist() == [1, 1, 1]  # families stay whole
    assert (plan["group_key"], plan["n_groups"], plan["n_heldout_groups"]) == ("family", 3, 1)
    table = run.kind.read_spans(run)
    assert [tuple(row) for row in table.itertuples(index=False)] == [
        (0, 0, 3, "D1", "start domain"),
        (2, 1, 5, "D1", "start domain"),
        (2, 3, 9, "D2", "other"),
    ]
    assert table.dtypes.astype(str).tolist()[:3] == ["int64", "int32", "int32"]
    assert (plan["n_spans"], plan["n_concepts"]) == (3, 2)
    assert plan["concepts"][0] == {
        "concept": "D1", "name": "start domain", "n_spans": 2, "n_proteins": 2,
        "n_heldout_proteins": int(items["heldout"][[0, 2]].sum()),
    }  # fmt: skip
    said = " ".join(plan["notes"])
    assert "not among the sequences: 1 (the first is of Q9)" in said
    assert "overlap an earlier span of the same protein: 1" in said
    assert "Proteins without a value of organism: 1 of 6" in said


def test_the_plan_counts_what_spans_cost(six, tmp_path, make_run, monkeypatch):
    seen = []
    estimate = prepare.plan.estimate
    monkeypatch.setattr(prepare.plan, "estimate", lambda run, work: seen.append(work) or estimate(run, work))
    spans = write(tmp_path / "s.tsv", SPANS)
    prepared(make_run(six))
    prepared(make_run(six, data={"spans": str(spans)}))
    run = make_run(six, data={"spans": str(spans)}, activations={"tokens_per_item": 3, "items_per_shard": 4})
    prepared(run)
    without, work, sampled = seen
    assert (without.span_tokens, without.n_concepts) == (0, 0)
    assert (work.span_tokens, work.n_concepts, work.random_directions) == (10 + 14, 2, 256)  # A1 and A3
    assert sampled.span_tokens <= 2 * (3 + 2)
    assert "untrained" not in work.baselines  # proteins have no such baseline

    def associate(work):
        return next(each for each in estimate(run, work) if each.stage == "associate")

    large = replace(work, span_tokens=1_000_000, n_concepts=500)
    more = associate(large).seconds - associate(replace(large, span_tokens=0)).seconds
    values = work.k + work.d_model + 256 + 500
    assert more == pytest.approx(work.n_layers * 1e6 * values * 4e-8, rel=0.1)
    memory = associate(large).memory_bytes - associate(replace(large, n_concepts=0)).memory_bytes
    n_units = (
        work.d_sae,
        2 * work.d_model,
        2 * 256,
        500,
        500,
    )  # features, neurons, directions, both scores of the sequence
    kinds = [ConceptCounts(n, range(500)) for n in n_units]
    held = sum(each.levels.residues.nbytes + each.levels.runs.nbytes + each.levels.spans.nbytes for each in kinds)
    assert held < memory < 3 * held


def test_groups_that_are_the_labels_are_split_as_groups(tmp_path, make_run):
    text = "".join(f">A{i}\n{'ACDEFGHIKL'[: 1 + i % 10]}\n" for i in range(40))
    labels = "accession\tfamily\n" + "".join(f"A{i}\tf{i // 3}\n" for i in range(40))
    families = [f"f{i // 3}" for i in range(40)]
    data = {"labels": str(write(tmp_path / "l.tsv", labels)), "label_key": "family", "group_key": "family"}
    run = make_run(write(tmp_path / "p.fasta", text), data=data)
    plan = prepared(run)
    assert run.kind.read_items(run)["heldout"].tolist() == split_items(40, None, 0.2, 0, families).tolist()
    assert any("no label can be tested on held-out proteins" in note for note in plan["notes"])


def test_very_many_labels_do_not_burst_the_split(tmp_path, make_run, monkeypatch):
    n = 3000
    text = "".join(f">A{i}\nACDE\n" for i in range(n))
    labels = "accession\tfamily\torganism\n" + "".join(f"A{i}\tf{i // 2}\t{'most' if i % 3 else i}\n" for i in range(n))
    seen = []
    monkeypatch.setattr(groups, "_MOST_PAIRS", 6000)
    monkeypatch.setattr(labelled, "split_items", lambda *given: seen.append(given[1]) or split_items(*given))
    data = {"labels": str(write(tmp_path / "l.tsv", labels)), "label_key": "organism", "group_key": "family"}
    run = make_run(write(tmp_path / "p.fasta", text), data=data, activations={"items_per_shard": n})
    prepared(run)
    assert len(set(seen[0])) == 6000 // 1500 + 1  # the most frequent four, and all others as one
    assert np.mean(seen[0] == "most") == pytest.approx(2 / 3)
    assert run.kind.read_items(run)["label"].nunique() == 1001  # the table keeps them all


def test_a_subset_keeps_rows_and_spans_together(six, tmp_path, make_run):
    spans = write(tmp_path / "s.tsv", SPANS)
    run = make_run(six, data={"spans": str(spans), "max_items": 3})
    assert run.n_items == 3
    plan = prepared(run)
    items = run.kind.read_items(run)
    names = [f"A{item + 1}" for item in items["item"]]
    assert items["item_id"].tolist() == names
    assert (plan["n_items"], plan["n_items_input"]) == (3, 6)
    expected = [(names.index(a), s, c) for a, s, c in [("A1", 0, "D1"), ("A3", 1, "D1"), ("A3", 3, "D2")] if a in names]
    found = run.kind.read_spans(run)
    assert list(zip(found["item_index"], found["start"], found["concept"], strict=True)) == expected
    sequences = dict(zip(["A1", "A2", "A3", "A4", "A5", "A6"], SIX.split("\n")[1::2], strict=True))
    read = run.kind.read(run, np.arange(3))
    assert read.rows.tolist() == items["item"].tolist()
    assert read.sequences == [sequences[name] for name in names]
    used = "".join(read.sequences)
    units = run.kind.read_units(run)
    assert {a: n for a, n in zip(units.unit_id, units.counts, strict=True) if n} == {
        a: used.count(a) for a in set(used)
    }


def test_some_proteins_are_read_as_the_model_takes_them(tmp_path, make_run):
    run = make_run(write(tmp_path / "p.fasta", ">A1\nmkJ\n>A2\nUO*\n>A3\nAC\n"), data={"window_overlap": 7})
    plan = prepared(run)
    read = run.kind.read(run, np.array([0, 1]))
    assert (read.rows.tolist(), read.sequences, read.overlap) == ([0, 1], ["MKX", "UO"], 7)
    said = " ".join(plan["notes"])
    assert "1 (J); they are read as X" in said
    assert "Stop codons (*) at the end of a sequence: 1" in said
    assert "Lower-case letters: 2" in said


def test_long_proteins_are_cut_said_and_counted(tmp_path, make_run):
    lengths = [50, 51, 130, 20]
    text = "".join(f">A{i}\n{'ACDEFGHIKL' * 13}"[: len(f">A{i}\n") + n] + "\n" for i, n in enumerate(lengths))
    run = make_run(write(tmp_path / "p.fasta", text), data={"window_overlap": 10})
    plan = prepared(run)
    items = run.kind.read_items(run, ["length", "n_windows"])
    assert items["length"].tolist() == lengths
    assert items["n_windows"].tolist() == [1, 2, 3, 1]
    assert (plan["n_windows"], plan["n_items_in_windows"], plan["most_residues"], plan["window_overlap"]) == (
        7,
        2,
        50,
        10,
    )
    assert plan["n_tokens"] == sum(lengths) + 2 * 4
    assert plan["n_tokens_read"] == sum(lengths) + 10 * 3 + 2 * 7
    assert any(
        "longer than the 50 residues that toy reads at once: 2" in note and "5 windows" in note
        for note in plan["notes"]
    )
    with pytest.raises(UserError, match=r"data.window_overlap = 50: toy reads 50 residues at once.*set it to 6"):
        prepared(make_run(tmp_path / "p.fasta", data={"window_overlap": 50}))


def test_an_overlap_matters_to_long_proteins_alone(six, make_run):
    assert prepared(make_run(six, data={"window_overlap": 500}))["n_windows"] == 6


def test_sampled_tokens_are_fewer(six, make_run):
    plan = prepared(make_run(six, activations={"tokens_per_item": 5}))
    assert plan["n_tokens"] == 5 * 5 + 4 + 2 * 6
    assert plan["n_tokens_read"] == 64


def test_copies_on_both_sides_of_the_split_are_said(tmp_path, make_run):
    text = "".join(f">A{i}\n{'ACDEFGHIKL' if i % 2 else 'MNPQ'}\n" for i in range(20))
    plan = prepared(make_run(write(tmp_path / "p.fasta", text), data={"heldout_fraction": 0.5}))
    (note,) = [note for note in plan["notes"] if "another one has too" in note]
    assert "20." in note
    assert "copies on both sides of the split" in note


def test_jsonl_holds_sequences_spans_and_labels(tmp_path, make_run):
    lines = [
        {"accession": f"A{i}", "sequence": "ACDEFGHIKL", "target_motif": f"PF{i % 2}",
         "ground_truth_annotations": [{"motif_id": "PF0", "start": 2, "end": 4, "name": "motif"}] if i % 2 else []}
        for i in range(6)
    ]  # fmt: skip
    path = write(tmp_path / "p.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    run = make_run(path, data={"label_key": "target_motif"})
    plan = prepared(run)
    assert plan["n_spans"] == 3
    assert run.kind.read_items(run)["label"].tolist() == ["PF0", "PF1"] * 3
    assert run.kind.read_spans(run)["item_index"].tolist() == [1, 3, 5]


def test_jsonl_without_spans_has_none(tmp_path, make_run):
    path = write(tmp_path / "p.jsonl", "".join(f'{{"id": "A{i}", "sequence": "ACDE"}}\n' for i in range(3)))
    run = make_run(path)
    assert "n_spans" not in prepared(run)
    assert all(file.exists() for file in run.kind.prepare_files(run))
    assert run.kind.read_spans(run) is None


def test_as_a_stage_it_is_done_stays_done_and_may_be_repeated(six, tmp_path, make_run):
    spans = write(tmp_path / "s.tsv", SPANS)
    stage = stage_named("prepare")
    run = make_run(six, data={"spans": str(spans)})
    assert not run.state(stage, 0).done
    assert execute(run, stage, 0)
    assert make_run(six, data={"spans": str(spans)}).state(stage, 0).done
    assert not execute(make_run(six, data={"spans": str(spans)}), stage, 0)
    assert not list((tmp_path / "out").rglob(".partial*"))
    before = {path: path.read_bytes() for path in run.kind.prepare_files(run)}
    again = make_run(six, data={"spans": str(spans)})
    again.kind.prepare(again)
    assert before == {path: path.read_bytes() for path in before}


def test_other_spans_make_it_stale_and_a_moved_file_does_not(six, tmp_path, make_run):
    spans = write(tmp_path / "s.tsv", SPANS)
    stage = stage_named("prepare")
    execute(make_run(six, data={"spans": str(spans)}), stage, 0)
    moved = spans.rename(tmp_path / "moved.tsv")
    assert make_run(six, data={"spans": str(moved)}).state(stage, 0).done
    write(moved, SPANS + "A6\t1\t2\tD3\t\n")
    assert make_run(six, data={"spans": str(moved)}).state(stage, 0).status == "stale"
    assert make_run(six).state(stage, 0).status == "stale"


def test_a_changed_record_is_refused_when_it_is_read(six, make_run):
    run = make_run(six)
    prepared(run)
    write(six, SIX.replace("GGHHKLMN", "GGHHKLM"))
    with pytest.raises(
        UserError, match=r"its record 2 was A2 with 8 residues and is now A2 with 7 residues; put that file back"
    ):
        run.kind.read(run, np.array([0, 1]))
    assert run.kind.read(run, np.array([3])).sequences == ["WWYY"]
    write(six, SIX.split(">A3")[0])
    with pytest.raises(UserError, match="is now not there"):
        run.kind.read(run, np.array([3]))


@pytest.mark.parametrize(
    ("data", "text", "words"),
    [
        ({}, SIX + ">A1\nMK\n", "A1 is there already"),
        ({}, SIX.replace("WWYY", "W-YY"), "a gap"),
        ({"group_key": "family"}, SIX, r"data.group_key: no column 'family'; there is none; data.labels names"),
        ({"label_key": "clan", "labels": LABELS}, SIX, r"data.label_key: no column 'clan'; .* has family, organism"),
        ({"group_key": "organism", "labels": LABELS}, SIX, r"1 of 6 proteins have no value in column 'organism' \(the first is A4\)"),
        ({"group_key": "own", "labels": "accession\town\n" + "".join(f"A{i}\t{i}\n" for i in range(1, 7))}, SIX, "a value of its own"),
        ({"spans": SPANS + "A4\t2\t9\tD\t\n"}, SIX, "line 5: the span 2 to 9 lies outside A4, which has the residues 1 to 4"),
        ({"spans": SPANS.replace("A", "Q")}, SIX, "none of its accessions"),
    ],
)  # fmt: skip
def test_a_refusal_is_one_line_and_leaves_nothing(tmp_path, make_run, data, text, words):
    named = {key: value for key, value in data.items() if "\t" in value}
    paths = {key: str(write(tmp_path / f"{key}.tsv", value)) for key, value in named.items()}
    run = make_run(write(tmp_path / "p.fasta", text), data=data | paths)
    with pytest.raises(UserError, match=words) as refusal:
        run.kind.prepare(run)
    assert "\n" not in str(refusal.value)
    assert files_under(tmp_path / "out") == set()


def test_a_file_that_is_not_there(tmp_path, make_run):
    with pytest.raises(UserError, match=r"data.path: no such file"):
        make_run(tmp_path / "none.fasta").data_files  # noqa: B018
    with pytest.raises(UserError, match=r"data.spans: no such file"):
        make_run(write(tmp_path / "p.fasta", SIX), data={"spans": "none.tsv"}).data_files  # noqa: B018
    with pytest.raises(UserError, match="no data set builtin:nothing; there is builtin:demo_proteins"):
        make_run("builtin:nothing").data_files  # noqa: B018


def test_a_disk_too_small_is_refused(six, make_run, monkeypatch, tmp_path):
    usage = type("usage", (), {"free": 1000, "used": 0, "total": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"room|disk"):
        prepared(make_run(six))
    assert files_under(tmp_path / "out") == set()


def test_the_builtin_proteins_bring_spans_and_labels(tmp_path, make_run, monkeypatch):
    for name, text in (("proteins.fasta.gz", SIX), ("spans.tsv.gz", SPANS), ("labels.tsv.gz", LABELS)):
        write(tmp_path / name, text)
    ((name, (_, *names)),) = BUILTIN.items()
    monkeypatch.setitem(BUILTIN, name, (tmp_path, *names))
    run = make_run(name, data={"group_key": "family"})
    assert [path.name for path in run.data_files] == names
    assert prepared(run)["n_spans"] == 3
    own = write(tmp_path / "own.tsv", SPANS.replace("D2", "D1"))
    assert prepared(make_run(name, data={"spans": str(own)}))["n_concepts"] == 1


def test_the_config_is_read_back_as_it_is_written_and_wrong_keys_are_named(six, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(f"data:\n  kind: proteins\n  path: {six}\n  max_proteins: 4\nmodel:\n  family: esm2\n")
    assert load_config(config).data.max_proteins == 4
    with pytest.raises(UserError, match=r"unknown key data.counts for data.kind proteins; data.kind cells has it"):
        parse_config({"data": {"kind": "proteins", "path": "p", "counts": "X"}}, "c")
    with pytest.raises(UserError, match="max_proteins and max_items are names of one setting"):
        parse_config({"data": {"kind": "proteins", "path": "p", "max_proteins": 1, "max_items": 2}}, "c")


def test_the_kind_loads_nothing_heavy():
    code = (
        "import sys; from sae_genomics.data.kinds import kind_named; kind_named('proteins'); "
        "print([name for name in ('torch', 'numba', 'anndata', 'transformers', 'pandas', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not FIXTURE.is_dir(), reason="the real proteins are not at hand")
def test_real_proteins_are_prepared(tmp_path, make_run, monkeypatch):
    monkeypatch.setattr(toy_family, "MOST", 1022)
    run = make_run(
        FIXTURE / "proteins.fasta.gz", data={"spans": str(FIXTURE / "spans.tsv")}, activations={"items_per_shard": 500}
    )
    plan = prepared(run)
    assert (plan["n_items"], plan["n_spans"], plan["n_concepts"]) == (2793, 5087, 68)
    assert len(plan["shards"]) == 6
    items = run.kind.read_items(run, ["length", "n_windows"])
    assert ((items["n_windows"] > 1) == (items["length"] > 1022)).all()
    read = run.kind.read(run, np.arange(500, 1000))
    assert pd.Series(read.sequences).str.len().tolist() == items["length"][500:1000].tolist()
    spans = run.kind.read_spans(run)
    cys2his2 = spans[spans["concept"] == "PF00096"].merge(
        run.kind.read_items(run), left_on="item_index", right_index=True
    )
    sequences = dict(zip(items.index, run.kind.read(run, np.arange(2793)).sequences, strict=True))
    fingers = [sequences[row.item_index][row.start : row.stop] for row in cys2his2.itertuples()]
    share = np.mean(["C" in finger[:8] and "H" in finger[-6:] for finger in fingers])
    assert share > 0.95  # a shift by one or a wrong protein would show here


@pytest.mark.parametrize("end", ["jsonl", "fasta"])
def test_further_columns_are_read_without_the_sequences_checks(tmp_path, make_run, monkeypatch, end):
    """Of a table and of JSONL lines, for a part of the proteins; the table's columns win."""
    n = 12
    lines = [{"accession": f"A{i}", "sequence": "MKV" * (i + 1), "clan": f"c{i % 3}", "site": i} for i in range(n)]
    fasta = "".join(f">{each['accession']}\n{each['sequence']}\n" for each in lines)
    text = fasta if end == "fasta" else "".join(json.dumps(each) + "\n" for each in lines)
    known = [i for i in range(n) if i % 4]
    table = "accession\thost\tclan\n" + "".join(f"A{i}\th{i}\tt{i}\n" for i in reversed(known))
    data = {"labels": str(write(tmp_path / "l.tsv", table)), "max_proteins": 7}
    run = make_run(write(tmp_path / f"p.{end}", text), data=data)
    prepared(run)
    monkeypatch.setattr("sae_genomics.data.proteins.read.checked_residues", None)
    rows = run.kind.read_items(run, ["item"])["item"].tolist()
    assert len(rows) == 7
    asked = {"host": "a", "clan": "b"} | ({"site": "b"} if end == "jsonl" else {})
    found = run.kind.read_columns(run, asked)
    assert found["host"].tolist() == [f"h{row}" if row in known else None for row in rows]
    assert found["clan"].tolist() == [f"t{row}" if row in known else None for row in rows]
    if end == "jsonl":
        assert found["site"].tolist() == [str(row) for row in rows]
    with pytest.raises(UserError, match=r"b: no column 'hosts'; l\.tsv has"):
        run.kind.read_columns(run, {"host": "a", "hosts": "b"})
    strangers = make_run(run.data_file, data={"labels": str(write(tmp_path / "m.tsv", table))}, run={"name": "few"})
    write(tmp_path / "m.tsv", "accession\thost\n" + "".join(f"A{i}\th{i}\n" for i in range(n) if i not in rows))
    monkeypatch.setattr(
        strangers.kind,
        "read_items",
        lambda run, columns: pd.DataFrame({"item": rows, "item_id": [f"A{row}" for row in rows]}),
    )
    assert strangers.kind.read_columns(strangers, {"host": "a"})["host"].tolist() == [None] * 7, (
        "the table is of other proteins alone"
    )
