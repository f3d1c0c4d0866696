"""What the SAE's reconstruction is worth to the model: splice it in at its layer and measure the model's own loss.

A share of the tokens of held-out items is hidden, as in the model's training; the loss is the model's own at these tokens (its
`loss_name`). With L(x) the loss when the layer's activations are replaced by x,

    loss recovered = (L(mean) - L(reconstruction)) / (L(mean) - L(activations)),

1 when nothing is lost, 0 when the reconstruction is worth no more than the mean activation. Special tokens (<cls>, <eos>, <drug>)
are left as they are, because no SAE is trained on them by default. (The measure: Bricken et al., "Towards
Monosemanticity", 2023, there with zero ablation; the mean is the stricter baseline.)
"""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from sae_genomics.activations.extraction.cutting import cut_batches
from sae_genomics.activations.extraction.extract import loaded_model
from sae_genomics.activations.extraction.tokenised import tokenised_items
from sae_genomics.data.groups import group_numbers
from sae_genomics.progress import say, stop_point
from sae_genomics.tokens import Tokens, items_in_order

if TYPE_CHECKING:
    from sae_genomics.models import FoundationModel
    from sae_genomics.run import Run
    from sae_genomics.sae.load import Encoder
    from sae_genomics.sae.unit_means import UnitMeans

BOOTSTRAPS = 2000
FEWEST = 10  # items, or groups, from which on an interval is given
_model_in_use = threading.Lock()  # there is one in memory, whatever number of layers is trained at once
Units = npt.NDArray[np.int32]
Float64 = npt.NDArray[np.float64]
Replace = Callable[[torch.Tensor, Units], torch.Tensor]  # activations and their units -> what takes their place


@dataclass(frozen=True)
class LossRecovered:
    """Each item's own part of the losses, arrays [items].

    hidden: int64, tokens that were hidden. unchanged, reconstructed, mean_ablated, unit_means: float64, sums of the model's loss with
    the layer's activations as they are, as the SAE gives them, at their mean, at their units' means. unit_means: None where no
    means are known. group: int64, the group of each item (`data.group_key`); None without groups.
    """

    hidden: npt.NDArray[np.int64]
    unchanged: Float64
    reconstructed: Float64
    mean_ablated: Float64
    unit_means: Float64 | None = None
    group: npt.NDArray[np.int64] | None = None
    loss_name: str = ""  # what the loss is, with its unit

    @property
    def cells(self) -> int:
        return len(self.hidden)

    @property
    def groups(self) -> int | None:
        """How many groups the items are of; None without groups."""
        return None if self.group is None else len(np.unique(self.group))

    @property
    def hidden_tokens(self) -> int:
        return int(self.hidden.sum())

    def loss(self, sums: Float64) -> float:
        """Mean over all hidden tokens. sums: one of the sums above."""
        return float(sums.sum()) / max(self.hidden_tokens, 1)

    @property
    def recovered(self) -> float:
        """NaN when what ablating the layer costs is not clearly above 0: less than two standard errors, by the items' own costs."""
        return self._share(self.reconstructed)

    @property
    def recovered_by_means(self) -> float | None:
        """What the units' means alone recover; None where they are not known."""
        return None if self.unit_means is None else self._share(self.unit_means)

    def _share(self, sums: Float64) -> float:
        costs = self.mean_ablated - self.unchanged
        cost, n = float(costs.sum()), len(costs)
        noise = 2 * math.sqrt(n) * float(costs.std(ddof=1)) if n > 1 else 0.0
        return float(self.mean_ablated.sum() - sums.sum()) / cost if cost > noise else float("nan")

    def interval(self, seed: int) -> tuple[float, float] | None:
        """The 95 % interval of `recovered`: percentiles over BOOTSTRAPS draws of as many items, or whole groups, with replacement.

        A t-interval over the items' own ratios would not do: an item for which ablating the layer costs next to nothing has a ratio
        without bounds. The measure is a ratio of sums over items, and so is it in each draw. None below FEWEST items, or groups, where
        the bootstrap is too narrow, and where ablating the layer costs nothing clear, or nothing in one of the draws.
        """
        gained = self.mean_ablated - self.reconstructed
        cost = self.mean_ablated - self.unchanged
        if self.group is not None:  # items of one group are no replicates of each other
            place = np.unique(self.group, return_inverse=True)[1]
            gained, cost = (np.bincount(place, each).astype(np.float64) for each in (gained, cost))
        n = len(cost)
        if n < FEWEST or not math.isfinite(self.recovered):
            return None
        generator = np.random.default_rng([seed, zlib.crc32(b"sae.loss_interval")])
        shares = np.empty(BOOTSTRAPS)
        for number in range(BOOTSTRAPS):
            drawn = generator.integers(0, n, n)
            total = cost[drawn].sum()
            if total <= 0:
                return None
            shares[number] = gained[drawn].sum() / total
        low, high = np.quantile(shares, [0.025, 0.975])
        return float(low), float(high)


