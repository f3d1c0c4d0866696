"""The forward passes of a request: the edit, and the same in random directions, in the items in which it edits something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from sae_genomics.causal.edits import delta_of
from sae_genomics.causal.encoded import encode_paused
from sae_genomics.causal.exact import Clean, Effects, exact_effects
from sae_genomics.causal.measure import looked_at
from sae_genomics.causal.passes import Changes, Gather
from sae_genomics.causal.samples import Sample, paused_batches
from sae_genomics.causal.statistics import FeatureStatistics
from sae_genomics.causal.task import hidden_tokens
from sae_genomics.concepts.resampling import random_directions
from sae_genomics.data.groups import group_numbers
from sae_genomics.errors import UserError
from sae_genomics.intervene.request import Request
from sae_genomics.intervene.subject import Subject
from sae_genomics.progress import Progress, stop_point
from sae_genomics.tokens import items_in_order

if TYPE_CHECKING:
    from sae_genomics.models.base import FoundationModel
    from sae_genomics.run import Run

Floats = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
# Tokens that are stopped at the hook together, whatever the machine: what `resample` draws must not depend on it.
MOST_TOKENS, MOST_LOGITS = 1 << 13, 1 << 26


@dataclass(frozen=True)
class Work:
    """What is asked for, of what. values: of training items; None for a direction."""

    run: Run
    model: FoundationModel
    request: Request
    subject: Subject
    values: FeatureStatistics | None

    @property
    def seed(self) -> int:
        return self.run.config.run.seed if self.request.seed is None else self.request.seed

    def generator(self, number: int) -> np.random.Generator:
        """For one purpose, whatever was drawn before."""
        return np.random.default_rng([self.seed, self.request.layer, number])

    @property
    def most_tokens(self) -> int:
        if self.model.outcome == "value":
            return MOST_TOKENS
        n_ids = int(self.run.kind.read_units(self.run).token.max(initial=0)) + 1
        return min(MOST_TOKENS, max(MOST_LOGITS // n_ids, 1))


@dataclass(frozen=True)
class Passed:
    """Items in which something was edited, in the order of their tokens, and what changed. Of the edits the first is the one asked for.

    group: int64 [items]; None without groups. active: bool [T], where something edited is active with nothing hidden. counts: bool [T], tokens
    whose predictions count. n_edited: tokens of these items that the edit changed, n_tokens: that it could have.
    """

    sample: Sample
    group: Ints | None
    hidden: Bools | None
    active: Bools
    counts: Bools
    found: Changes
    probability: tuple[Floats, Float32] | None
    """of a distribution, change of each id's probability, mean over tokens: mean over items or groups, [edits, vocabulary], and of each
    item by the edit asked for, [items, vocabulary]"""
    activation_norm: float
    """root mean square over tokens of the activations' lengths, before the edit"""

    @property
    def item(self) -> Ints:
        """[T]"""
        return items_in_order(self.sample.tokens)[1]

    @property
    def n_items(self) -> int:
        return len(self.sample.rows)


def pass_all(work: Work, sample: Sample) -> Passed:
    """Raises UserError where the edit changes nothing in any item."""
    hidden = hidden_tokens(work.model, sample.tokens, work.run.config.run.seed) if work.request.masked else None
    edited, active = _look(work, sample, hidden)
    item = sample.of_tokens()
    chosen = np.unique(item[edited])
    if not len(chosen):
        nouns = work.run.kind.nouns
        raise UserError(
            f"{work.subject.name}: the edit ({work.request.words}) changes nothing in {len(sample.rows):,} {nouns.items}"
        )
    kept = np.isin(item, chosen)
    sample, active = sample.take(chosen), active[kept]
    hidden = None if hidden is None else hidden[kept]
    counts = looked_at(work.model, sample.tokens, hidden)
    table = work.run.kind.read_items(work.run, ["group"])
    group = group_numbers(work.run, table, sample.rows)
    if group is not None:
        starts = np.flatnonzero(np.diff(sample.tokens.item, prepend=-1))
        group = group[sample.of_tokens()[starts]]
    probabilities = _Probabilities(work, sample, counts, group) if work.model.outcome == "distribution" else None
    found, norm = _measure(work, sample, hidden, probabilities)
    probability = None if probabilities is None else (probabilities.of_edits, probabilities.of_items)
    return Passed(sample, group, hidden, active, counts, found, probability, norm)


