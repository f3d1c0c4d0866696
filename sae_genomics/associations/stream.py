"""A layer's activations, whole cells at a time, with what each row is: the stage reads nothing else twice."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.activations.cutting import cut_windows
from sae_genomics.activations.store import ActivationFile, open_activations
from sae_genomics.activations.token_store import TokenShard, read_tokens
from sae_genomics.artifacts import CELLS, GENES
from sae_genomics.associations.triples import TokenBlock
from sae_genomics.run import Run
from sae_genomics.sae.load import Encoder

Item = TypeVar("Item")


@dataclass(frozen=True)
class Slots:
    """The distinct matched genes, ascending by token: arrays [slots].

    token: int32, vocabulary id; gene_id, gene_symbol: text; counts: float64, summed over columns of the same gene.
    """

    token: npt.NDArray[np.int32]
    gene_id: npt.NDArray[np.object_]
    gene_symbol: npt.NDArray[np.object_]
    counts: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.token)

    @staticmethod
    def of_genes(genes: pd.DataFrame) -> Slots:
        """From the rows of genes.parquet; of several columns with one gene, the first gives the names."""
        matched = genes[genes["slot"] >= 0].sort_values("slot", kind="stable")
        first = matched.drop_duplicates("slot")
        return Slots(
            first["token"].to_numpy(np.int32),
            first["gene_id"].to_numpy(object),
            first["gene_symbol"].to_numpy(object),
            matched.groupby("slot")["counts"].sum().to_numpy(np.float64),
        )

    def tokens_of(self, slot: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """The vocabulary id of each slot; -1 for -1."""
        if not len(self.token):
            return np.full(len(slot), -1, dtype=np.int32)
        return np.where(slot >= 0, self.token[slot], -1).astype(np.int32)

    def lookup(self) -> npt.NDArray[np.int32]:
        """int32 [largest token + 1], slot of each token; -1 for tokens that are no gene of this run."""
        table = np.full(int(self.token.max(initial=-1)) + 1, -1, dtype=np.int32)
        table[self.token] = np.arange(len(self.token))
        return table


def read_slots(run: Run) -> Slots:
    """The run's genes. Raises DamagedArtifact."""
    return Slots.of_genes(GENES.read(run.genes_file, ["token", "slot", "gene_id", "gene_symbol", "counts"]))


def read_cells(run: Run) -> pd.DataFrame:
    """What the stage needs of cells.parquet, row i = i-th cell in shard order. Raises DamagedArtifact."""
    return CELLS.read(run.cells_file, ["cell", "heldout", "cell_type", "group", "n_counts"])


def layer_blocks(
    run: Run, layer: int, slots: Slots, heldout: npt.NDArray[np.bool_], batch_tokens: int
) -> Iterator[tuple[TokenBlock, npt.NDArray[np.float32]]]:
    """Every stored row of a layer, in order, in blocks of whole cells.

    heldout: bool [cells of the run].
    batch_tokens: rows a block; a cell with more makes a block by itself.

    Yields the block and its activations, float32 [T, d_model]. Special tokens and rows that are not finite have slot
    -1 (and activations 0). The next block is read while the caller works on this one.
    Raises DamagedArtifact naming the file.
    """
    return _ahead(_blocks(run, layer, slots.lookup(), heldout, batch_tokens))


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
    first_cell: int,
    batch_tokens: int,
) -> Iterator[tuple[TokenBlock, npt.NDArray[np.float32]]]:
    """One file's rows, as `layer_blocks` gives those of all.

    lookup: of the slots. heldout: bool [cells of the file]. first_cell: what the file's first cell is counted as.
    """
    slot = tokens.units(lookup)
    slot[file.nonfinite_rows] = -1
    for window in cut_windows(np.diff(tokens.item_ptr), batch_tokens):
        start, stop = int(tokens.item_ptr[window.start]), int(tokens.item_ptr[window.stop])
        x = file.rows(start, stop)
        bad = file.nonfinite_rows[(file.nonfinite_rows >= start) & (file.nonfinite_rows < stop)]
        if len(bad):
            x[bad - start] = 0.0
        block = TokenBlock(
            slot[start:stop],
            tokens.weight[start:stop],
            tokens.item_ptr[window.start : window.stop + 1] - start,
            heldout[window],
            first_cell + window.start,
        )
        yield block, x


def _ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, the next one made in a thread while this one is in use."""
    with ThreadPoolExecutor(1, "read-ahead") as executor:
        coming = executor.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = executor.submit(next, items, None)
            yield item


def gene_token_counts(run: Run, slots: Slots) -> npt.NDArray[np.int64]:
    """Stored tokens of each gene: int64 [slots]. Reads the tokens files alone."""
    lookup = slots.lookup()
    counts = np.zeros(len(slots), dtype=np.int64)
    for shard in range(run.n_shards):
        counts += slot_counts(read_tokens(run.tokens_file(shard)), lookup, len(slots))
    return counts


def slot_counts(tokens: TokenShard, lookup: npt.NDArray[np.int32], n_slots: int) -> npt.NDArray[np.int64]:
    """Gene tokens of each slot in one file: int64 [slots]. lookup: of the slots."""
    slot = tokens.units(lookup)
    return np.bincount(slot[slot >= 0], minlength=n_slots)


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
                kept = usable[first:last]
                yield encoder.input(file.rows(first, last)[kept], tokens.token[first:last][kept])
