"""The tokens file: format 2 comes back as it went, and format 1 is read into the same class."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.activations import read_units
from sae_genomics.activations.format import token_store
from sae_genomics.activations.format.token_store import (
    TokenIds,
    TokenShard,
    read_item_ptr,
    read_special_rows,
    read_tokens,
    write_tokens,
)

COLUMNS = ("item", "token", "unit", "position", "weight", "special", "item_ptr")
NOUNS = {"item": "protein", "unit": "amino acid", "label": "family"}


def some_tokens(lengths, seed=0) -> TokenShard:
    """Special tokens stand anywhere, and an item may have no rows."""
    rng = np.random.default_rng(seed)
    lengths = np.asarray(lengths, dtype=np.int64)
    n = int(lengths.sum())
    special = rng.random(n) < 0.3
    return TokenShard(
        item=np.repeat(rng.integers(0, 1 << 40, len(lengths)), lengths),
        token=rng.integers(0, 1 << 20, n).astype(np.int32),
        unit=np.where(special, -1, rng.integers(-1, 20, n)).astype(np.int32),
        position=rng.integers(0, 5000, n).astype(np.int32),
        weight=rng.poisson(2, n).astype(np.float32),
        special=special,
        item_ptr=np.concatenate([[0], np.cumsum(lengths)]),
        per_token={"value": rng.random(n).astype(np.float32), "other": rng.integers(0, 9, n)},
        fingerprint="beef",
        shard=4,
        kind="proteins",
        nouns=NOUNS,
    )


def write_format_1(path, lengths, n_special, seed=0) -> dict[str, np.ndarray]:
    """The file as earlier versions wrote it."""
    rng = np.random.default_rng(seed)
    n = int(np.sum(lengths))
    arrays = {
        "cell": np.repeat(np.arange(len(lengths)) * 3, lengths),
        "gene": rng.integers(0, 50, n).astype(np.int32),
        "expression": rng.poisson(2, n).astype(np.float32),
        "value": rng.random(n).astype(np.float32),
        "cell_ptr": np.concatenate([[0], np.cumsum(lengths)]),
    }
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, chunks=(1024,), maxshape=(None,), fletcher32=True)
        file.attrs.update(format_version=1, fingerprint="f", shard=3, n_special=n_special, n_rows=n)
    return arrays


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(0, 30), min_size=1, max_size=20), at_once=st.integers(1, 40))
def test_tokens_come_back_as_they_went(tmp_path_factory, lengths, at_once):
    path = tmp_path_factory.mktemp("tokens") / "t.h5"
    tokens = some_tokens(lengths)
    write_tokens(path, tokens)
    got = read_tokens(path)
    for name in COLUMNS:
        wanted = getattr(tokens, name)
        np.testing.assert_array_equal(getattr(got, name), wanted)
        assert getattr(got, name).dtype == wanted.dtype
    assert set(got.per_token) == {"value", "other"}
    for name, values in tokens.per_token.items():
        np.testing.assert_array_equal(got.per_token[name], values)
    assert (got.fingerprint, got.shard, got.kind, got.nouns) == ("beef", 4, "proteins", NOUNS)
    assert (got.sampled_by, got.n_items, len(got)) == ("position", len(lengths), sum(lengths))
    np.testing.assert_array_equal(got.item_in_shard, np.repeat(np.arange(len(lengths)), lengths))
    np.testing.assert_array_equal(read_item_ptr(path), tokens.item_ptr)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_store, "_READ_AT_ONCE", at_once)
        np.testing.assert_array_equal(read_special_rows(path), np.flatnonzero(tokens.special))
    ids = TokenIds(path)
    half = len(tokens) // 2
    np.testing.assert_array_equal(ids.rows(half, len(tokens)), tokens.token[half:])
    ids.close()
    np.testing.assert_array_equal(read_units(path), tokens.token)


def test_the_file_names_kind_and_nouns(tmp_path):
    write_tokens(tmp_path / "t.h5", some_tokens([3]))
    with h5py.File(tmp_path / "t.h5") as file:
        wanted = {
            "format_version": 2, "data_kind": "proteins", "noun_item": "protein", "noun_unit": "amino acid", "noun_label": "family",
            "n_rows": 3, "shard": 4, "fingerprint": "beef", "sampled_by": "position",
        }  # fmt: skip
        assert dict(file.attrs) == wanted
        assert set(file) == {*COLUMNS, "value", "other"}


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(2, 30), min_size=1, max_size=20), n_special=st.integers(1, 2))
def test_format_1_is_read_into_the_same_class(tmp_path_factory, lengths, n_special):
    path = tmp_path_factory.mktemp("tokens") / "t.h5"
    arrays = write_format_1(path, lengths, n_special)
    got = read_tokens(path)
    for old, new in (("cell", "item"), ("gene", "token"), ("expression", "weight"), ("cell_ptr", "item_ptr")):
        np.testing.assert_array_equal(getattr(got, new), arrays[old])
    np.testing.assert_array_equal(got.per_token["value"], arrays["value"])
    special = [row < n_special for length in lengths for row in range(length)]
    np.testing.assert_array_equal(got.special, special)
    np.testing.assert_array_equal(got.position, [row for length in lengths for row in range(length)])
    assert (got.unit, got.sampled_by, got.kind, got.shard, got.fingerprint) == (None, "token", "cells", 3, "f")
    np.testing.assert_array_equal(read_item_ptr(path), arrays["cell_ptr"])
    np.testing.assert_array_equal(read_special_rows(path), np.flatnonzero(special))
    np.testing.assert_array_equal(read_units(path, slice(1, None)), arrays["gene"][1:])
    # unit by unit: the lookup knows 40 of 50 vocabulary ids, and half of these are units of the run
    lookup = np.where(np.arange(40) % 2, np.arange(40) // 2, -1).astype(np.int32)
    known = {gene: gene // 2 for gene in range(1, 40, 2)}
    units = [
        -1 if is_special else known.get(gene, -1)
        for gene, is_special in zip(arrays["gene"].tolist(), special, strict=True)
    ]
    assert got.units(lookup).tolist() == units
    assert got.units(lookup).dtype == np.int32


def test_units_of_format_2_are_those_of_the_file_and_the_callers_to_change():
    tokens = some_tokens([5, 8])
    units = tokens.units(np.full(3, 7, dtype=np.int32))
    np.testing.assert_array_equal(units, tokens.unit)
    units[:] = 99
    assert (tokens.unit < 20).all()
