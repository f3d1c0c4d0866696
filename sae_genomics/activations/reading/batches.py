"""Training batches: rows of many files in an order set by the seed alone, every row once an epoch."""

from __future__ import annotations

import atexit
import queue
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle, islice, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from sae_genomics.activations.extraction.cutting import cut_windows
from sae_genomics.activations.format.dtypes import DISK_DTYPES, as_tensor
from sae_genomics.activations.reading.rows import OpenFiles, RowSet

# Rows that are mixed at once: enough that a batch holds rows of hundreds of cells, few enough that memory is the same
# for ten thousand cells and for a hundred million.
POOL_ROWS = 1 << 19
MEMORY_BYTES = 2 << 30  # and no more than that
_BLOCKS_AHEAD = 16
_PURPOSE = zlib.crc32(b"activations.batches")
Centre = Callable[[npt.NDArray[np.float32], npt.NDArray[np.int32]], None]


class ShuffledBatches:
    """Endless float32 [batch_rows, d_model] CPU tensors; a batch that an epoch's end cuts goes on with the next epoch.

    Rows that fit `memory_bytes` (default: those of POOL_ROWS rows, at most MEMORY_BYTES) are held in memory and permuted
    as a whole each epoch. More are read in groups of blocks: each epoch permutes the blocks of all files, takes as many
    as fill half of `memory_bytes` (the next group is read meanwhile), and permutes their rows. Which way is taken
    depends on the rows and on `memory_bytes`, never on the machine, so that a seed means the same batches everywhere.

    rows: what to draw from. seed: sets the order. prefetch: batches made ahead; makes no difference to what comes.
    pin_memory: allocate batches in page-locked memory, for asynchronous copies to CUDA.
    centre: changes each batch in place, given its rows and their units (vocabulary ids), such as `UnitMeans.subtract`.

    Not for use from several threads at once. Raises DamagedArtifact, from `next`, where a file cannot be read.
    """

    def __init__(
        self,
        rows: RowSet,
        batch_rows: int,
        seed: int,
        *,
        memory_bytes: int | None = None,
        prefetch: int = 4,
        pin_memory: bool = False,
        centre: Centre | None = None,
    ):
        self.rows, self.batch_rows, self.seed = rows, batch_rows, seed
        self.n_rows, self.d_model = rows.n_rows, rows.d_model
        if memory_bytes is None:
            memory_bytes = min(POOL_ROWS * rows.row_bytes, MEMORY_BYTES)
        self.in_memory = rows.n_bytes <= memory_bytes
        self._group_rows = rows.n_rows if self.in_memory else max(memory_bytes // 2 // rows.row_bytes, 1)
        self._prefetch, self._pin, self._centre = max(prefetch, 1), pin_memory, centre
        self._position = 0
        self._producer: _Producer | None = None

    @property
    def position(self) -> int:
        """Rows given out since the beginning."""
        return self._position

    @property
    def epoch(self) -> int:
        """Epoch of the next row, counted from 0."""
        return self._position // self.n_rows

    def state(self) -> dict[str, int]:
        """Where the batches given out so far end; JSON-able."""
        return {"position": self._position, "epoch": self.epoch, "n_rows": self.n_rows, "seed": self.seed}

    def restore(self, state: dict[str, int]) -> None:
        """Go on from a `state`: the batches that follow are those that followed there. Reads one group, no more.

        Raises ValueError when the state is of other rows or another seed.
        """
        mine = self.state()
        if (state["n_rows"], state["seed"]) != (mine["n_rows"], mine["seed"]):
            raise ValueError(f"the state is of {state['n_rows']} rows and seed {state['seed']}, not {mine}")
        self.close()
        self._position = int(state["position"])

    def __iter__(self) -> Iterator[torch.Tensor]:
        return self

    def __next__(self) -> torch.Tensor:
        if self._producer is None:
            self._producer = _Producer(self._batches(self._position), self._prefetch)
        batch = self._producer.take()
        self._position += len(batch)
        return batch

    def close(self) -> None:
        """Stop reading ahead. A later `next` starts again from the same place."""
        if self._producer is not None:
            self._producer.stop()
            self._producer = None

    def __enter__(self) -> ShuffledBatches:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # --- what follows runs in the reading thread ---

    def _batches(self, position: int) -> Iterator[torch.Tensor]:
        batch, filled = self._empty_batch(), 0
        for (stored, units), order in self._groups(position):
            taken = 0
            while taken < len(order):
                n = min(self.batch_rows - filled, len(order) - taken)
                part, chosen = batch[filled : filled + n], order[taken : taken + n]
                _gather(stored, chosen, self.rows.dtype, part)
                if self._centre is not None:
                    self._centre(part.numpy(), units[chosen])
                taken, filled = taken + n, filled + n
                if filled == self.batch_rows:
                    yield batch
                    batch, filled = self._empty_batch(), 0

    def _empty_batch(self) -> torch.Tensor:
        return torch.empty(self.batch_rows, self.d_model, dtype=torch.float32, pin_memory=self._pin)

    def _groups(self, position: int) -> Iterator[tuple[_Pool, npt.NDArray[np.int64]]]:
        """Each group's stored rows, and the order to take them in, from `position` on and without end."""
        plan = pairwise(self._plan(position))
        buffers = cycle([self._buffer()] if self.in_memory else [self._buffer(), self._buffer()])
        with OpenFiles(self.rows) as files, ThreadPoolExecutor(1, "activation reader") as reader:
            group, following = next(plan)
            reading: Future[_Pool] = reader.submit(self._read, files, group, following, next(buffers))
            while True:
                stored = reading.result()
                given, (group, following) = group, next(plan)
                if not self.in_memory:  # the other buffer's group is used up by now
                    reading = reader.submit(self._read, files, group, following, next(buffers))
                n_rows = len(stored.rows)
                yield stored, self._generator(given.epoch, given.number + 1).permutation(n_rows)[given.skip :]

    def _plan(self, position: int) -> Iterator[_Group]:
        """The groups of each epoch, from the one that holds `position` on."""
        epoch, skip = divmod(position, self.n_rows)
        while True:
            order = self._generator(epoch, 0).permutation(len(self.rows.block_rows))
            for number, cut in enumerate(cut_windows(self.rows.block_rows[order], self._group_rows)):
                blocks = np.sort(order[cut])  # read in the files' order
                n_rows = int(self.rows.block_rows[blocks].sum())
                if skip < n_rows:
                    yield _Group(epoch, number, blocks, skip)
                    skip = 0
                else:
                    skip -= n_rows
            epoch += 1

    def _generator(self, epoch: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self.seed, _PURPOSE, epoch, purpose]))

    def _buffer(self) -> _Pool:
        """Room for the largest group, kept from group to group: fresh memory costs as much as reading into it."""
        most = max(self._group_rows, int(self.rows.block_rows.max()))
        units = np.empty(most if self._centre is not None else 0, dtype=np.int32)
        return _Pool(np.empty((most, self.d_model), dtype=DISK_DTYPES[self.rows.dtype]), units)

    def _read(self, files: OpenFiles, group: _Group, following: _Group, buffer: _Pool) -> _Pool:
        """The chosen rows of a group, as stored; views of `buffer`. The disk goes on with the group that follows."""
        rows = self.rows
        columns = (rows.block_shard, rows.block_start, rows.block_stop, rows.block_rows)
        blocks = np.concatenate([group.blocks, following.blocks[:_BLOCKS_AHEAD]])
        places = list(zip(*(column[blocks].tolist() for column in columns), strict=True))
        coming = iter(places)

        def announce(n_blocks: int) -> None:
            for shard, start, stop, _ in islice(coming, n_blocks):
                files.open(shard).expect(start, stop)

        announce(_BLOCKS_AHEAD)
        whole = np.empty((max(stop - start for _, start, stop, _ in places), self.d_model), dtype=buffer.rows.dtype)
        at = 0
        for shard, start, stop, n in places[: len(group.blocks)]:
            announce(1)
            target = buffer.rows[at : at + n]
            if self._centre is not None:
                genes = files.tokens(shard, start, stop)
                buffer.units[at : at + n] = genes if n == stop - start else genes[rows.shards[shard].mask(start, stop)]
            if n == stop - start:
                files.open(shard).stored_rows(start, stop, out=target)
            else:
                chosen = np.flatnonzero(rows.shards[shard].mask(start, stop))
                stored = files.open(shard).stored_rows(start, stop, out=whole[: stop - start])
                np.take(stored, chosen, axis=0, out=target, mode="clip")
            at += n
        return _Pool(buffer.rows[:at], buffer.units[:at])


