"""Which stored rows a computation uses: of training or held-out items, usual tokens or `<cls>` too, always finite ones."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from sae_genomics.activations.format.hdf5 import CHUNK_BYTES
from sae_genomics.activations.format.store import ActivationFile, open_activations
from sae_genomics.activations.format.token_store import TokenIds, read_item_ptr, read_special_rows
from sae_genomics.errors import DamagedArtifact, UserError

if TYPE_CHECKING:
    from sae_genomics.run import Run

Cells = Literal["train", "heldout", "all"]
_MOST_OPEN = 64
_MOST_TOKENS_OPEN = 2  # they are read in the files' order


@dataclass(frozen=True)
class ShardRows:
    """The chosen rows of one shard's file.

    path: activations file. item_ptr: int64 [items + 1]. item_chosen: bool [items].
    left_out: int64, ascending, rows that are not used whatever their item, as `unused_rows` gives them.
    chunk_rows: rows of an HDF5 chunk.
    tokens: tokens file of the same rows, which says what token each is; None where nobody asks.
    """

    path: Path
    item_ptr: npt.NDArray[np.int64]
    item_chosen: npt.NDArray[np.bool_]
    left_out: npt.NDArray[np.int64]
    chunk_rows: int
    tokens: Path | None = None

    @property
    def n_rows(self) -> int:
        """Stored rows, chosen or not."""
        return int(self.item_ptr[-1])

    def mask(self, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """bool [stop - start]: which of the rows start to stop are chosen."""
        first = int(np.searchsorted(self.item_ptr, start, side="right")) - 1
        last = int(np.searchsorted(self.item_ptr, stop, side="left"))
        ends = np.clip(self.item_ptr[first : last + 1], start, stop)
        mask = np.repeat(self.item_chosen[first:last], np.diff(ends))
        here = slice(*np.searchsorted(self.left_out, (start, stop)))
        mask[self.left_out[here] - start] = False
        return mask


def unused_rows(
    item_ptr: npt.NDArray[np.int64],
    special: npt.NDArray[np.int64],
    nonfinite: npt.NDArray[np.int64],
    include_cls: bool,
) -> npt.NDArray[np.int64]:
    """int64, ascending: rows that are not finite, and those of special tokens.

    special: int64, ascending. include_cls: a special token that is the first row of its item is used; others never are.
    """
    if include_cls:
        first = item_ptr[:-1]
        at = np.minimum(np.searchsorted(first, special), max(len(first) - 1, 0))
        special = special[first[at] != special] if len(special) else special
    return np.union1d(special, nonfinite)


class RowSet:
    """The chosen rows of all shards of a layer, cut into blocks that are read at once.

    shards: one entry a file. d_model: numbers a row. dtype: on disk.
    block_shard, block_start, block_stop: int64 [blocks], where each block of rows is; block_rows: int64 [blocks], how many
    of its rows are chosen. Blocks without any are not listed. Blocks are whole chunks, of about 1 MiB.
    """

    def __init__(self, shards: list[ShardRows], d_model: int, dtype: str, row_bytes: int):
        self.shards, self.d_model, self.dtype, self.row_bytes = shards, d_model, dtype, row_bytes
        found = [_blocks(number, shard, row_bytes) for number, shard in enumerate(shards)]
        blocks = np.concatenate([np.empty((0, 4), dtype=np.int64), *found])
        blocks = blocks[blocks[:, 3] > 0]
        self.block_shard, self.block_start, self.block_stop, self.block_rows = blocks.T
        self.n_rows = int(self.block_rows.sum())

    @property
    def n_bytes(self) -> int:
        """Bytes of the chosen rows as stored."""
        return self.n_rows * self.row_bytes


def _blocks(number: int, shard: ShardRows, row_bytes: int) -> npt.NDArray[np.int64]:
    """int64 [blocks, 4]: shard, start, stop, chosen rows."""
    if not shard.n_rows:
        return np.empty((0, 4), dtype=np.int64)
    chunks = max(round(CHUNK_BYTES / (shard.chunk_rows * row_bytes)), 1)
    starts = np.arange(0, shard.n_rows, chunks * shard.chunk_rows)
    stops = np.append(starts[1:], shard.n_rows)
    chosen = np.add.reduceat(shard.mask(0, shard.n_rows), starts, dtype=np.int64)
    return np.stack([np.full(len(starts), number), starts, stops, chosen], axis=1)


class OpenFiles:
    """The files of a RowSet for reading, at most `most_open` of them open at once."""

    def __init__(self, rows: RowSet, most_open: int = _MOST_OPEN):
        self._most_open = most_open
        self._shards = rows.shards
        self._open: OrderedDict[int, ActivationFile] = OrderedDict()
        self._tokens: OrderedDict[int, TokenIds] = OrderedDict()

    def open(self, shard: int) -> ActivationFile:
        """The file of a shard, by its place in `rows.shards`. Raises DamagedArtifact."""
        if shard not in self._open:
            if len(self._open) >= self._most_open:
                self._open.popitem(last=False)[1].close()
            self._open[shard] = open_activations(self._shards[shard].path)
        self._open.move_to_end(shard)
        return self._open[shard]

    def tokens(self, shard: int, start: int, stop: int) -> npt.NDArray[np.int32]:
        """int32 [stop - start], vocabulary ids of rows start to stop of a shard. Raises DamagedArtifact."""
        if shard not in self._tokens:
            if len(self._tokens) >= _MOST_TOKENS_OPEN:
                self._tokens.popitem(last=False)[1].close()
            path = self._shards[shard].tokens
            assert path is not None, "these rows were chosen without their tokens files"
            self._tokens[shard] = TokenIds(path)
        self._tokens.move_to_end(shard)
        return self._tokens[shard].rows(start, stop)

    def __enter__(self) -> OpenFiles:
        return self

    def __exit__(self, *exception: object) -> None:
        for files in (self._open, self._tokens):
            while files:
                files.popitem()[1].close()


def chosen_rows(run: Run, layer: int, cells: Cells, include_cls: bool = False) -> RowSet:
    """The rows of a layer that belong to training cells, held-out cells, or all.

    Raises UserError when there are none, DamagedArtifact when a file cannot be read or files do not fit together.
    """
    heldout = read_heldout(run)
    shards = []
    d_model, dtype, row_bytes = 0, "", 0
    for number in range(run.n_shards):
        first, last = run.shard_items(number)
        part = heldout[first:last]
        path = run.activations_file(layer, number)
        item_ptr = read_item_ptr(run.tokens_file(number))
        special = read_special_rows(run.tokens_file(number))
        with open_activations(path) as file:
            if len(item_ptr) != len(part) + 1 or int(item_ptr[-1]) != file.n_rows:
                raise DamagedArtifact(f"{path} and {run.tokens_file(number)} are not of the same cells", path)
            d_model, dtype, row_bytes = file.d_model, file.dtype, file.row_bytes
            chosen = {"train": ~part, "heldout": part, "all": np.ones_like(part)}[cells]
            left_out = unused_rows(item_ptr, special, file.nonfinite_rows, include_cls)
            shards.append(ShardRows(path, item_ptr, chosen, left_out, file.chunk_rows, run.tokens_file(number)))
    rows = RowSet(shards, d_model, dtype, row_bytes)
    if not rows.n_rows:
        raise UserError(_nothing(run, layer, cells, heldout))
    return rows


def read_heldout(run: Run) -> npt.NDArray[np.bool_]:
    """bool [cells], in the order of cells.parquet: no SAE is trained on these."""
    heldout: npt.NDArray[np.bool_] = run.kind.read_items(run, ["heldout"])["heldout"].to_numpy(dtype=bool)
    return heldout


def _nothing(run: Run, layer: int, cells: Cells, heldout: npt.NDArray[np.bool_]) -> str:
    n_items = {"train": int((~heldout).sum()), "heldout": int(heldout.sum()), "all": len(heldout)}[cells]
    what = {"train": "training", "heldout": "held-out", "all": ""}[cells]
    nouns = run.kind.nouns
    if not n_items:
        return (
            f"run {run.name}: there are no {what} {nouns.items} among the {len(heldout):,} used; "
            f"change data.heldout_fraction (now {run.config.data.heldout_fraction:g}) or use more {nouns.items}"
        )
    return (
        f"run {run.name}, layer {layer}: the {n_items:,} {what} {nouns.items} have no {nouns.token} with finite activations; "
        f"check that {nouns.units} match the model's vocabulary and that the {nouns.items} are not empty"
    )
