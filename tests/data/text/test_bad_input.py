"""Bad texts: one line for the reader, and nothing is left behind."""

from __future__ import annotations

import json

import pytest

from sae_genomics.errors import UserError
from sae_genomics.execute import execute
from sae_genomics.stages import stage_named
from tests.data.conftest import files_under
from tests.data.text.conftest import sentences, write, write_jsonl

GOOD = json.dumps({"text": "the cat", "id": "a", "language": "english"}) + "\n"


def refused(make_run, tmp_path, path, **data) -> str:
    def prepare() -> None:
        run = make_run(path, data=data)
        run.check([stage_named("prepare")])
        execute(run, stage_named("prepare"), 0)

    with pytest.raises(UserError) as raised:
        prepare()
    message = str(raised.value)
    assert "\n" not in message
    assert files_under(tmp_path / "out") == set()
    return message


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ("{", "line 2: not valid JSON"),
        ('["a"]', 'line 2: a JSONL line is one object, such as {"text": "..."}'),
        ('{"body": "x", "n": 3}', "line 2: the key 'text' is not there; set data.text_key to one of body"),
        ('{"text": 3}', "line 2: the key 'text' is no text"),
        ('{"text": null, "title": "x"}', "line 2: the key 'text' is no text; set data.text_key to one of title"),
        ('{"text": " \\n"}', "line 2: the document is empty; remove it"),
        ('{"text": ""}', "line 2: the document is empty; remove it"),
        ('{"text": "<eos><bos>"}', "line 2: the model's tokeniser makes no word piece of the document; remove it"),
        ('{"text": "a \\ud83d b"}', "line 2: character 3 of the text is half a character"),
        ("[" * 100_000, "line 2: "),
    ],
)
def test_a_bad_line_is_named(tmp_path, make_run, second, expected):
    path = write(tmp_path / "d.jsonl", GOOD + second + "\n" + GOOD)
    assert f"{path}, {expected}" in refused(make_run, tmp_path, path)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("d.jsonl", "", "d.jsonl is empty"),
        ("d.txt", " \n\n", "d.txt is empty"),
        ("d.jsonl", b'{"text": "caf\xe9"}\n', "line 1: not UTF-8 text; save the file as UTF-8"),
        ("d.txt", b"one\ntwo\ncaf\xe9\n", "line 3: not UTF-8 text; save the file as UTF-8"),
        ("d.txt", "one\n\u00a0\n", "line 2: the document is empty; remove it"),
        ("d.jsonl", b"PAR1....", "is Parquet, not text"),
        (
            "d.csv",
            "text,label\none,two\n",
            "is neither .jsonl, .ndjson, .json nor .txt; rename it, or convert it to JSONL",
        ),
        ("d.json", '[\n{"text": "one"}\n]\n', "line 1: not valid JSON"),
    ],
)
def test_a_bad_file_is_named(tmp_path, make_run, name, content, expected):
    path = write(tmp_path / name, content)
    message = refused(make_run, tmp_path, path)
    assert str(path) in message
    assert expected in message


def test_a_broken_gzip_file_is_named(tmp_path, make_run):
    path = write_jsonl(tmp_path / "d.jsonl.gz", sentences(200))
    path.write_bytes(path.read_bytes()[:-20])
    assert "the gzip file is broken or cut short" in refused(make_run, tmp_path, path)


def test_what_is_not_there_is_named(tmp_path, make_run):
    assert "data.path: no such file: " in refused(make_run, tmp_path, tmp_path / "none.jsonl")
    assert "data.path: no data set builtin:demo of texts" in refused(make_run, tmp_path, "builtin:demo")
    (tmp_path / "texts").mkdir()
    assert "holds no .txt file" in refused(make_run, tmp_path, tmp_path / "texts")


