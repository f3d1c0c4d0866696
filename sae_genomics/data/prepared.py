"""What the kinds' `prepare` have in common: room on the disk, the plan in a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_genomics.data import plan
from sae_genomics.data.disk import bytes_under, check_disk, free_bytes, nearest_existing, size_text
from sae_genomics.data.token_counts import TokenCounts
from sae_genomics.errors import UserError
from sae_genomics.progress import duration, say
from sae_genomics.stages import stage_named

if TYPE_CHECKING:
    from sae_genomics.run import Run

_TOKENS_PER_ITEM = (256, 128, 64, 32)
_WORTH_A_HINT = 20e9  # bytes of activations


def check_room(run: Run, work: plan.Workload, tokens: TokenCounts) -> list[plan.Estimate]:
    """What each stage costs. Raises UserError, with what would make the run smaller, when the disk is too small for it."""
    estimates = plan.estimate(run, work)
    needs = plan.disk_needs(run, estimates)
    there = {run.checkpoints: bytes_under(run.checkpoints), run.results: bytes_under(run.results)}
    further = {folder: max(need - there[folder], 0) for folder, need in needs.items()}
    options = {each: int(tokens.stored_with(each).sum()) for each in _TOKENS_PER_ITEM}
    room = free_bytes(run.checkpoints) + sum(there.values()) - (sum(needs.values()) - plan.disk_of_shards(estimates))
    check_disk(further, f"run {run.name}", plan.savings(run.kind, work, options, max(room, 0)))
    return estimates


def heartbeat(run: Run) -> Path:
    """Where `prepare` says that it is at work."""
    return run.heartbeat_file(stage_named("prepare"), 0)


@contextmanager
def nothing_left_on_failure(files: Sequence[Path]) -> Iterator[None]:
    """When the input is refused, files made for nothing go, and the folders made for them.

    files: those that may be made in the block.
    """
    made = [path for path in files if not path.exists()]
    above = [nearest_existing(path.parent) for path in made]
    try:
        yield
    except UserError:
        for path, stop in zip(made, above, strict=True):
            path.unlink(missing_ok=True)
            folder = path.parent.absolute()
            while folder != stop and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
                folder = folder.parent
        raise


def tell_costs(content: dict[str, Any], work: plan.Workload) -> None:
    """The notes of a plan and what the run will cost."""
    disk = sum(each["disk_bytes"] + each["scratch_bytes"] for each in content["estimates"])
    seconds = sum(each["seconds"] for each in content["estimates"])
    memory = max(each["memory_bytes"] for each in content["estimates"])
    for note in content["notes"]:
        say(f"prepare: note: {note}")
    say(
        f"prepare: {len(content['shards']):,} shards, {content['n_tokens']:,} tokens x {work.n_layers} layers x "
        f"{work.d_model}; about {size_text(disk)} of disk, {size_text(memory)} of memory, roughly {duration(seconds)} "
        f"on one device of this kind"
    )


def tell_sampling(run: Run, tokens: TokenCounts, work: plan.Workload) -> None:
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
