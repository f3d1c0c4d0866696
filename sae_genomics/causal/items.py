"""In which held-out items a feature is active, their tokens, and what features do at training tokens."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import numpy.typing as npt
import torch

from sae_genomics.activations.extraction.tokenised import tokenised_items
from sae_genomics.activations.format.store import open_activations
from sae_genomics.activations.format.token_store import read_tokens
from sae_genomics.causal.encoded import Encoded, encode
from sae_genomics.causal.statistics import FeatureStatistics, feature_statistics
from sae_genomics.errors import DamagedArtifact
from sae_genomics.progress import stop_point
from sae_genomics.sae.loss_recovered import evenly
from sae_genomics.tokens import Tokens, pointers

if TYPE_CHECKING:
    from sae_genomics.models import FoundationModel
    from sae_genomics.run import Run
    from sae_genomics.sae.load import Encoder

Int64 = npt.NDArray[np.int64]
_ENTRIES = 1 << 22  # of features.h5ad that are read at once
STATISTICS_TOKENS = 100_000


@dataclass(frozen=True)
class FiringItems:
    """For some features, items in which each is active, spread evenly over all such items."""

    features: Int64
    """[features], ascending"""
    n_firing: Int64
    """[features], items among those asked about in which the feature is active"""
    ptr: Int64
    """[features + 1]; those of features[i] are item[ptr[i]:ptr[i + 1]]"""
    item: Int64
    """[n], in the run's list of items, ascending per feature"""

    @property
    def items(self) -> Int64:
        """All of them, each once, ascending."""
        return np.unique(self.item)

    def of(self, feature: int) -> Int64:
        """The items of one feature; none for a feature that was not asked about."""
        at = int(np.searchsorted(self.features, feature))
        if at == len(self.features) or self.features[at] != feature:
            return np.zeros(0, np.int64)
        return self.item[self.ptr[at] : self.ptr[at + 1]]


def firing_items(
    path: Path, features: npt.NDArray[np.integer], n: int, among: npt.NDArray[np.bool_] | None = None
) -> FiringItems:
    """At most n items of each feature.

    path: features.h5ad of the layer; a feature is active in an item where its maximum there is above 0. among: bool [items of the
    run], those to choose from, such as held-out ones; None: all. Two passes over the file, whatever number of features; memory
    grows with features x n alone. Raises DamagedArtifact when the file cannot be read.
    """
    chosen = np.unique(np.asarray(features, np.int64))
    try:
        with h5py.File(path, "r") as file:
            matrix = _Matrix(file, chosen, among)
            n_firing = matrix.counts()
            wanted = np.minimum(n_firing, n)
            ptr = pointers(wanted)
            ranks = np.concatenate([np.zeros(0, np.int64), *(evenly(int(m), n) for m in n_firing.tolist())])
            item = matrix.ranked(np.repeat(np.arange(len(chosen)), wanted), ranks, n_firing)
    except FileNotFoundError:
        raise
    except (OSError, KeyError) as error:
        raise DamagedArtifact(f"{path} cannot be read: {error}", path) from None
    return FiringItems(chosen, n_firing, ptr, item)


