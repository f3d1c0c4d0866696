"""Stage prepare over text: what it leaves, what it says."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import h5py
import numpy as np
import pandas as pd
import pytest

from sae_genomics.data import lines
from sae_genomics.data.labelled import items_file
from sae_genomics.data.plan_file import read_plan
from sae_genomics.data.split import split_items
from sae_genomics.data.text import read, source
from sae_genomics.data.text.settings import TextSection
from sae_genomics.data.text.source import find_source
from sae_genomics.data.text.tables import documents_file
from sae_genomics.errors import DamagedArtifact, UserError
from sae_genomics.execute import execute
from sae_genomics.models import text_tokeniser
from sae_genomics.stages import stage_named
from tests.data.text.conftest import sentences, write, write_jsonl
from tests.data.text.reader.config import MOST


def prepared(run):
    execute(run, stage_named("prepare"), 0)
    return read_plan(run)


def test_further_keys_are_read_as_columns(tmp_path, make_run, monkeypatch):
    entries = sentences(40)
    run = make_run(write_jsonl(tmp_path / "d.jsonl", entries), data={"max_documents": 20})
    prepared(run)
    rows = run.kind.read_items(run, ["item"])["item"]
    found = run.kind.read_columns(run, {"language": "a", "author": "b"})
    for key in found:
        assert found[key].tolist() == [entries[row][key] for row in rows]
    read = []
    monkeypatch.setattr(source, "lines", lambda path: read.append(path) or lines.lines(path))
    run.kind.read_columns(run, {"language": "a", "author": "b", "year": "b"})
    assert len(read) == 1, "one pass for all keys"
    run.kind.check_columns(run.config.data, {"language": "a"})
    with pytest.raises(UserError, match=r"a: no document has the key 'langauge'; there are: .*language"):
        run.kind.read_columns(run, {"author": "b", "langauge": "a"})
    (tmp_path / "plain.txt").write_text("one line\n")
    plain = make_run(tmp_path / "plain.txt")
    with pytest.raises(UserError, match=r"^a: .*plain\.txt is a text file, .*; leave a out"):
        plain.kind.check_columns(plain.config.data, {"language": "a"})


def test_the_tables_are_what_the_tokeniser_says(tmp_path, make_run):
    entries = sentences(40)
    run = make_run(
        write_jsonl(tmp_path / "d.jsonl", entries),
        data={"label_key": "language", "group_key": "author", "id_key": "name"},
    )
    plan = prepared(run)
    own = text_tokeniser(run.config.model)
    ids = [own.encode([entry["text"]], None)[0].tolist() for entry in entries]
    counts = Counter(token for one in ids for token in one if token not in own.special_ids)

    units = run.kind.read_units(run)
    assert units.token.tolist() == sorted(counts)
    assert units.counts.tolist() == [counts[token] for token in sorted(counts)]
    at = units.unit_id.tolist().index(" chat")
    assert units.unit_name[at] == "␣chat"
    items = run.kind.read_items(run, ["item", "item_id", "heldout", "label", "group", "length", "n_special"])
    assert items["item_id"].tolist() == [entry["name"] for entry in entries]
    assert items["label"].tolist() == [entry["language"] for entry in entries]
    assert items["group"].tolist() == [entry["author"] for entry in entries]
    assert items["length"].tolist() == [len(one) for one in ids]
    assert items["n_special"].tolist() == [1] * 40  # <bos>
    expected = split_items(40, items["label"], 0.2, 0, items["group"])
    assert items["heldout"].tolist() == expected.tolist()
    assert plan["n_tokens"] == plan["n_tokens_read"] == sum(map(len, ids))
    assert plan["shards"][0] == {"shard": 0, "items": 7, "tokens": sum(map(len, ids[:7]))}
    assert plan["n_tokens_cut"] == 0
    assert not any("No label" in note or "independent" in note for note in plan["notes"])


def test_extract_stores_the_documents_tokens(tmp_path, make_run):
    entries = sentences(20)
    run = make_run(write_jsonl(tmp_path / "d.jsonl", entries))
    prepared(run)
    own, units = text_tokeniser(run.config.model), run.kind.read_units(run)
    for shard in range(3):
        execute(run, stage_named("extract"), shard)
        ids = [own.encode([entry["text"]], None)[0] for entry in entries[7 * shard : 7 * shard + 7]]
        with h5py.File(run.tokens_file(shard)) as file:
            token, unit, special = file["token"][:], file["unit"][:], file["special"][:]
        assert token.tolist() == np.concatenate(ids).tolist()
        assert special.tolist() == (token == 0).tolist()
        assert (unit[special] == -1).all()
        assert units.token[unit[~special]].tolist() == token[~special].tolist()


def test_long_documents_are_cut_and_that_is_said(tmp_path, make_run):
    short, long = {"text": "the cat"}, {"text": "the cat sat " * 200}
    entries = [short, long, short, {"text": " ".join(["tree"] * 10)}, short]
    path = write_jsonl(tmp_path / "d.jsonl", entries)
    run = make_run(path)
    plan = prepared(run)
    own = text_tokeniser(run.config.model)
    full = own.lengths([long["text"]])[0]
    assert run.kind.read_items(run, ["length"])["length"].max() == MOST
    assert (plan["n_items_cut"], plan["n_tokens_cut"]) == (1, full - MOST)
    (note,) = [note for note in plan["notes"] if "cut behind" in note]
    assert f"cut behind {MOST} tokens (the most that the reader reads at once): 1 of 5" in note

    run = make_run(path, run={"name": "shorter"}, data={"max_tokens": 4})
    plan = prepared(run)
    assert run.kind.read_items(run, ["length"])["length"].max() == 4
    assert any("cut behind 4 tokens (data.max_tokens)" in note for note in plan["notes"])
    execute(run, stage_named("extract"), 0)
    with h5py.File(run.tokens_file(0)) as file:
        assert len(file["token"]) == plan["n_tokens"]


@pytest.mark.parametrize("name", ["d.txt", "d.txt.gz", "d"])
def test_a_text_file_has_one_document_per_line(tmp_path, make_run, name):
    texts = [entry["text"] for entry in sentences(9)]
    run = make_run(write(tmp_path / name, "\ufeff" + texts[0] + "\r\n\n  \n" + "\n".join(texts[1:])))
    plan = prepared(run)
    assert plan["n_items"] == 9
    assert run.kind.read(run, np.arange(9)).texts == texts
    assert run.kind.read_items(run)["item_id"].tolist() == ["line 1", *(f"line {i}" for i in range(4, 12))]
    assert any("a text file has none" in note for note in plan["notes"])


def test_a_folder_has_one_document_per_file(tmp_path, make_run):
    entries = sentences(10)
    for i, entry in enumerate(entries):
        write(tmp_path / "texts" / entry["language"] / f"{i}.txt", f"{entry['text']}\n\nA second part.\n")
    write(tmp_path / "texts" / "english" / ".0.txt", "hidden")
    write(tmp_path / "texts" / "README.md", "not a document")
    run = make_run(tmp_path / "texts", data={"label_key": "folder"})
    prepared(run)
    items = run.kind.read_items(run)
    assert items["item_id"].tolist() == [
        *(f"english/{i}.txt" for i in range(0, 10, 2)),
        *(f"french/{i}.txt" for i in range(1, 10, 2)),
    ]
    assert items["label"].tolist() == ["english"] * 5 + ["french"] * 5
    assert run.kind.read(run, np.array([6])).texts == [f"{entries[3]['text']}\n\nA second part.\n"]


def test_a_file_that_moves_is_the_same_and_one_that_is_renamed_in_a_folder_is_not(tmp_path, make_run):
    path = write_jsonl(tmp_path / "d.jsonl", sentences(5))
    other = write_jsonl(tmp_path / "elsewhere" / "e.jsonl", sentences(5))
    assert make_run(path).content_hashes["data"] == make_run(other).content_hashes["data"]
    folder = tmp_path / "texts"
    write(folder / "a" / "0.txt", "one")
    before = make_run(folder).content_hashes["data"]
    (folder / "a").rename(folder / "b")
    assert make_run(folder).content_hashes["data"] != before


def test_only_the_chosen_documents_are_read(tmp_path, make_run):
    entries = sentences(30)
    path = write_jsonl(tmp_path / "d.jsonl", entries)
    run = make_run(path, data={"max_documents": 11})
    plan = prepared(run)
    assert (plan["n_items"], plan["n_items_input"], run.n_items) == (11, 30, 11)
    rows = run.kind.read_items(run)["item"].to_numpy()
    assert len(set(rows)) == 11
    assert run.kind.read(run, np.array([0, 4, 10])).texts == [entries[row]["text"] for row in rows[[0, 4, 10]]]
    assert documents_file(run).read_bytes() == "".join(entries[row]["text"] for row in rows).encode()


def test_a_shard_reads_its_own_bytes_only(tmp_path, make_run, monkeypatch):
    run = make_run(write_jsonl(tmp_path / "d.jsonl", sentences(21)))
    prepared(run)
    (tmp_path / "d.jsonl").unlink()  # the input is not needed again
    data = bytearray(documents_file(run).read_bytes())
    start = int(pd.read_parquet(items_file(run))["start"][14])
    data[:start] = b"\xff" * start  # would be refused, if it were read
    documents_file(run).write_bytes(data)
    assert run.kind.read(run, np.arange(14, 21)).texts == [entry["text"] for entry in sentences(21)[14:]]
    with pytest.raises(DamagedArtifact, match="cannot be read"):
        run.kind.read(run, np.arange(13, 15))
    documents_file(run).write_bytes(data[:-1])
    with pytest.raises(DamagedArtifact, match="cut short"):
        run.kind.read(run, np.array([20]))


def test_blocks_change_nothing(tmp_path, make_run, monkeypatch):
    path = write_jsonl(tmp_path / "d.jsonl", sentences(40))
    plans, tables = [], []
    for characters, documents in ((1 << 20, 4096), (1, 4096), (1 << 20, 3)):
        monkeypatch.setattr(read, "_BLOCK_CHARACTERS", characters)
        monkeypatch.setattr(read, "_BLOCK_DOCUMENTS", documents)
        run = make_run(path, run={"name": f"r{characters}_{documents}"}, data={"label_key": "language"})
        plans.append({key: value for key, value in prepared(run).items() if key != "estimates"})
        tables.append(
            (pd.read_parquet(items_file(run)), pd.read_parquet(run.units_file), documents_file(run).read_bytes())
        )
    assert plans[0] == plans[1] == plans[2]
    for items, units, copy in tables[1:]:
        pd.testing.assert_frame_equal(items, tables[0][0])
        pd.testing.assert_frame_equal(units, tables[0][1])
        assert copy == tables[0][2]


class OnePiece:
    """A tokeniser that makes one piece of every text, and so needs no memory of its own."""

    vocab_size, special_ids, most_tokens = 2, frozenset({0}), 5

    def encode(self, texts, max_tokens):
        return np.ones(len(texts), np.int32), np.arange(len(texts) + 1)


def test_memory_does_not_grow_with_the_texts(tmp_path, monkeypatch):
    monkeypatch.setattr(read, "_BLOCK_CHARACTERS", 1 << 16)
    monkeypatch.setattr(lines.blocks, "__defaults__", (1 << 16,))
    rng = np.random.default_rng(0)

    def peak(copies: int) -> int:
        text = " ".join(rng.choice(["cat", "tree", "house", "sang"], 100)) * copies
        path = write_jsonl(tmp_path / f"{copies}.jsonl", ({"text": f"{i} {text}"} for i in range(2000)))
        source = find_source(TextSection(path=str(path)))
        read.read_corpus(source, np.arange(3), OnePiece(), None, tmp_path / "copy")  # what is made once
        tracemalloc.start()
        read.read_corpus(source, np.arange(2000), OnePiece(), None, tmp_path / "copy")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (tmp_path / "copy").stat().st_size > 2000 * copies * 400
        return most

    small, large = peak(1), peak(20)  # 1 MB and 20 MB of text
    assert large < small + (1 << 20)


def test_copies_of_a_text_are_told(tmp_path, make_run):
    entries = [*sentences(20), *sentences(20)]
    plan = prepared(make_run(write_jsonl(tmp_path / "d.jsonl", entries)))
    (note,) = [note for note in plan["notes"] if "another one has too" in note]
    assert note.startswith("Documents whose text another one has too: 40.")
    assert "data.group_key can keep copies together" in note


def test_labels_may_be_numbers_or_missing(tmp_path, make_run):
    entries = [*sentences(6), {"text": "a cat", "year": None}, {"text": "a tree", "year": " "}, {"text": "one"}]
    run = make_run(write_jsonl(tmp_path / "d.jsonl", entries), data={"label_key": "year"})
    plan = prepared(run)
    assert run.kind.read_items(run)["label"].tolist() == ["1990", "1991", "1992"] * 2 + [None] * 3
    assert any("Documents without a value of year: 3 of 9" in note for note in plan["notes"])


def test_keys_are_told_where_none_is_chosen(tmp_path, make_run):
    plan = prepared(make_run(write_jsonl(tmp_path / "d.jsonl", sentences(6))))
    told = "(d.jsonl has name, language, author, year)"
    assert sum(told in note for note in plan["notes"]) == 2  # of labels and of groups


def test_special_tokens_inside_a_text_are_no_units(tmp_path, make_run):
    run = make_run(write_jsonl(tmp_path / "d.jsonl", [{"text": "the cat<eos> sat"}, {"text": "the tree"}]))
    plan = prepared(run)
    assert plan["n_tokens_special"] == 3
    assert run.kind.read_items(run, ["n_special"])["n_special"].tolist() == [2, 1]
    assert not {"<bos>", "<eos>"} & set(run.kind.read_units(run).unit_id)


def test_a_new_tokens_limit_makes_the_run_stale(tmp_path, make_run):
    path = write_jsonl(tmp_path / "d.jsonl", sentences(6))
    run = make_run(path)
    prepared(run)
    stage = stage_named("prepare")
    assert make_run(path).state(stage, 0).status == "done"
    assert make_run(path, data={"max_tokens": 5}).state(stage, 0).status == "stale"
