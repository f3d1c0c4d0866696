"""Windows of word pieces: how a table keeps them, and how the report marks them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sae_genomics import artifacts
from sae_genomics.artifacts.window_text import join_units, split_units
from sae_genomics.data.text.prepare import shown
from sae_genomics.execute import execute
from sae_genomics.models import text_tokeniser
from sae_genomics.report.dashboard_examples import _windows
from sae_genomics.report.section_examples import window_lines
from sae_genomics.report.wording import wording_of
from sae_genomics.stages import stage_named
from tests.data.text.conftest import sentences, write_jsonl


@pytest.mark.parametrize("names", [["the"], [" the", "", "cat"], ["a", "b"], ["M"], [" "]])
def test_pieces_come_back(names):
    assert split_units(join_units(names, are_letters=False), len(names)) == names


def test_letters_are_plain_text():
    assert join_units(list("MKV"), are_letters=True) == "MKV"
    assert split_units("MKV", 3) == list("MKV")
    with pytest.raises(ValueError, match="other than one unit per activation"):
        split_units("MKV", 2)
    with pytest.raises(ValueError, match="other than one unit per activation"):
        split_units(join_units([" the", "cat"], are_letters=False), 3)


def test_blanks_of_a_piece_are_shown_at_its_ends():
    assert [shown(piece) for piece in (" the", "the", "a b ", "  ", "")] == ["␣the", "the", "a b␣", "␣␣", ""]


@pytest.fixture
def examples_of(tmp_path, make_run):
    """examples_of() -> the run, and feature_examples of its only layer, from data to `associate`."""
    entries = sentences(30)
    run = make_run(
        write_jsonl(tmp_path / "d.jsonl", entries),
        model={"layers": [1]},
        activations={"items_per_shard": 30},
        associations={"top_examples": 3},
    )
    for name in ("prepare", "extract", "train", "associate"):
        execute(run, stage_named(name), 0)
    table = artifacts.FEATURE_EXAMPLES.read(run.layer_results(1) / artifacts.FEATURE_EXAMPLES.file)
    return run, entries, table


def test_a_window_holds_the_document_around_the_maximum(examples_of):
    run, entries, table = examples_of
    assert len(table) > 20
    tokeniser = text_tokeniser(run.config.model)
    for row in table.itertuples():
        ids = tokeniser.encode([entries[row.item_index]["text"]], None)[0]
        first = max(row.position - 20, 1)  # <bos> is not shown
        pieces = split_units(row.residues, len(row.activations))
        assert row.start == first
        assert pieces == tokeniser.spell(ids[first : row.position + 21])
        assert row.activations[row.position - first] == np.float32(row.max_activation) == max(row.activations)

    row = table.iloc[0].to_dict()
    text, marks = window_lines(row, wording_of(run))[1:]
    at = marks.index("^") if "^" in marks else -1
    assert at >= 0
    assert text.count("^") == 0
    length, units, levels = _windows(table)
    assert length.tolist() == [len(each) for each in table["activations"]]
    assert units == [unit for row in table.itertuples() for unit in split_units(row.residues, len(row.activations))]
    assert levels.max() == 255


def test_marks_stand_below_their_pieces(make_run, tmp_path):
    pieces = [f" w{i}" for i in range(30)]
    window = {
        "item_id": "d1", "name": None, "max_activation": 4.0, "position": 15, "start": 1,
        "residues": join_units(pieces, are_letters=False), "concepts": None,
        "activations": np.array([4.0 if i == 14 else 1.0 if i == 16 else 0.0 for i in range(30)], np.float32),
    }  # fmt: skip
    head, text, marks = window_lines(window, wording_of(make_run(tmp_path)))
    assert head == "d1, largest activation 4.00 at token 15"
    assert text.startswith("5  w4 w5")
    assert text.endswith(" w24 25")
    assert text[marks.index("^") : marks.rindex("^") + 1] == " w14"
    assert text[marks.index(".") : marks.rindex(".") + 1] == " w16"


def test_units_beyond_int16_keep_their_numbers():
    from sae_genomics.associations.examples import Windows

    assert np.iinfo(Windows.none().unit.dtype).max > 262_144


def test_settings_of_reading_go_with_the_run_to_new_files(tmp_path, make_run):
    from sae_genomics.concepts.detect import run_on

    entries = [{"body": entry["text"], "language": entry["language"]} for entry in sentences(6)]
    run = make_run(
        write_jsonl(tmp_path / "d.jsonl", entries),
        data={"text_key": "body", "max_tokens": 9, "label_key": "language", "max_documents": 4},
    )
    other = run_on(run, write_jsonl(tmp_path / "new.jsonl", entries), {}, tmp_path / "detected")
    data = other.config.data.model_dump(exclude_unset=True)
    expected = {"kind": "text", "path": str(tmp_path / "new.jsonl"), "text_key": "body", "max_tokens": 9}
    assert data == expected | {"heldout_fraction": 0.0}
    assert other.n_items == 6


def test_examples_of_concepts_have_no_start(tmp_path, make_run):
    from sae_genomics.concepts.examples import example_concepts
    from sae_genomics.errors import UserError

    path = write_jsonl(tmp_path / "e.jsonl", [{"item_id": "d1", "label": "positive", "start": 1, "end": 2}])
    run = make_run(
        write_jsonl(tmp_path / "d.jsonl", sentences(6)), data={"id_key": "name"}, concepts={"examples": [str(path)]}
    )
    execute(run, stage_named("prepare"), 0)
    with pytest.raises(UserError, match="the residues of a document cannot be counted; leave start and end empty"):
        example_concepts(run, pd.Series([f"d{i}" for i in range(6)]))
