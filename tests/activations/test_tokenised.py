"""Which rows of a shard are stored: sampled by position, each residue of overlapping windows once, and as an earlier version began."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.activations.extraction.sampling import stored_rows
from sae_genomics.activations.extraction.tokenised import TokenisedShard, tokenised_items
from sae_genomics.activations.format.store import open_activations
from sae_genomics.activations.format.token_store import read_tokens
from sae_genomics.execute import execute
from sae_genomics.models import load_model
from sae_genomics.stages import stage_named
from sae_genomics.tokens import Tokens, pointers, windows_of

EXTRACT = stage_named("extract")
CLS, EOS = 100, 101


def proteins(lengths, most=12, overlap=4) -> tuple[Tokens, np.ndarray]:
    """As a protein model's tokeniser gives them: <cls>, residues, <eos> around each window; and the items' rows."""
    windows = windows_of(np.array(lengths), most, overlap)
    rows = 5 + 2 * np.arange(len(lengths))
    parts = []
    for item, start, stop, kept_start, kept_stop in zip(*(array.tolist() for array in windows), strict=True):
        length = lengths[item]
        position = np.array([0, *range(start + 1, stop + 1), length + 1])
        stored = (position > kept_start) & (position <= kept_stop)
        stored[0], stored[-1] = start == 0, stop == length
        parts.append((rows[item], position, stored))
    sizes = [len(position) for _, position, _ in parts]
    position = np.concatenate([position for _, position, _ in parts]).astype(np.int32)
    item = np.repeat([row for row, _, _ in parts], sizes)
    special = np.zeros(len(position), bool)
    ptr = pointers(np.array(sizes))
    special[ptr[:-1]] = special[ptr[1:] - 1] = True
    token = np.where(special, np.where(position == 0, CLS, EOS), position % 20).astype(np.int32)
    return Tokens(
        item, token, np.where(special, -1, token).astype(np.int32), position, np.ones(len(token), np.float32), special, ptr,
        stored=np.concatenate([stored for _, _, stored in parts]),
    ), rows  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(0, 60), min_size=1, max_size=6))
def test_each_residue_of_a_long_protein_is_stored_once_and_in_order(lengths):
    tokens, rows = proteins(lengths)
    shard = TokenisedShard(tokens, stored_rows(tokens, None, 0), rows)
    stored_ptr = shard.stored_item_ptr
    assert len(stored_ptr) == len(lengths) + 1
    for number, length in enumerate(lengths):
        mine = shard.kept[stored_ptr[number] : stored_ptr[number + 1]]
        assert tokens.position[mine].tolist() == list(range(length + 2))
        assert set(tokens.item[mine]) == {rows[number]}
    assert len(shard.stored_ptr) == tokens.n_items + 1
    assert shard.stored_ptr[-1] == stored_ptr[-1] == len(shard.kept)


def test_an_item_without_stored_rows_has_an_entry():
    tokens, rows = proteins([3, 20, 4])
    kept = np.flatnonzero(tokens.item != rows[1])
    assert TokenisedShard(tokens, kept, rows).stored_item_ptr.tolist() == [0, 5, 5, 11]
    absent = np.array([*rows, 99])  # of which not even the model read anything
    assert TokenisedShard(tokens, kept, absent).stored_item_ptr.tolist() == [0, 5, 5, 11, 11]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=6), per_item=st.integers(1, 30), seed=st.integers(0, 9)
)
def test_sampling_knows_item_and_position_alone(lengths, per_item, seed):
    """However a protein is cut into windows, the same residues stay; special tokens always do; more adds to less."""
    chosen = []
    for most, overlap in ((12, 4), (7, 0), (1000, 3)):
        tokens, _ = proteins(lengths, most, overlap)
        kept = stored_rows(tokens, per_item, seed)
        assert (np.diff(kept) > 0).all()
        chosen.append(list(zip(tokens.item[kept].tolist(), tokens.position[kept].tolist(), strict=True)))
        more = stored_rows(tokens, per_item + 5, seed)
        assert set(kept) <= set(more)
        counts = np.bincount(tokens.item[kept][~tokens.special[kept]], minlength=5 + 2 * len(lengths))[5::2]
        assert counts.tolist() == [min(length, per_item) for length in lengths]
        assert tokens.special[kept].sum() == 2 * len(lengths)
    assert chosen[0] == chosen[1] == chosen[2]


def test_sampling_is_uniform_over_positions():
    n, length = 3000, 40
    item = np.repeat(np.arange(n), length)
    zeros = np.zeros(n * length, np.int32)
    position = np.tile(np.arange(length, dtype=np.int32), n)
    tokens = Tokens(
        item, zeros, zeros, position, zeros.astype(np.float32), zeros.astype(bool), np.arange(0, n * length + 1, length)
    )
    times = np.bincount(position[stored_rows(tokens, 10, 3)], minlength=length)
    expected = n * 10 / length
    assert ((times - expected) ** 2 / (expected * 0.75)).sum() < 80  # chi-squared, 39 degrees of freedom: p < 0.0002


# --- shards that an earlier version began, which drew by vocabulary id ---


def to_format_1(path) -> None:
    """Rewrite a tokens file as earlier versions wrote it."""
    tokens = read_tokens(path)
    arrays = {
        "cell": tokens.item, "gene": tokens.token, "expression": tokens.weight, "value": tokens.per_token["value"],
        "cell_ptr": tokens.item_ptr,
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, chunks=(1024,), maxshape=(None,), fletcher32=True)
        file.attrs.update(
            format_version=1, fingerprint=tokens.fingerprint, shard=tokens.shard, n_special=1, n_rows=len(tokens)
        )


@pytest.fixture
def old_run(prepared, monkeypatch):
    """A finished run whose tokens were sampled, and written, by an earlier version."""
    run = prepared(activations__tokens_per_cell=6, model__layers=[0, 1])
    with monkeypatch.context() as patch:
        patch.setattr("sae_genomics.activations.extraction.tokenised._sampled_by", lambda files: "token")
        for task in range(run.n_shards):
            execute(run, EXTRACT, task)
    for task in range(run.n_shards):
        to_format_1(run.tokens_file(task))
        for layer in run.layers:
            with h5py.File(run.activations_file(layer, task), "a") as file:
                del file.attrs["sampled_by"]
                file.attrs["n_special"] = 1
        run.write_manifest(EXTRACT, task, {})
    return run


def test_a_finished_run_is_still_done_and_nothing_is_computed(old_run):
    assert [old_run.state(EXTRACT, task).status for task in range(3)] == ["done"] * 3
    assert [execute(old_run, EXTRACT, task) for task in range(3)] == [False] * 3


def stored_rows_of(run, task):
    """(item, token) of each stored row, from the model's tokens; the layers' rows must be these."""
    tokens = read_tokens(run.tokens_file(task))
    return list(zip(tokens.item.tolist(), tokens.token.tolist(), strict=True))


@pytest.mark.parametrize("lost", ["tokens", "layer"])
def test_what_is_made_again_has_the_rows_of_what_stays(old_run, lost):
    """Of a shard that an earlier version finished, one file is lost: drawn by position, its rows would be other tokens."""
    path = old_run.tokens_file(1) if lost == "tokens" else old_run.activations_file(1, 1)
    before = stored_rows_of(old_run, 1)
    with open_activations(old_run.activations_file(1, 1)) as file:
        rows = file.rows(0, file.n_rows)
    path.unlink()
    assert execute(old_run, EXTRACT, 1)
    assert stored_rows_of(old_run, 1) == before
    with open_activations(old_run.activations_file(1, 1)) as file:
        np.testing.assert_array_equal(file.rows(0, file.n_rows), rows)
        assert file.header.sampled_by == "token"
    assert read_tokens(old_run.tokens_file(1)).sampled_by == "token"


def test_items_of_old_and_new_shards_have_the_tokens_that_are_stored(old_run):
    """One shard is made by today's version: `tokenised_items` gives of each shard's items what its files hold."""
    for path in (old_run.tokens_file(2), *(old_run.activations_file(layer, 2) for layer in old_run.layers)):
        path.unlink()
    execute(old_run, EXTRACT, 2)
    assert [read_tokens(old_run.tokens_file(task)).sampled_by for task in range(3)] == ["token", "token", "position"]
    everything = tokenised_items(old_run, load_model(old_run.config.model), np.arange(old_run.n_cells))
    tokens, kept = everything.tokens, everything.kept
    found = list(zip(tokens.item[kept].tolist(), tokens.token[kept].tolist(), strict=True))
    assert found == [row for task in range(3) for row in stored_rows_of(old_run, task)]
