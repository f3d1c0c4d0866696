"""A layer's activations, whole cells at a time, with what each row is: the stage reads nothing else twice."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sae_genomics.activations.extraction.cutting import cut_windows
from sae_genomics.activations.format.store import ActivationFile, open_activations
from sae_genomics.activations.format.token_store import TokenShard, read_tokens
from sae_genomics.associations.triples import TokenBlock
from sae_genomics.data.units import Units
from sae_genomics.run import Run
from sae_genomics.sae.load import Encoder

Item = TypeVar("Item")


def tokens_of(units: Units, unit: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The vocabulary id of each unit; -1 for -1."""
    if not len(units):
        return np.full(len(unit), -1, dtype=np.int32)
    return np.where(unit >= 0, units.token[unit], -1).astype(np.int32)


def layer_blocks(
    run: Run, layer: int, units: Units, heldout: npt.NDArray[np.bool_], batch_tokens: int
) -> Iterator[tuple[TokenBlock, npt.NDArray[np.float32]]]:
    """Every stored row of a layer, in order, in blocks of whole cells.

    heldout: bool [cells of the run].
    batch_tokens: rows a block; a cell with more makes a block by itself.

    Yields the block and its activations, float32 [T, d_model]. Special tokens and rows that are not finite have unit
    -1 (and activations 0). The next block is read while the caller works on this one.
    Raises DamagedArtifact naming the file.
    """
    return _ahead(_blocks(run, layer, units.lookup(), heldout, batch_tokens))


def _blocks(
    run: Run, layer: int, lookup: npt.NDArray[np.int32], heldout: npt.NDArray[np.bool_], batch_tokens: int
) -> Iterator[tuple[TokenBlock, npt.NDArray[np.float32]]]:
    for shard in range(run.n_shards):
        start, stop = run.shard_items(shard)
        tokens = read_tokens(run.tokens_file(shard))
        with open_activations(run.activations_file(layer, shard)) as file:
            yield from file_blocks(file, tokens, lookup, heldout[start:stop], start, batch_tokens)


def file_blocks(
    file: ActivationFile,
    tokens: TokenShard,
    lookup: npt.NDArray[np.int32],
    heldout: npt.NDArray[np.bool_],
    first_item: int,
    batch_tokens: int,
) -> Iterator[tuple[TokenBlock, npt.NDArray[np.float32]]]:
    """One file's rows, as `layer_blocks` gives those of all.

    lookup: of the units. heldout: bool [cells of the file]. first_item: what the file's first cell is counted as.
    """
    unit = tokens.units(lookup)
    unit[file.nonfinite_rows] = -1
    for window in cut_windows(np.diff(tokens.item_ptr), batch_tokens):
        start, stop = int(tokens.item_ptr[window.start]), int(tokens.item_ptr[window.stop])
        x = file.rows(start, stop)
        bad = file.nonfinite_rows[(file.nonfinite_rows >= start) & (file.nonfinite_rows < stop)]
        if len(bad):
            x[bad - start] = 0.0
        yield _block(tokens, unit, window, heldout, first_item), x


def token_blocks(run: Run, units: Units, heldout: npt.NDArray[np.bool_], batch_tokens: int) -> Iterator[TokenBlock]:
    """Every stored token, in the same order and blocks, without activations. Rows that are not finite are among them."""
    lookup = units.lookup()
    for shard in range(run.n_shards):
        first, stop = run.shard_items(shard)
        tokens = read_tokens(run.tokens_file(shard))
        unit = tokens.units(lookup)
        for window in cut_windows(np.diff(tokens.item_ptr), batch_tokens):
            yield _block(tokens, unit, window, heldout[first:stop], first)


def _block(
    tokens: TokenShard, unit: npt.NDArray[np.int32], items: slice, heldout: npt.NDArray[np.bool_], first_item: int
) -> TokenBlock:
    """Some whole items of a file. first_item: what the file's first item is counted as."""
    start, stop = int(tokens.item_ptr[items.start]), int(tokens.item_ptr[items.stop])
    item_ptr = tokens.item_ptr[items.start : items.stop + 1] - start
    return TokenBlock(
        unit[start:stop], tokens.weight[start:stop], item_ptr, heldout[items], first_item + items.start,
        tokens.position[start:stop],
    )  # fmt: skip


def _ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, the next one made in a thread while this one is in use."""
    with ThreadPoolExecutor(1, "read-ahead") as executor:
        coming = executor.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = executor.submit(next, items, None)
            yield item


def unit_token_counts(run: Run, units: Units) -> npt.NDArray[np.int64]:
    """Stored tokens of each gene: int64 [units]. Reads the tokens files alone."""
    lookup = units.lookup()
    counts = np.zeros(len(units), dtype=np.int64)
    for shard in range(run.n_shards):
        counts += unit_counts(read_tokens(run.tokens_file(shard)), lookup, len(units))
    return counts


def unit_counts(tokens: TokenShard, lookup: npt.NDArray[np.int32], n_units: int) -> npt.NDArray[np.int64]:
    """Gene tokens of each unit in one file: int64 [units]. lookup: of the units."""
    unit = tokens.units(lookup)
    return np.bincount(unit[unit >= 0], minlength=n_units)


def training_rows(
    run: Run, layer: int, heldout: npt.NDArray[np.bool_], n_rows: int, encoder: Encoder
) -> Iterator[npt.NDArray[np.float32]]:
    """About `n_rows` gene-token rows of training cells as the SAE reads them, spread evenly over the shards, whole cells at a time.

    Of each shard, cells at even distances; all of them when the layer has no more rows. Rows that are not finite are left out.
    Yields float32 [n, d_model].
    """
    per_shard = -(-n_rows // run.n_shards)
    for shard in range(run.n_shards):
        tokens = read_tokens(run.tokens_file(shard))
        start, stop = run.shard_items(shard)
        usable = ~tokens.special
        cells = np.flatnonzero(~heldout[start:stop])
        lengths = np.diff(tokens.item_ptr)[cells]
        stride = max(1, -(-int(lengths.sum()) // per_shard))
        with open_activations(run.activations_file(layer, shard)) as file:
            usable[file.nonfinite_rows] = False
            for cell in cells[::stride]:
                first, last = int(tokens.item_ptr[cell]), int(tokens.item_ptr[cell + 1])
                counted = usable[first:last]
                yield encoder.input(file.rows(first, last)[counted], tokens.token[first:last][counted])