def loss_recovered(
    run: Run, layer: int, encoder: Encoder, n_cells: int, means: UnitMeans | None = None
) -> LossRecovered | None:
    """Measure on at most n_cells held-out items, spread evenly over the file.

    None when no item is held out, and, with a line that says why, when the model's loss cannot be measured.

    means: of units, to measure what these alone recover. Waits while another thread measures; raises Interrupted when a signal
    asked to stop meanwhile.
    """
    with _model_in_use:
        stop_point()
        model = loaded_model(run, may_compile=False)
        if model.why_no_loss:
            say(f"train layer {layer}: the loss recovered is left out: {model.why_no_loss}")
            return None
        heldout = heldout_tokens(run, model, n_cells)
        if heldout is None:
            return None
        tokens, group = heldout
        settings = run.config
        found = measure(
            model, tokens, layer, settings.model.hook, encoder, settings.run.seed, settings.activations.batch_tokens,
            means,
        )  # fmt: skip
        return replace(found, group=group)


def evenly(n: int, wanted: int) -> npt.NDArray[np.int64]:
    """At most `wanted` of n positions at even distances, each in the middle of its part: int64, ascending."""
    wanted = min(n, wanted)
    return (2 * np.arange(wanted) + 1) * n // (2 * max(wanted, 1))


def heldout_tokens(
    run: Run, model: FoundationModel, n_cells: int
) -> tuple[Tokens, npt.NDArray[np.int64] | None] | None:
    """Tokens of at most n_cells held-out items, spread evenly over all of them; files are often sorted by donor or batch.

    Only the shards that hold them are read, and of these only their rows. Beside them each item's group, int64 [items]; None
    without `data.group_key`. None in place of both when no item is held out.
    """
    cells = run.kind.read_items(run, ["heldout", "group"])
    heldout = np.flatnonzero(cells["heldout"].to_numpy())
    wanted = heldout[evenly(len(heldout), n_cells)]
    parts = []
    for shard in np.unique(wanted // run.config.activations.cells_per_shard).tolist():
        stop_point()
        start, stop = run.shard_items(shard)
        parts.append(tokenised_items(run, model, wanted[(wanted >= start) & (wanted < stop)]).tokens)
    if not parts:
        return None
    return Tokens.concatenate(parts), group_numbers(run, cells, wanted)


def measure(
    model: FoundationModel,
    tokens: Tokens,
    layer: int,
    hook: str,
    encoder: Encoder,
    seed: int,
    batch_tokens: int,
    means: UnitMeans | None = None,
) -> LossRecovered:
    """Passes over the same items with the same tokens hidden: unchanged, reconstructed, mean-ablated, and units' means if known.

    Each window of a long item is a sequence of its own; a token counts in the window that it is stored from.
    """
    usual = ~tokens.special
    counted = tokens.counted
    drawn = np.random.default_rng([seed, zlib.crc32(b"sae.hidden")]).random(len(tokens))
    hidden = usual & model.predicted(tokens) & (drawn < model.hidden_share)
    items, item_of = items_in_order(tokens)
    total = torch.zeros(model.info.d_model, dtype=torch.float64)

    def add_up(x: torch.Tensor, units: Units) -> torch.Tensor:
        total.add_(x.double().sum(dim=0).cpu())
        return x

    def losses(replace: Replace) -> Float64:
        by_token = _losses(model, tokens, usual, hidden, layer, hook, replace, batch_tokens)
        return np.bincount(item_of, weights=by_token * counted, minlength=len(items)).astype(np.float64)

    unchanged = losses(add_up)
    mean = total / max(int(usual.sum()), 1)
    return LossRecovered(
        hidden=np.bincount(item_of[hidden & counted], minlength=len(items)),
        unchanged=unchanged,
        reconstructed=losses(lambda x, units: encoder.reconstruct(x, units).to(x)),
        mean_ablated=losses(lambda x, units: mean.to(x).expand_as(x)),
        unit_means=None if means is None else losses(lambda x, units: means.tensor(units, x.device).to(x)),
        loss_name=model.loss_name,
    )


def _losses(
    model: FoundationModel,
    tokens: Tokens,
    usual: npt.NDArray[np.bool_],
    hidden: npt.NDArray[np.bool_],
    layer: int,
    hook: str,
    replace: Replace,
    batch_tokens: int,
) -> Float64:
    """The model's loss at each hidden token, with the usual tokens' activations of one layer replaced: float64 [T], 0 elsewhere."""
    loss = np.zeros(len(tokens))
    for sequences in cut_batches(tokens.lengths, batch_tokens):
        batch = tokens.take(sequences)
        rows = tokens.rows_of(sequences)
        replaced = np.flatnonzero(usual[rows])
        units = batch.token[replaced]
        if model.mask_token is not None:  # what a hidden token is must not be told by its unit's mean
            units = np.where(hidden[rows][replaced], np.int32(model.mask_token), units)

        def change(x: torch.Tensor, replaced: npt.NDArray[np.int64] = replaced, units: Units = units) -> torch.Tensor:
            at = torch.from_numpy(replaced).to(x.device)
            return x.index_copy(0, at, replace(x[at], units).to(x.dtype))

        with torch.inference_mode():
            loss[rows] = model.masked_loss(batch, hidden[rows], hook, {layer: change})
    return loss
