"""Data kinds: each has its own section of the config, and one from outside the package runs like ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from sae_genomics.cli import main
from sae_genomics.config import apply_override, dump_config, known_keys, load_config, parse_config
from sae_genomics.data.kinds import KINDS
from sae_genomics.errors import UserError
from sae_genomics.hashes import hash_values
from sae_genomics.models import FAMILIES
from sae_genomics.run import Run
from sae_genomics.stages import stage_named

from .line_kind import Lines


@pytest.fixture(autouse=True)
def lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind and a family of models that reads it, registered as somebody else's package would."""
    monkeypatch.setitem(KINDS, "lines", "tests.data.line_kind:Lines")
    monkeypatch.setitem(FAMILIES, "liner", ("tests.data.liner.config", "tests.data.liner.model"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A run over twelve lines and their labels."""
    (tmp_path / "lines.txt").write_text("".join(f"{'ABCDEFGHIJKL'[i:]}\n" for i in range(12)))
    (tmp_path / "labels.txt").write_text("".join(f"{'even' if i % 2 == 0 else 'odd'}\n" for i in range(12)))
    values = {
        "paths": {name: str(tmp_path / name) for name in ("checkpoints", "results", "logs")},
        "data": {
            "kind": "lines", "path": str(tmp_path / "lines.txt"), "labels": str(tmp_path / "labels.txt"), "max_items": 10,
            "heldout_fraction": 0.3,
        },
        "model": {"family": "liner"},
        "activations": {"items_per_shard": 4},
    }  # fmt: skip
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        parse_config(values, "c.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"data": {"path": "x", "kind": "liness"}}, "data.kind: 'liness' is not known; the kinds are cells, proteins, text, lines"),
        ({"data": {"path": "x", "kind": [1]}}, "data.kind: [1] is not known; the kinds are cells, proteins, text, lines"),
        ({"data": {"path": "x", "labels": "y"}}, "unknown key data.labels for data.kind cells; data.kind"),
        (
            {"data": {"path": "x", "kind": "lines", "cell_type_key": "y"}},
            "unknown key data.cell_type_key for data.kind lines; data.kind cells has it",
        ),
        ({"data": {"path": "x", "kind": "lines", "max_line": 3}}, "unknown key data.max_line; did you mean data.max_lines?"),
        ({"data": {"kind": "lines"}}, "data.path is missing"),
        ({"data": {"kind": "lines", "path": "x", "max_items": 0}}, "data.max_items = 0: should be greater than or equal to 1"),
    ],
)  # fmt: skip
def test_a_section_is_refused_by_the_rules_of_its_kind(values: dict[str, Any], says: str) -> None:
    assert says in refusal(values)


def test_a_kind_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "stars", "an_absent_package.stars:Stars")
    says = "data.kind: stars needs an_absent_package.stars, which is not installed here"
    assert says in refusal({"data": {"path": "x", "kind": "stars"}})
    assert "unknown key data.colour" in refusal({"data": {"path": "x", "colour": 3}})


def test_a_kind_that_has_a_key_of_cells_is_found_among_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "rows", "tests.data.line_kind:Lines")
    said = refusal({"data": {"path": "x", "max_lines": 3}})
    assert said.endswith("unknown key data.max_lines for data.kind cells; data.kind lines and rows have it")


def test_a_config_of_an_outside_kind_reads_back_the_same(config: Path, tmp_path: Path) -> None:
    read = load_config(config, ["data.max_lines=7", "data.labels=null"])
    assert (read.data.kind, read.data.max_lines, read.data.labels) == ("lines", 7, None)  # type: ignore[attr-defined]
    (tmp_path / "again.yaml").write_text(dump_config(read))
    assert load_config(tmp_path / "again.yaml") == read
    assert {"data.max_lines", "data.labels", "sae.k"} <= set(known_keys("lines"))
    assert "data.max_cells" not in known_keys("lines")
    assert "data.labels" not in known_keys()


def test_prepare_runs_over_an_outside_kind(config: Path, tmp_path: Path) -> None:
    assert main(["stage", "prepare", "--config", str(config)]) == 0
    run = Run(load_config(config), config)
    assert run.state(stage_named("prepare"), 0).done
    assert (run.n_items, run.n_shards, run.shard_items(2)) == (10, 3, (8, 10))
    items = run.kind.read_items(run)
    assert list(items.columns) == ["item", "item_id", "heldout", "group", "label"]
    assert items["heldout"].sum() == 3
    read = run.kind.read(run, np.array([1, 4]))
    assert read.sequences == ["ABCDEFGHIJKL"[row:] for row in items["item"][[1, 4]]]
    units = run.kind.read_units(run)
    assert units.counts.sum() == sum(12 - row for row in items["item"])
    assert list(units.lookup()[:6]) == [-1, -1, -1, -1, 0, 1]
    assert len(units.lookup(64)) == 64

    (tmp_path / "labels.txt").rename(tmp_path / "elsewhere.txt")  # a file's name decides nothing
    moved = Run(load_config(config, [f"data.labels={tmp_path / 'elsewhere.txt'}"]), config)
    assert moved.state(stage_named("prepare"), 0).done
    (tmp_path / "elsewhere.txt").write_text("other\n" * 12)  # what it holds does
    changed = Run(load_config(config, [f"data.labels={tmp_path / 'elsewhere.txt'}"]), config)
    assert changed.state(stage_named("prepare"), 0).why == "the data changed"


def test_input_files_are_read_once_while_none_of_them_changes(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["stage", "prepare", "--config", str(config)]) == 0
    reads, counts = [], []
    whole, count = Lines.content_hash, Lines.count_items
    monkeypatch.setattr(Lines, "content_hash", lambda kind, settings: reads.append(1) or whole(kind, settings))
    monkeypatch.setattr(Lines, "count_items", lambda kind, settings: counts.append(1) or count(kind, settings))
    run = Run(load_config(config), config)
    assert run.state(stage_named("prepare"), 0).done
    assert run.n_items == 10
    assert not reads
    assert not counts
    assert Run(load_config(config, ["data.max_lines=7"]), config).n_items == 7  # another setting of the data
    assert counts == [1]
    assert Run(load_config(config, ["sae.k=3"]), config).n_items == 10
    assert counts == [1]
    (tmp_path / "labels.txt").write_text("even\n" * 12)  # the second file
    assert not Run(load_config(config), config).state(stage_named("prepare"), 0).done
    assert reads
    with open(tmp_path / "lines.txt", "w") as file:
        file.write("ABC\n" * 3)
    assert Run(load_config(config), config).n_items == 3
    assert counts == [1, 1]


def test_bad_input_of_an_outside_kind_is_one_line(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lines.txt").write_text("ABC\nA1\n")
    assert main(["stage", "prepare", "--config", str(config)]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].endswith(f"{tmp_path / 'lines.txt'}, line 2: '1' is no letter; write A to Z")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("family", "kind", "says"),
    [
        ("tx1", "lines", "model.family tx1 reads cells, and data.kind is lines; set model.family to liner, or data.kind to cells"),
        ("liner", "cells", "model.family liner reads lines, and data.kind is cells; set model.family to tx1, geneformer, scgpt or planted, or data.kind to lines"),
    ],
)  # fmt: skip
def test_a_model_that_reads_another_kind_is_refused(
    family: str, kind: str, says: str, config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    values = yaml.safe_load(config.read_text())
    values["data"] = {"kind": kind, "path": values["data"]["path"]}
    values["model"]["family"] = family
    config.write_text(yaml.safe_dump(values))
    assert main(["pipeline", str(config), "--local"]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].endswith(says)
    assert not (tmp_path / "results").exists()


# --- cells ---


@pytest.mark.parametrize("storage", ["csr", "csc"])
def test_cells_are_read_as_their_shards_are(tmp_path: Path, make_run: Any, storage: str) -> None:
    from sae_genomics.data.cells.read import gene_tokens, shard_counts
    from sae_genomics.execute import execute

    from .conftest import random_counts, write_cells

    obs = {"cell_type": ["B", "T", None] * 20, "donor": [f"d{i % 4}" for i in range(60)], "drug": ["x", "y"] * 30}
    path = write_cells(tmp_path / "a.h5ad", random_counts(), obs=obs, storage=storage)
    run = make_run(path, data={"max_cells": 45, "group_key": "donor"})
    assert execute(run, stage_named("prepare"), 0)
    counts, rows = shard_counts(run, 1)
    start, stop = run.shard_items(1)
    whole = run.kind.read(run, np.arange(start, stop))
    np.testing.assert_array_equal(whole.rows, rows)
    np.testing.assert_array_equal(whole.counts.toarray(), counts.toarray())
    np.testing.assert_array_equal(whole.token, gene_tokens(run))
    np.testing.assert_array_equal(whole.token, run.kind.read_units(run).token)
    assert whole.drugs is None
    run.config.model.drug_key = "drug"  # the small model reads none
    assert run.kind.read(run, np.arange(start, stop)).drugs == ["xy"[row % 2] for row in rows]
    some = run.kind.read(run, np.array([start + 2, start + 9]))
    np.testing.assert_array_equal(some.counts.toarray(), counts.toarray()[[2, 9]])
    assert run.kind.read(run, np.empty(0, dtype=np.int64)).counts.shape == (0, len(whole.token))

    items = run.kind.read_items(run, ["label", "item", "group"])
    assert list(items.columns) == ["label", "item", "group"]
    assert [(row.label, row.group) for row in items.itertuples()] == [
        (obs["cell_type"][row], obs["donor"][row]) for row in items["item"]
    ]
    assert run.kind.read_spans(run) is None


# --- other names of a setting ---

OTHER_NAMES = {
    "activations.items_per_shard": "activations.cells_per_shard",
    "activations.tokens_per_item": "activations.tokens_per_cell",
    "sae.loss_recovered_items": "sae.loss_recovered_cells",
    "data.max_items": "data.max_cells",
}


@pytest.mark.parametrize(("other", "name"), OTHER_NAMES.items())
def test_another_name_of_a_setting_is_the_same_setting(other: str, name: str) -> None:
    def given(key: str) -> dict[str, Any]:
        values: dict[str, Any] = {"data": {"path": "x"}}
        apply_override(values, f"{key}=7")
        return values

    one, same = parse_config(given(other), "c"), parse_config(given(name), "c")
    assert one == same
    assert dump_config(one) == dump_config(same)
    section, _, key = name.partition(".")
    assert one.model_dump()[section][key] == 7
    assert other.partition(".")[2] not in one.model_dump()[section]

    both = given(other)
    both[section][key] = 7
    assert f"{section}: {key} and {other.partition('.')[2]} are names of one setting" in refusal(both)
    apply_override(both, f"{other}=8")  # what is typed wins, by whatever name
    assert parse_config(both, "c").model_dump()[section][key] == 8


# --- runs of the version before data kinds ---


def test_settings_that_came_later_change_no_finished_run() -> None:
    """What stages hash of a config without new keys, as it was before `data.kind`; see `owner.LATER_KEYS` for a new key."""
    run = Run(parse_config({"data": {"path": "cells.h5ad"}}, "c"))
    before = {
        "prepare": "f7a0fcc9162354cd", "extract": "98c2a4581f4c2c7a", "train": "b77e9030ab5197d6",
        "associate": "58380e76e62e0d2e", "validate": "a92b7e190eec4fd9",
    }  # fmt: skip
    assert {name: hash_values(run.config_values(stage_named(name))) for name in before} == before


def test_a_run_prepared_before_units_were_written_is_done(tmp_path: Path, make_run: Any) -> None:
    from sae_genomics.atomic import read_json, write_json
    from sae_genomics.execute import execute

    from .conftest import random_counts, write_cells

    cells = write_cells(tmp_path / "a.h5ad", random_counts())
    stage = stage_named("prepare")
    assert execute(make_run(cells), stage, 0)
    run = make_run(cells)
    units = run.kind.read_units(run)
    written = pd.read_parquet(run.units_file)
    assert list(written["unit"]) == list(range(len(units)))
    np.testing.assert_array_equal(written["token"], units.token)
    np.testing.assert_array_equal(written["unit_id"], units.unit_id)
    np.testing.assert_array_equal(written["counts"], units.counts)

    later = run.units_file.read_bytes()
    run.units_file.unlink()
    assert run.state(stage, 0).why == "units.parquet is not there"
    run.units_file.write_bytes(later)
    plan = read_json(run.plan_file)
    write_json(run.plan_file, {key: value for key, value in plan.items() if key not in ("kind", "n_items")})
    run.units_file.unlink()
    run.write_manifest(stage, 0, {})
    manifest = run.manifest_file(stage, 0).read_text()
    assert "units.parquet" not in manifest
    old = make_run(cells)
    assert old.state(stage, 0).done
    np.testing.assert_array_equal(old.kind.read_units(old).counts, units.counts)

    old.manifest_file(stage, 0).unlink()
    assert execute(make_run(cells), stage, 0)  # made again, it has them
    assert run.units_file.read_bytes() == later