class _Matrix:
    """The entries of features.h5ad that are about the chosen features and items, a part of the file at a time."""

    def __init__(self, file: h5py.File, chosen: Int64, among: npt.NDArray[np.bool_] | None):
        self.group = file["X"]
        self.indptr = self.group["indptr"][:].astype(np.int64)
        self.n = len(chosen)
        self.among = np.ones(len(self.indptr) - 1, bool) if among is None else among
        n_features = int(self.group.attrs["shape"][1])
        self.number = np.full(n_features, -1, np.int64)  # of each feature, among the chosen ones
        self.number[chosen] = np.arange(len(chosen))

    def parts(self) -> list[tuple[int, int]]:
        """Items first to last of each part."""
        cuts = [0]
        while cuts[-1] < len(self.indptr) - 1:
            most = int(np.searchsorted(self.indptr, self.indptr[cuts[-1]] + _ENTRIES, side="right")) - 1
            cuts.append(max(most, cuts[-1] + 1))
        return list(pairwise(cuts))

    def part(self, first: int, last: int) -> tuple[Int64, Int64]:
        """Items, and numbers of their features, of one part: items ascending."""
        stop_point()
        rows = slice(int(self.indptr[first]), int(self.indptr[last]))
        number = self.number[self.group["indices"][rows]]
        item = np.repeat(np.arange(first, last), np.diff(self.indptr[first : last + 1]))
        keep = (number >= 0) & self.among[item] & (self.group["data"][rows] > 0)
        return item[keep], number[keep]

    def counts(self) -> Int64:
        counts = np.zeros(self.n, np.int64)
        for first, last in self.parts():
            counts += np.bincount(self.part(first, last)[1], minlength=self.n)
        return counts

    def ranked(self, number: Int64, rank: Int64, n_firing: Int64) -> Int64:
        """The item of each (number, rank), which ascend: a feature's rank-th item, counted from 0."""
        starts = pointers(n_firing)[:-1]
        wanted = starts[number] + rank
        found = np.zeros(len(wanted), np.int64)
        seen = np.zeros(self.n, np.int64)
        for first, last in self.parts():
            item, of = self.part(first, last)
            order = np.argsort(of, kind="stable")
            item, of = item[order], of[order]
            counts = np.bincount(of, minlength=self.n)
            key = starts[of] + seen[of] + np.arange(len(of)) - pointers(counts)[:-1][of]
            at = np.searchsorted(key, wanted)
            here = np.append(key, -1)[at] == wanted
            found[here] = item[at[here]]
            seen += counts
        return found


def load_items(run: Run, model: FoundationModel, rows: npt.ArrayLike) -> Tokens:
    """Tokens of some items, as the model reads them. rows: in the run's list of items; each is loaded once, in ascending order.

    Only the shards that hold them are read, and of these only their rows. Long items come as several windows.
    Raises ValueError when none is asked for.
    """
    wanted = np.unique(np.asarray(rows, np.int64))
    parts = []
    for shard in np.unique(wanted // run.config.activations.cells_per_shard).tolist():
        stop_point()
        start, stop = run.shard_items(shard)
        parts.append(tokenised_items(run, model, wanted[(wanted >= start) & (wanted < stop)]).tokens)
    if not parts:
        raise ValueError("no item is asked for")
    return Tokens.concatenate(parts)


def training_statistics(
    run: Run,
    layer: int,
    encoder: Encoder,
    heldout: npt.NDArray[np.bool_],
    n_tokens: int = STATISTICS_TOKENS,
) -> FeatureStatistics:
    """What features do at about n_tokens stored tokens of training items, which are spread evenly over each shard.

    heldout: bool [items of the run]. Where every item is held out, those are taken. Rows that are not finite are left out.
    """
    usable = heldout if heldout.all() else ~heldout
    parts: list[Encoded] = []
    for shard in range(run.n_shards):
        stop_point()
        start, stop = run.shard_items(shard)
        tokens = read_tokens(run.tokens_file(shard))
        items = np.flatnonzero(usable[start:stop])
        lengths = np.diff(tokens.item_ptr)[items]
        share = max(1, -(-n_tokens // run.n_shards))
        items = items[evenly(len(items), max(1, int(len(items) * share / max(int(lengths.sum()), 1))))]
        with open_activations(run.activations_file(layer, shard)) as file:
            bad = np.zeros(len(tokens.token), bool)
            bad[file.nonfinite_rows] = True
            for item in items.tolist():
                first, last = int(tokens.item_ptr[item]), int(tokens.item_ptr[item + 1])
                usual = ~tokens.special[first:last] & ~bad[first:last]
                if usual.any():
                    x = np.nan_to_num(file.rows(first, last)) if bad[first:last].any() else file.rows(first, last)
                    parts.append(encode(encoder, torch.from_numpy(x), tokens.token[first:last], usual=usual))
    return feature_statistics(parts, encoder.d_sae)
