"""Every layer's features on the same tokens: drawn and encoded once, for all that compares layers."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from sae_genomics.activations.format.store import open_activations
from sae_genomics.activations.format.token_store import TokenShard, read_tokens
from sae_genomics.associations.stream import tokens_of
from sae_genomics.data.units import Units
from sae_genomics.progress import stop_point
from sae_genomics.run import Run
from sae_genomics.sae.files import SECOND_SEED
from sae_genomics.sae.load import Encoder, load_encoder
from sae_genomics.sae.loss_recovered import evenly

Int64 = npt.NDArray[np.int64]
Read = Callable[[int, int], npt.NDArray[np.float32]]
_AT_ONCE = 16_384  # rows that are encoded together


class SparseRows(NamedTuple):
    """Activations above zero, row by row: those of token t are indptr[t] to indptr[t + 1].

    indptr: int64 [T + 1]. feature: int32 [n], ascending within a token. value: float32 [n].
    """

    indptr: Int64
    feature: npt.NDArray[np.int32]
    value: npt.NDArray[np.float32]


class ShardSample(NamedTuple):
    """Tokens of one shard. row: int64 [n], ascending rows of the shard's files. unit: int32 [n]. token: int32 [n], vocabulary id.
    item: int64 [n], row of `read_items`."""

    shard: int
    row: Int64
    unit: npt.NDArray[np.int32]
    token: npt.NDArray[np.int32]
    item: Int64


@dataclass(frozen=True)
class LayerActivations:
    """The features of every layer on the same tokens of the same items.

    unit: int32 [T], row in units.parquet; every token has one. item: int64 [T], row of `read_items`, ascending. layers: layer -> its
    features on these tokens. d_sae: layer -> number of its features. n_units: of the run. heldout: whether the items are held out; all
    items are drawn from where none is.
    second: layer -> the same of the SAE of a second seed, where one is kept (`sae.stability`). samples: where these tokens are in the run's files.
    """

    unit: npt.NDArray[np.int32]
    item: Int64
    layers: Mapping[int, SparseRows]
    d_sae: Mapping[int, int]
    n_units: int
    heldout: bool = True
    second: Mapping[int, SparseRows] = field(default_factory=dict)
    samples: tuple[ShardSample, ...] = ()

    def __len__(self) -> int:
        return len(self.unit)


def sample_tokens(
    run: Run, units: Units, items: npt.NDArray[np.bool_], n_items: int, n_tokens: int
) -> list[ShardSample]:
    """About n_tokens tokens of at most n_items items, shard by shard: items at even distances, tokens of an item by lot.

    items: bool [items of the run], those to draw from. A token counts when it has a unit and is finite in every layer. An item gives the
    same number of tokens as every other, or all that it has. The lot depends on run.seed and the item alone.
    """
    chosen = np.flatnonzero(items)
    chosen = chosen[evenly(len(chosen), n_items)]
    quota = -(-n_tokens // max(len(chosen), 1))
    lookup = units.lookup()
    samples = []
    for shard in np.unique(chosen // run.config.activations.cells_per_shard).tolist():
        stop_point()
        first, stop = run.shard_items(shard)
        tokens = read_tokens(run.tokens_file(shard))
        unit = tokens.units(lookup)
        for layer in run.layers:
            with open_activations(run.activations_file(layer, shard)) as file:
                unit[file.nonfinite_rows] = -1
        mine = chosen[(chosen >= first) & (chosen < stop)]
        row = _drawn(run.config.run.seed, tokens, unit >= 0, mine - first, first, quota)
        of_row = np.searchsorted(tokens.item_ptr, row, side="right") - 1 + first
        samples.append(ShardSample(shard, row, unit[row], tokens_of(units, unit[row]), of_row))
    return samples


def _drawn(seed: int, tokens: TokenShard, usable: npt.NDArray[np.bool_], items: Int64, first: int, quota: int) -> Int64:
    """Rows of some items of a shard, ascending."""
    rows = [np.empty(0, dtype=np.int64)]
    for item in items.tolist():
        start, stop = int(tokens.item_ptr[item]), int(tokens.item_ptr[item + 1])
        mine = start + np.flatnonzero(usable[start:stop])
        if len(mine) > quota:
            rng = np.random.default_rng([seed, zlib.crc32(b"cross_layer.tokens"), first + item])
            mine = np.sort(rng.choice(mine, quota, replace=False))
        rows.append(mine)
    return np.concatenate(rows)


def encode_sample(run: Run, layer: int, encoder: Encoder, samples: list[ShardSample]) -> SparseRows:
    """A layer's features on the sampled tokens."""
    return _encoded(encoder, sample_inputs(run, layer, encoder, samples))


