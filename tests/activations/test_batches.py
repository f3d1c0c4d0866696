"""Training batches and held-out rows: which rows come, how often, in what order."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.activations.format.store import open_activations
from sae_genomics.activations.reading.batches import ShuffledBatches
from sae_genomics.activations.reading.heldout import spread_blocks
from sae_genomics.activations.reading.rows import RowSet, ShardRows, unused_rows
from sae_genomics.errors import DamagedArtifact
from tests.activations.test_store import ROOT, write

D_MODEL = 3


def row_set(
    folder, shards, include_cls=False, n_special=1, dtype=torch.float32, n_blocks=4
) -> tuple[RowSet, list[int]]:
    """Files whose row r of shard s holds the number s * 1000 + r, and the numbers that are to be chosen.

    shards: for each, (lengths, chosen cells, non-finite rows).
    """
    parts, wanted = [], []
    for number, (lengths, chosen, bad) in enumerate(shards):
        cell_ptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        n_rows = int(cell_ptr[-1])
        bad = sorted({row % n_rows for row in bad})
        x = torch.arange(n_rows)[:, None] + 1000.0 * number + torch.tensor([0, 0.25, 0.5])
        x[bad] = float("nan")
        path = folder / f"shard_{number}.h5"
        write(path, x.to(dtype), nonfinite=bad)
        special = np.flatnonzero(np.arange(n_rows) - np.repeat(cell_ptr[:-1], lengths) < n_special)
        with open_activations(path) as file:
            left_out = unused_rows(cell_ptr, special, file.nonfinite_rows, include_cls)
            parts.append(ShardRows(path, cell_ptr, np.array(chosen), left_out, chunk_rows=max(n_rows // n_blocks, 1)))
        for cell, length in enumerate(lengths):
            for place in range(length):
                row = cell_ptr[cell] + place
                if chosen[cell] and (place >= n_special or (include_cls and place == 0)) and row not in bad:
                    wanted.append(int(row + 1000 * number))
    row_bytes = 1 << 20  # blocks of one chunk
    return RowSet(parts, D_MODEL, str(dtype).removeprefix("torch."), row_bytes), wanted


def numbers(batch) -> list[int]:
    batch = np.asarray(batch)
    np.testing.assert_array_equal(batch - batch[:, :1], np.tile([0, 0.25, 0.5], (len(batch), 1)))
    return batch[:, 0].astype(int).tolist()


SHARDS = st.lists(
    st.integers(1, 6).flatmap(
        lambda cells: st.tuples(
            st.lists(st.integers(1, 12), min_size=cells, max_size=cells),
            st.lists(st.booleans(), min_size=cells, max_size=cells),
            st.lists(st.integers(0, 100), max_size=3),
        )
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(
    shards=SHARDS,
    include_cls=st.booleans(),
    batch_rows=st.integers(1, 20),
    group_rows=st.sampled_from([None, 1, 5, 40]),
    seed=st.integers(0, 3),
    stop_after=st.integers(0, 30),
    n_blocks=st.integers(1, 9),
)
def test_every_chosen_row_once_an_epoch_and_resuming_changes_nothing(
    tmp_path_factory, shards, include_cls, batch_rows, group_rows, seed, stop_after, n_blocks
):
    rows, wanted = row_set(tmp_path_factory.mktemp("rows"), shards, include_cls, n_blocks=n_blocks)
    assert rows.n_rows == len(wanted)
    if not wanted:
        return
    memory = rows.n_bytes if group_rows is None else 2 * group_rows * rows.row_bytes
    with ShuffledBatches(rows, batch_rows, seed, memory_bytes=memory, prefetch=3) as batches:
        assert batches.in_memory == (memory >= rows.n_bytes)
        stream = []
        states = []
        while len(stream) < 3 * len(wanted):
            states.append(json.loads(json.dumps(batches.state())))
            batch = next(batches)
            assert batch.shape == (batch_rows, D_MODEL)
            assert batch.dtype == torch.float32
            stream += numbers(batch)
    for epoch in range(3):
        assert sorted(stream[epoch * len(wanted) : (epoch + 1) * len(wanted)]) == wanted
    state = states[min(stop_after, len(states) - 1)]
    with ShuffledBatches(rows, batch_rows, seed, memory_bytes=memory, prefetch=1) as again:
        again.restore(state)
        rest = stream[state["position"] :]
        assert [number for _ in range(len(rest) // batch_rows) for number in numbers(next(again))] == rest


@pytest.mark.parametrize("memory_rows", [10_000, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_order_is_shuffled_anew_each_epoch_and_set_by_the_seed(tmp_path, memory_rows, dtype):
    shards = [([50] * 4, [True] * 4, [])] * 2
    rows, wanted = row_set(tmp_path, shards, dtype=torch.float32, n_blocks=20)

    def epoch(batches):
        return [number for _ in range(len(wanted) // 14) for number in numbers(next(batches))]

    def make(seed):
        return ShuffledBatches(rows, 14, seed, memory_bytes=memory_rows * rows.row_bytes)

    with make(0) as one, make(0) as same, make(1) as other:
        first = epoch(one)
        assert first == epoch(same) != epoch(other)
        assert epoch(one) != first
    # neighbours in the file do not come one after the other
    assert np.mean(np.abs(np.diff(first)) == 1) < 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_back_as_float32(tmp_path, dtype):
    rows, wanted = row_set(tmp_path, [([30], [True], [])], dtype=dtype)  # small numbers are exact in both
    with ShuffledBatches(rows, len(wanted), 0) as batches:
        assert sorted(numbers(next(batches))) == wanted


def test_drug_rows_are_never_chosen(tmp_path):
    shards = [([6, 4], [True, False], [])]
    assert row_set(tmp_path, shards, n_special=2)[1] == [2, 3, 4, 5]
    for include_cls, wanted in ((False, [2, 3, 4, 5]), (True, [0, 2, 3, 4, 5])):
        rows, expected = row_set(tmp_path, shards, n_special=2, include_cls=include_cls)
        assert expected == wanted
        np.testing.assert_array_equal(np.flatnonzero(rows.shards[0].mask(0, 10)), wanted)
        np.testing.assert_array_equal(
            np.flatnonzero(rows.shards[0].mask(1, 4)) + 1, [row for row in wanted if 1 <= row < 4]
        )


def test_a_state_of_other_rows_is_refused(tmp_path):
    rows, _ = row_set(tmp_path, [([30], [True], [])])
    with ShuffledBatches(rows, 4, 0) as batches:
        with pytest.raises(ValueError, match="seed 1"):
            batches.restore({**batches.state(), "seed": 1})
        with pytest.raises(ValueError, match="5 rows"):
            batches.restore({**batches.state(), "n_rows": 5})


def test_damage_reaches_the_caller_and_stays(tmp_path):
    rows, _ = row_set(tmp_path, [([30], [True], []), ([30], [True], [])])
    path = rows.shards[1].path
    with h5py.File(path) as file:
        place = file["activations"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[place.byte_offset + 8] ^= 1
    path.write_bytes(content)
    with ShuffledBatches(rows, 4, 0) as batches:
        for _ in range(2):
            with pytest.raises(DamagedArtifact, match="shard_1"):
                next(batches)


_NOT_CLOSED = """
import atexit, pickle, sys, threading
from sae_genomics.activations.reading.batches import ShuffledBatches