def test_a_bad_file_in_a_folder_is_named(tmp_path, make_run):
    write(tmp_path / "texts" / "a.txt", "one")
    bad = write(tmp_path / "texts" / "b.txt", b"caf\xe9")
    assert f"{bad}, byte 4: not UTF-8 text" in refused(make_run, tmp_path, tmp_path / "texts")
    bad.write_text("\n")
    assert f"{bad}: the document is empty; remove it" in refused(make_run, tmp_path, tmp_path / "texts")


@pytest.mark.parametrize("setting", ["label_key", "group_key"])
def test_a_key_that_no_document_has_is_named(tmp_path, make_run, setting):
    path = write(tmp_path / "d.jsonl", GOOD * 3)
    message = refused(make_run, tmp_path, path, **{setting: "lang"})
    assert message == (
        f"data.{setting}: no document of {path} has a value for the key 'lang'; set it to one of id, language"
    )


def test_keys_that_the_input_cannot_have_are_refused(tmp_path, make_run):
    path = write(tmp_path / "d.txt", "one\ntwo\n")
    message = refused(make_run, tmp_path, path, label_key="language")
    assert message.startswith(f"data.label_key: {path} is a text file, one document per line, which has no keys; leave")
    folder = write(tmp_path / "texts" / "a.txt", "one").parent
    assert "whose only key is folder" in refused(make_run, tmp_path, folder, label_key="language")
    assert "data.id_key: " in refused(make_run, tmp_path, folder, id_key="name")


def test_names_are_unique_and_there(tmp_path, make_run):
    entries = [{"text": "one", "id": "a"}, {"text": "two", "id": "b"}, {"text": "three", "id": "a"}]
    path = write_jsonl(tmp_path / "d.jsonl", entries)
    message = refused(make_run, tmp_path, path, id_key="id")
    assert message.startswith(f"{path}, line 3: a document called 'a' is there already, in line 1; give each")
    path = write_jsonl(tmp_path / "e.jsonl", [*entries[:2], {"text": "three"}])
    assert f"{path}, line 3: no value for the key 'id' of data.id_key" in refused(make_run, tmp_path, path, id_key="id")


def test_a_label_that_is_a_list_is_refused(tmp_path, make_run):
    path = write_jsonl(tmp_path / "d.jsonl", [{"text": "one", "tags": ["a"]}])
    message = refused(make_run, tmp_path, path, label_key="tags")
    assert message == f"{path}, line 1: 'tags' of data.label_key is a list; write a text or a number there"


def test_a_group_is_needed_of_each_document(tmp_path, make_run):
    entries = [*sentences(8), {"text": "one"}]
    path = write_jsonl(tmp_path / "d.jsonl", entries)
    message = refused(make_run, tmp_path, path, group_key="author", id_key=None)
    assert "data.group_key: 1 of 9 documents have no value in key 'author' (the first is line 9)" in message


def test_a_model_of_another_kind_is_refused_in_one_line(tmp_path, make_run):
    path = write(tmp_path / "d.jsonl", GOOD)
    with pytest.raises(UserError) as raised:
        make_run(path, model={"family": "esm2", "path": None}).check()
    assert str(raised.value).startswith("model.family esm2 reads proteins, and data.kind is text; set model.family to ")
    assert "reader" in str(raised.value)


def test_one_document_gives_nothing_to_train_on_or_hold_out(tmp_path, make_run):
    path = write(tmp_path / "d.jsonl", GOOD)
    run = make_run(path)
    execute(run, stage_named("prepare"), 0)
    assert run.kind.read_items(run)["heldout"].tolist() == [False]


def test_a_file_that_changes_during_the_run_is_refused(tmp_path, make_run):
    path = write(tmp_path / "d.jsonl", GOOD * 5)
    run = make_run(path)
    assert run.n_items == 5
    path.write_text(GOOD * 4)
    with pytest.raises(UserError, match="changed since the run began"):
        execute(run, stage_named("prepare"), 0)
    assert files_under(tmp_path / "out") == set()
