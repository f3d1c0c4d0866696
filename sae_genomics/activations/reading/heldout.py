"""Held-out rows for evaluation, in the files' order: all of them, or a sample that is spread evenly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sae_genomics.activations.reading.rows import OpenFiles, RowSet, chosen_rows

if TYPE_CHECKING:
    from sae_genomics.run import Run

_SPREAD = 4  # a sample reads about this many times its own rows


def heldout_blocks(
    run: Run, layer: int, max_rows: int, block_rows: int, include_cls: bool | None = None
) -> Iterator[npt.NDArray[np.float32]]:
    """Finite rows of held-out cells: float32 [at most block_rows, d_model] arrays, at most `max_rows` rows in all.

    Where there are more, evenly spaced blocks of the files are read and evenly spaced rows of those taken; the choice
    depends on the files alone. include_cls: default sae.include_cls.
    Raises UserError when there are no held-out rows, DamagedArtifact naming file and rows.
    """
    return spread_blocks(heldout_rows(run, layer, include_cls), max_rows, block_rows)


def heldout_rows(run: Run, layer: int, include_cls: bool | None = None) -> RowSet:
    """The rows of held-out cells. Raises UserError when there are none."""
    return chosen_rows(run, layer, "heldout", run.config.sae.include_cls if include_cls is None else include_cls)


def spread_blocks(rows: RowSet, max_rows: int, block_rows: int) -> Iterator[npt.NDArray[np.float32]]:
    """The same of any chosen rows, of which there is at least one."""
    return (x for x, _ in _spread(rows, max_rows, block_rows, with_units=False))


def spread_units(
    rows: RowSet, max_rows: int, block_rows: int
) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]]:
    """The same rows, and the unit (vocabulary id) of each: int32 [n]."""
    return _spread(rows, max_rows, block_rows, with_units=True)


def _spread(
    rows: RowSet, max_rows: int, block_rows: int, with_units: bool
) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]]:
    n_blocks = len(rows.block_rows)
    wanted = min(n_blocks, int(np.ceil(_SPREAD * max_rows * n_blocks / rows.n_rows)))
    blocks = np.arange(wanted) * n_blocks // wanted
    before = np.concatenate([[0], np.cumsum(rows.block_rows[blocks])])
    total = int(before[-1])
    taken = np.arange(min(total, max_rows)) * total // min(total, max_rows)
    out = np.empty((min(block_rows, len(taken)), rows.d_model), dtype=np.float32)
    units = np.full(len(out), -1, dtype=np.int32)
    filled = 0
    with OpenFiles(rows, most_open=1) as files:  # read once, in their order
        for block, first, last in zip(blocks, before[:-1], before[1:], strict=True):
            chosen = taken[np.searchsorted(taken, first) : np.searchsorted(taken, last)] - first
            number, start, stop = (
                int(column[block]) for column in (rows.block_shard, rows.block_start, rows.block_stop)
            )
            places = np.flatnonzero(rows.shards[number].mask(start, stop))[chosen]
            found = files.open(number).rows(start, stop)[places]
            genes = files.tokens(number, start, stop)[places] if with_units else np.full(len(found), -1, np.int32)
            while len(found):
                n = min(len(out) - filled, len(found))
                out[filled : filled + n], units[filled : filled + n] = found[:n], genes[:n]
                filled, found, genes = filled + n, found[n:], genes[n:]
                if filled == len(out):
                    yield out, units
                    out, units, filled = np.empty_like(out), np.empty_like(units), 0
    if filled:
        yield out[:filled], units[:filled]
