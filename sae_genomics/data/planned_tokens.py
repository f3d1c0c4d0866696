"""How many tokens the items of a run have, whether the disks hold their activations, and what is said of it. For every kind of data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sae_genomics.data import plan
from sae_genomics.data.disk import bytes_under, check_disk, free_bytes, size_text
from sae_genomics.progress import duration, say

if TYPE_CHECKING:
    from sae_genomics.run import Run

_TOKENS_PER_ITEM = (256, 128, 64, 32)
_WORTH_A_HINT = 20e9  # bytes of activations


@dataclass(frozen=True)
class PlannedTokens:
    """Tokens of each item: arrays int64 [items].

    read: what the model reads, special tokens and repeated ones included. units: tokens of units, each once. special: the special
    tokens that are stored beside them.
    """

    read: npt.NDArray[np.int64]
    units: npt.NDArray[np.int64]
    special: npt.NDArray[np.int64]

    def stored_with(self, tokens_per_item: int | None) -> npt.NDArray[np.int64]:
        """Tokens stored of each item when at most so many units of it are."""
        return (self.units if tokens_per_item is None else np.minimum(self.units, tokens_per_item)) + self.special

    def stored(self, run: Run) -> npt.NDArray[np.int64]:
        """Tokens stored of each item under the run's settings."""
        return self.stored_with(run.config.activations.tokens_per_cell)


def shard_sums(run: Run, of_items: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """int64 [items] added up over each shard: int64 [shards]."""
    return np.add.reduceat(of_items, [run.shard_items(shard)[0] for shard in range(run.n_shards)])


def check_room(run: Run, work: plan.Workload, estimates: list[plan.Estimate], tokens: PlannedTokens) -> None:
    """Raises UserError when the disks cannot hold what is still to be written; it says what would help."""
    needs = plan.disk_needs(run, estimates)
    there = {run.checkpoints: bytes_under(run.checkpoints), run.results: bytes_under(run.results)}
    further = {folder: max(need - there[folder], 0) for folder, need in needs.items()}
    options = {each: int(tokens.stored_with(each).sum()) for each in _TOKENS_PER_ITEM}
    activations = plan.disk_of_shards(estimates)
    room = free_bytes(run.checkpoints) + sum(there.values()) - (sum(needs.values()) - activations)
    check_disk(further, f"run {run.name}", plan.savings(run.kind, work, options, max(room, 0)))


def say_cost(run: Run, work: plan.Workload, estimates: list[plan.Estimate]) -> None:
    """The run's size, and what it takes, in one line."""
    disk = sum(each.disk_bytes + each.scratch_bytes for each in estimates)
    seconds = sum(each.seconds for each in estimates)
    memory = max(each.memory_bytes for each in estimates)
    say(
        f"prepare: {run.n_shards:,} shards, {work.n_stored:,} tokens x {work.n_layers} layers x {work.d_model}; about "
        f"{size_text(disk)} of disk, {size_text(memory)} of memory, roughly {duration(seconds)} on one device of this kind"
    )


def say_sampling(run: Run, work: plan.Workload, tokens: PlannedTokens) -> None:
    """What storing a sample of each item's tokens saves, or would."""

    def stored(tokens_per_item: int | None) -> int:
        return int(tokens.stored_with(tokens_per_item).sum()) * work.n_layers * work.d_model * work.item_bytes

    every, chosen = stored(None), run.config.activations.tokens_per_cell
    key = run.kind.key("activations.tokens_per_item")
    if chosen is not None:
        say(f"prepare: {key}: {chosen} stores {size_text(stored(chosen))} of activations instead of {size_text(every)}")
    elif every > _WORTH_A_HINT:
        options = ", ".join(f"{each}: {size_text(stored(each))}" for each in _TOKENS_PER_ITEM if stored(each) < every)
        say(f"prepare: {size_text(every)} of activations; with {key} {options}")