# this runs after what is registered later
atexit.register(lambda: print(sum(thread.name == "activation batches" for thread in threading.enumerate())))
batches = ShuffledBatches(pickle.load(open(sys.argv[1], "rb")), 4, 0)
next(batches)
"""


def test_batches_that_nobody_closed_end_with_the_interpreter(tmp_path):
    """A thread that the interpreter's end cuts off in compiled code brings it down."""
    rows, _ = row_set(tmp_path, [([30], [True], [])])
    (tmp_path / "rows").write_bytes(pickle.dumps(rows))
    command = [sys.executable, "-c", _NOT_CLOSED, str(tmp_path / "rows")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


@settings(max_examples=40, deadline=None)
@given(shards=SHARDS, max_rows=st.integers(1, 60), block_rows=st.integers(1, 30), n_blocks=st.integers(1, 9))
def test_heldout_rows_are_all_or_a_spread_sample(tmp_path_factory, shards, max_rows, block_rows, n_blocks):
    rows, wanted = row_set(tmp_path_factory.mktemp("rows"), shards, n_blocks=n_blocks)
    if not wanted:
        return
    found = list(spread_blocks(rows, max_rows, block_rows))
    assert all(len(block) == min(block_rows, max_rows, len(wanted)) for block in found[:-1])
    assert all(0 < len(block) <= block_rows for block in found)
    got = [number for block in found for number in numbers(block)]
    assert got == sorted(set(got))
    assert set(got) <= set(wanted)
    if max_rows >= len(wanted):
        assert got == wanted
    else:
        assert min(max_rows, 0.5 * len(wanted)) <= len(got) <= max_rows


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 8), min_size=1, max_size=8),
    include_cls=st.booleans(),
    seed=st.integers(0, 99),
    cut=st.tuples(st.integers(0, 40), st.integers(0, 40)),
)
def test_special_tokens_are_left_out_wherever_they_stand(lengths, include_cls, seed, cut):
    """<cls> first, <eos> last, others between; with include_cls the first row of an item is used, and no other special one."""
    rng = np.random.default_rng(seed)
    item_ptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    n = int(item_ptr[-1])
    special, bad, chosen = rng.random(n) < 0.4, rng.random(n) < 0.2, rng.random(len(lengths)) < 0.7
    left_out = unused_rows(item_ptr, np.flatnonzero(special), np.flatnonzero(bad), include_cls)
    shard = ShardRows(Path("absent"), item_ptr, chosen, left_out, 1)
    item = np.repeat(np.arange(len(lengths)), lengths)
    is_first = np.arange(n) == item_ptr[item]
    wanted = chosen[item] & ~bad & (~special | (is_first & include_cls))
    start, stop = (min(edge, n) for edge in sorted(cut))
    np.testing.assert_array_equal(shard.mask(0, n), wanted)
    np.testing.assert_array_equal(shard.mask(start, stop), wanted[start:stop])