class _Pool(NamedTuple):
    """Rows as stored, and their units: int32 [rows], empty where nobody asks."""

    rows: npt.NDArray[Any]
    units: npt.NDArray[np.int32]


class _Group(NamedTuple):
    """epoch; number within it; blocks, ascending; rows of it that an earlier attempt gave out already."""

    epoch: int
    number: int
    blocks: npt.NDArray[np.int64]
    skip: int


def _gather(stored: npt.NDArray[Any], order: npt.NDArray[np.int64], dtype: str, out: torch.Tensor) -> None:
    """out[i] = stored[order[i]] as float32. By numpy, which leaves torch's threads to the training."""
    target = out.numpy()
    if dtype == "float32":
        np.take(stored, order, axis=0, out=target, mode="clip")
    elif dtype == "bfloat16":
        bits = target.view(np.uint32)
        bits[...] = np.take(stored, order, axis=0)
        np.left_shift(bits, 16, out=bits)
    else:
        out.copy_(as_tensor(np.take(stored, order, axis=0), dtype))


class _Producer:
    """Runs an iterator in a thread, a bounded number of items ahead."""

    def __init__(self, items: Iterator[torch.Tensor], ahead: int):
        self._items = items
        self._queue: queue.Queue[torch.Tensor | BaseException] = queue.Queue(ahead)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="activation batches", daemon=True)
        self._thread.start()
        atexit.register(self.stop)  # a thread that the interpreter's end cuts off in compiled code brings it down

    def take(self) -> torch.Tensor:
        item = self._queue.get()
        if isinstance(item, BaseException):
            self._queue.put(item)  # it stays so
            raise item
        return item

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        atexit.unregister(self.stop)

    def _work(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    break
        except BaseException as error:
            self._put(error)
        finally:
            self._items.close()  # type: ignore[attr-defined]

    def _put(self, item: torch.Tensor | BaseException) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
