"""Config: what is refused and how it reads, what is accepted, what survives a round trip."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_genomics.config import apply_override, dump_config, known_keys, load_config, parse_config
from sae_genomics.errors import UserError


def refusal(values: dict) -> str:
    with pytest.raises(UserError) as caught:
        parse_config(values, "c.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"data": {"path": "x", "max_cels": 3}}, "unknown key data.max_cels; did you mean data.max_cells?"),
        ({"dat": {"path": "x"}}, "unknown key dat; did you mean data?"),
        ({"data": {"path": "x"}, "model": {"d_sae": 9}}, "did you mean sae.d_sae?"),
        ({}, "data: is missing"),
        ({"data": {}}, "data.path is missing"),
        ({"data": {"path": "x"}, "sae": {"k": 5, "d_sae": 4}}, "sae.k = 5 is more than sae.d_sae = 4"),
        ({"data": {"path": "x"}, "model": {"layers": "first"}}, "model.layers = 'first'"),
        ({"data": {"path": "x"}, "model": {"layers": [-1]}}, "counted from 0"),
        ({"data": {"path": "x"}, "model": {"layers": [1, 1]}}, "twice"),
        ({"data": {"path": "x"}, "model": {"hook": "mlp"}}, "'resid_post', 'mlp_out' or 'attn_out'"),
        ({"data": {"path": "x"}, "model": {"backend": "reference", "compile": True}}, "--set model.compile=false"),
        ({"data": {"path": "x"}, "sae": {"lr": "fast"}}, "sae.lr = 'fast'"),
        ({"data": {"path": "x"}, "run": {"name": "../up"}}, "run.name takes letters"),
        (
            {"data": {"path": "x"}, "validation": {"baselines": ["neurons", "nmf"]}},
            "'nmf' is not known; the baselines are neurons, pca, ica, untrained",
        ),
        ({"data": {"path": "x"}, "validation": {"baselines": ["pca", "pca"]}}, "names a baseline twice"),
        ({"data": [1]}, "data = [1]"),
    ],
)
def test_refusals_name_the_key_and_the_way_out(values: dict, says: str) -> None:
    assert says in refusal(values)


def test_every_key_but_the_data_path_has_a_default() -> None:
    config = parse_config({"data": {"path": "cells.h5ad"}}, "c.yaml")
    assert config.model.layers == "all"
    assert config.data.counts == "auto"


@pytest.mark.parametrize(
    ("written", "read"), [("all", "all"), ("0,6,11", [0, 6, 11]), (3, [3]), ([2, 0], [0, 2]), ("5", [5])]
)
def test_layers_as_people_write_them(written: object, read: object) -> None:
    assert parse_config({"data": {"path": "x"}, "model": {"layers": written}}, "c").model.layers == read


@pytest.mark.parametrize(
    ("written", "read"), [("pca", ["pca"]), ("untrained, neurons", ["neurons", "untrained"]), ([], []), ("", [])]
)
def test_baselines_as_people_write_them(written: object, read: object) -> None:
    assert parse_config({"data": {"path": "x"}, "validation": {"baselines": written}}, "c").validation.baselines == read
    assert parse_config({"data": {"path": "x"}}, "c").validation.baselines == ["neurons", "pca", "ica", "untrained"]


def test_file_errors_are_one_line(tmp_path: Path) -> None:
    for name, text, says in [
        ("broken.yaml", "data: [", "line"),
        ("list.yaml", "- 1\n", "mapping of sections"),
        ("python.yaml", "data: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
    ]:
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=says) as caught:
            load_config(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(UserError, match="no such config file"):
        load_config(tmp_path / "absent.yaml")


def test_run_name_defaults_to_the_file_name(tmp_path: Path) -> None:
    (tmp_path / "my cells.yaml").write_text("data: {path: x.h5ad}\n")
    assert load_config(tmp_path / "my cells.yaml").run.name == "my_cells"


def test_overrides_are_read_as_yaml(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("data: {path: x.h5ad}\nsae: {k: 8}\n")
    config = load_config(
        file, ["sae.k=16", "sae.lr=1e-3", "model.layers=[0, 2]", "data.cell_type_key=null", "run.seed=7"]
    )
    assert (config.sae.k, config.sae.lr, config.model.layers, config.run.seed) == (16, 1e-3, [0, 2], 7)
    for wrong in ("sae.k", "k=3", ".k=3", "sae.=3"):
        with pytest.raises(UserError, match=r"--set sae.k=64"):
            apply_override({}, wrong)


@given(
    k=st.integers(1, 4096),
    seed=st.integers(0, 2**31 - 1),
    fraction=st.floats(0, 0.99),
    layers=st.sets(st.integers(0, 99), min_size=1),
)
def test_a_dumped_config_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, k: int, seed: int, fraction: float, layers: set[int]
) -> None:
    config = parse_config(
        {"run": {"name": "a", "seed": seed}, "data": {"path": "x", "heldout_fraction": fraction}, "sae": {"k": k}, "model": {"layers": list(layers)}},
        "c",
    )  # fmt: skip
    file = tmp_path_factory.mktemp("dump") / "c.yaml"
    file.write_text(dump_config(config))
    assert load_config(file) == config


def test_the_keys_other_tools_rely_on_exist() -> None:
    promised = """run.name run.seed paths.checkpoints paths.results paths.logs paths.cache paths.databases data.path data.counts
    data.gene_key data.cell_type_key data.max_cells model.family model.name model.path model.backend model.layers model.hook model.device
    model.compute_dtype activations.dtype activations.cells_per_shard activations.batch_tokens sae.architecture sae.d_sae sae.expansion
    sae.k sae.batch_tokens sae.steps sae.lr"""
    assert set(promised.split()) <= set(known_keys())
