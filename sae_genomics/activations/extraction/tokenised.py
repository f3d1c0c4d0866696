"""A shard's items as tokens: what the model reads of it, and what is stored of that."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sae_genomics.activations.extraction.sampling import stored_rows
from sae_genomics.activations.format.hdf5 import stored_attribute
from sae_genomics.activations.format.token_store import TokenShard
from sae_genomics.tokens import Tokens

if TYPE_CHECKING:
    from sae_genomics.items import Items
    from sae_genomics.models import FoundationModel
    from sae_genomics.run import Run

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TokenisedShard:
    """What the model reads of some items, and what is stored of it."""

    tokens: Tokens
    """All that the model sees; its sequences may be windows of one item."""
    kept: Int64
    """[stored], rows of `tokens` that are stored, ascending."""
    items: Int64
    """[items], the items' rows in the input, ascending, also of items of which nothing is stored."""
    sampled_by: str = "position"
    """As in TokenShard."""

    @property
    def content(self) -> str:
        """Hash of what the model reads and what is stored of it."""
        digest = hashlib.blake2b(digest_size=16)
        tokens = self.tokens
        further = [tokens.per_token[name] for name in sorted(tokens.per_token)]
        of_sequences = [tokens.per_item[name] for name in sorted(tokens.per_item)]
        for array in (tokens.item, tokens.token, *further, tokens.item_ptr, *of_sequences, self.kept):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @property
    def stored_ptr(self) -> Int64:
        """int64 [sequences + 1], where each sequence's stored rows begin."""
        return np.searchsorted(self.kept, self.tokens.item_ptr)

    @property
    def stored_item_ptr(self) -> Int64:
        """int64 [items + 1], where each item's stored rows begin: those of its windows stand one after the other."""
        first = np.append(np.searchsorted(self.tokens.item, self.items), len(self.tokens))
        return np.searchsorted(self.kept, first)

    def stored(self, run: Run, fingerprint: str, shard: int) -> TokenShard:
        """The content of the tokens file."""
        tokens, kept = self.tokens, self.kept
        called = run.kind.nouns
        nouns = {"item": called.item, "unit": called.unit, "label": called.label}
        return TokenShard(
            tokens.item[kept], tokens.token[kept], tokens.unit[kept], tokens.position[kept], tokens.weight[kept],
            tokens.special[kept], self.stored_item_ptr, {name: values[kept] for name, values in tokens.per_token.items()},
            fingerprint, shard, run.kind.name, nouns, self.sampled_by,
        )  # fmt: skip


def tokenised_shard(run: Run, model: FoundationModel, shard: int, finished: Collection[Path] = ()) -> TokenisedShard:
    """Read and tokenise a shard's items, in the order of the run's list of items.

    finished: files of the shard that stay as they are: what is stored must be the same rows as theirs.
    """
    samples = run.config.activations.tokens_per_cell is not None
    sampled_by = {shard: _sampled_by(finished)} if samples else {}
    return _tokenised(run, model, run.kind.read(run, np.arange(*run.shard_items(shard))), sampled_by)


def tokenised_items(run: Run, model: FoundationModel, indices: Int64) -> TokenisedShard:
    """The same of some items: the tokens that they have in their shards. indices: ascending, in the run's list of items."""
    sampled_by = {}
    if run.config.activations.tokens_per_cell is not None:
        shards = np.unique(indices // run.config.activations.cells_per_shard).tolist()
        sampled_by = {shard: _sampled_by([run.tokens_file(shard)]) for shard in shards}
    return _tokenised(run, model, run.kind.read(run, indices), sampled_by, indices)


def _sampled_by(files: Collection[Path]) -> str:
    """What drew the rows that files of a shard hold; `position` for a shard without files.

    Shards that an earlier version finished, or a part of one, were drawn by vocabulary id. Their rows stay what they are.
    """
    for path in sorted(files):
        sampled_by = stored_attribute(path, "sampled_by")
        if sampled_by is not None:
            return sampled_by or "token"
    return "position"


def _tokenised(
    run: Run, model: FoundationModel, items: Items, sampled_by: dict[int, str], indices: Int64 | None = None
) -> TokenisedShard:
    """sampled_by: of each shard that has items here. indices: of the items; None: all are of one shard."""
    tokens = model.tokenise(items, run.config.run.seed)
    by_token = None
    if "token" in sampled_by.values():
        old = np.ones(len(items.rows), dtype=bool)
        if indices is not None:
            shard_of = indices // run.config.activations.cells_per_shard
            old = np.array([sampled_by[shard] == "token" for shard in shard_of.tolist()])
        by_token = old[np.searchsorted(items.rows, tokens.item)]
    kept = stored_rows(tokens, run.config.activations.tokens_per_cell, run.config.run.seed, by_token)
    ways = set(sampled_by.values())
    return TokenisedShard(tokens, kept, items.rows, ways.pop() if len(ways) == 1 else "position")