def encode_blocks(encoder: Encoder, read: Read, row: Int64, token: npt.NDArray[np.int32]) -> SparseRows:
    """Features of some rows of one file. read: gives its rows from a first to a last one. row: int64 [n], ascending. token: int32 [n]."""
    return _encoded(encoder, _inputs(encoder, read, row, token))


def _encoded(encoder: Encoder, blocks: Iterable[npt.NDArray[np.float32]]) -> SparseRows:
    counts, features, values = [np.zeros(1, dtype=np.int64)], [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    for x in blocks:
        token, feature, value = encoder.encode_sparse(x)
        counts.append(np.bincount(token, minlength=len(x)))
        features.append(feature)
        values.append(value)
    return SparseRows(np.cumsum(np.concatenate(counts)), np.concatenate(features), np.concatenate(values))


def sample_inputs(
    run: Run, layer: int, encoder: Encoder, samples: list[ShardSample]
) -> Iterator[npt.NDArray[np.float32]]:
    """What the encoder reads of the sampled tokens, in order, block by block: float32 [n, d_in]."""
    for sample in samples:
        with open_activations(run.activations_file(layer, sample.shard)) as file:
            yield from _inputs(encoder, file.rows, sample.row, sample.token)


def _inputs(
    encoder: Encoder, read: Read, row: Int64, token: npt.NDArray[np.int32]
) -> Iterator[npt.NDArray[np.float32]]:
    for start in range(0, len(row), _AT_ONCE):
        stop_point()
        part = slice(start, start + _AT_ONCE)
        yield encoder.input(_rows(read, row[part]), token[part])


def _rows(read: Read, wanted: Int64, gap: int = 512) -> npt.NDArray[np.float32]:
    """Some ascending rows of a file. What lies between them is read too, unless it is longer than `gap`."""
    cuts = np.flatnonzero(np.diff(wanted) > gap) + 1
    runs = np.split(wanted, cuts)
    return np.concatenate([read(int(rows[0]), int(rows[-1]) + 1)[rows - rows[0]] for rows in runs])


def sample_layers(run: Run, device: torch.device, advance: Callable[[float], None]) -> LayerActivations:
    """The features of all layers of a run on the tokens that its settings ask for. One layer's SAEs are in memory at a time.

    advance: told of each layer that is done. Raises DamagedArtifact when a file cannot be read.
    """
    settings = run.config.cross_layer
    units = run.kind.read_units(run)
    held = run.kind.read_items(run, ["heldout"])["heldout"].to_numpy(bool)
    heldout = bool(held.any())
    wanted = held if heldout else np.ones_like(held)
    samples = sample_tokens(run, units, wanted, settings.items, settings.tokens)
    layers, second, d_sae = {}, {}, {}
    for layer in run.layers:
        encoder, other = load_both(run, layer, device)
        layers[layer], d_sae[layer] = encode_sample(run, layer, encoder, samples), encoder.d_sae
        if other is not None:
            second[layer] = encode_sample(run, layer, other, samples)
        advance(1)
    unit = np.concatenate([np.empty(0, np.int32), *(sample.unit for sample in samples)])
    item = np.concatenate([np.empty(0, np.int64), *(sample.item for sample in samples)])
    return LayerActivations(unit, item, layers, d_sae, len(units), heldout, second, tuple(samples))


def load_both(run: Run, layer: int, device: torch.device) -> tuple[Encoder, Encoder | None]:
    """The layer's encoder, and that of the second seed; None where none is kept."""
    folder = run.sae_dir(layer)
    other = folder / SECOND_SEED
    return load_encoder(folder, device), load_encoder(other, device) if run.config.sae.second_seed else None