def _look(work: Work, sample: Sample, hidden: Bools | None) -> tuple[Bools, Bools]:
    """Tokens that are edited, and tokens where something edited is active when nothing is hidden: bool [T] each."""
    edit = work.subject.edit(work.request, work.seed)
    hook, layer = work.run.config.model.hook, work.request.layer
    edited, active = np.zeros(len(sample.tokens), bool), np.zeros(len(sample.tokens), bool)
    for _, rows, paused in paused_batches(work.model, sample, layer, hook, work.most_tokens, hidden):
        stop_point()
        with torch.inference_mode():
            encoded = encode_paused(work.model, paused, work.subject.encoder)
            edited[rows[delta_of(work.subject.encoder, encoded, edit, work.values).row]] = True
            if hidden is not None:
                encoded = encode_paused(work.model, work.model.pause(paused.batch, layer, hook), work.subject.encoder)
        active[rows[encoded.token[encoded.of(work.subject.features)]]] = True
    return edited, active


def _measure(
    work: Work, sample: Sample, hidden: Bools | None, probabilities: _Probabilities | None
) -> tuple[Changes, float]:
    """What every edit changes, and the root mean square length of activations."""
    run, request = work.run, work.request
    width = work.model.info.d_model
    turns = [None, *random_directions(request.draws, width, work.generator(1)).astype(np.float32)]
    batch_tokens = min(run.config.activations.batch_tokens, work.most_tokens)
    progress = Progress("intervene", len(sample.rows) * len(turns), f"{run.kind.nouns.items} x edits")
    parts, squares = [], 0.0
    batches = paused_batches(work.model, sample, request.layer, run.config.model.hook, work.most_tokens, hidden)
    for number, (sequences, rows, paused) in enumerate(batches):
        with torch.inference_mode():
            clean = Clean.of(work.model, paused, work.subject.encoder)
            edits = [work.subject.edit(request, work.seed + number, turn) for turn in turns]
            gather = Gather(clean, len(edits))
            weights = None if probabilities is None else probabilities.weights[rows]

            def reduce(effects: Effects, gather: Gather = gather, sequences: Ints = sequences) -> None:
                gather(effects)
                if probabilities is not None:
                    probabilities.add(effects, sequences)

            exact_effects(
                clean, edits, reduce, batch_tokens=batch_tokens, statistics=work.values, weights=weights
            )  # fmt: skip
        parts.append(gather.found)
        usual = torch.from_numpy(sample.usual[rows]).to(paused.activations.device)
        squares += float(paused.activations[usual].double().square().sum())
        progress.advance(len(np.unique(sample.item[sequences])) * len(turns))
    progress.finish()
    return Changes.joined(parts), float(np.sqrt(squares / max(int(sample.usual.sum()), 1)))


class _Probabilities:
    """Adds up how the probability of each id changes; see `Passed.probability`."""

    def __init__(self, work: Work, sample: Sample, counts: Bools, group: Ints | None):
        item, n = items_in_order(sample.tokens)[1], len(sample.rows)
        n_tokens = np.bincount(item[counts], minlength=n)
        known = n_tokens > 0
        self.weights = np.where(counts, 1 / np.maximum(n_tokens[item], 1), 0).astype(np.float32)
        self._item = item[sample.tokens.item_ptr[:-1]]
        self._share = item_shares(known, group)
        self._units = work.run.kind.read_units(work.run).token.astype(np.int64)
        self.of_edits = np.zeros((1 + work.request.draws, len(self._units)))
        self.of_items = np.zeros((n, len(self._units)), np.float32)
        self.of_items[~known] = np.nan

    def add(self, effects: Effects, sequences: Ints) -> None:
        assert effects.probability is not None
        change, item = effects.probability[:, self._units], self._item[sequences[effects.sequence]]
        np.add.at(self.of_edits, effects.edit, change.astype(np.float64) * self._share[item][:, None])
        first = effects.edit == 0
        np.add.at(self.of_items, item[first], change[first])


def item_shares(known: Bools, group: Ints | None) -> Floats:
    """The weight of each item in the mean over items, or over the means of groups: float64 [items]. known: bool [items], those that count."""
    if group is None:
        return known / max(int(known.sum()), 1)
    in_group = np.bincount(group[known], minlength=int(group.max(initial=0)) + 1)
    return np.where(known, 1 / np.maximum(in_group[group], 1), 0) / max(int((in_group > 0).sum()), 1)
