"""What the SAE's reconstruction is worth to the model: splice it in at its layer and measure the model's own loss.

Half of the genes of held-out cells have their value hidden, as in the model's training; the loss is the mean squared error of
their predicted values. With L(x) the loss when the layer's activations are replaced by x,

    loss recovered = (L(mean) - L(reconstruction)) / (L(mean) - L(activations)),

1 when nothing is lost, 0 when the reconstruction is worth no more than the mean activation. Gene tokens are replaced; <cls> and
<drug> are left as they are, because no SAE is trained on them by default. (The measure: Bricken et al., "Towards
Monosemanticity", 2023, there with zero ablation; the mean is the stricter baseline.)
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from sae_genomics.activations.cutting import cut_batches
from sae_genomics.activations.extract import loaded_model, ranges, tokenised_shard
from sae_genomics.artifacts import CELLS
from sae_genomics.progress import stop_point

if TYPE_CHECKING:
    from sae_genomics.data.tokenise import Tokens
    from sae_genomics.models import CellModel
    from sae_genomics.run import Run
    from sae_genomics.sae.load import Encoder

HIDDEN_SHARE = 0.5
_model_in_use = threading.Lock()  # there is one in memory, whatever number of layers is trained at once
Units = npt.NDArray[np.int32]
Replace = Callable[[torch.Tensor, Units], torch.Tensor]  # activations and their units -> what takes their place


@dataclass(frozen=True)
class LossRecovered:
    """loss_*: mean squared error of hidden values, in bins squared. recovered: NaN when ablating the layer costs nothing."""

    cells: int
    hidden_tokens: int
    loss_unchanged: float
    loss_reconstructed: float
    loss_mean_ablated: float

    @property
    def recovered(self) -> float:
        cost = self.loss_mean_ablated - self.loss_unchanged
        return (self.loss_mean_ablated - self.loss_reconstructed) / cost if cost > 0 else float("nan")


def loss_recovered(run: Run, layer: int, encoder: Encoder, n_cells: int) -> LossRecovered | None:
    """Measure on at most n_cells held-out cells, the first in the shards' order. None when no cell is held out.

    Waits while another thread measures; raises Interrupted when a signal asked to stop meanwhile.
    """
    with _model_in_use:
        stop_point()
        model = loaded_model(run, may_compile=False)
        tokens = heldout_tokens(run, model, n_cells)
        if tokens is None:
            return None
        settings = run.config
        return measure(
            model, tokens, layer, settings.model.hook, encoder, settings.run.seed, settings.activations.batch_tokens
        )


def heldout_tokens(run: Run, model: CellModel, n_cells: int) -> Tokens | None:
    """Tokens of the first held-out cells, shard by shard until there are enough."""
    heldout = CELLS.read(run.cells_file, columns=["heldout"])["heldout"].to_numpy()
    wanted = np.flatnonzero(heldout)[:n_cells]
    parts = []
    for shard in range(run.n_shards):
        start, stop = run.shard_cells(shard)
        cells = wanted[(wanted >= start) & (wanted < stop)] - start
        if len(cells):
            parts.append(tokenised_shard(run, model, shard).tokens.take(cells))
    return type(parts[0]).concatenate(parts) if parts else None


def measure(
    model: CellModel, tokens: Tokens, layer: int, hook: str, encoder: Encoder, seed: int, batch_tokens: int
) -> LossRecovered:
    """Three passes over the same cells with the same values hidden: unchanged, reconstructed, mean-ablated."""
    is_gene = np.ones(len(tokens), bool)
    starts = tokens.cell_ptr[:-1]
    is_gene[(starts[:, None] + np.arange(tokens.n_special)).ravel()] = False
    hidden = is_gene & (np.random.default_rng([seed, zlib.crc32(b"sae.hidden")]).random(len(tokens)) < HIDDEN_SHARE)
    total = torch.zeros(model.info.d_model, dtype=torch.float64)

    def add_up(x: torch.Tensor, units: Units) -> torch.Tensor:
        total.add_(x.double().sum(dim=0).cpu())
        return x

    def loss(replace: Replace) -> float:
        return _loss(model, tokens, is_gene, hidden, layer, hook, replace, batch_tokens)

    unchanged = loss(add_up)
    mean = total / max(int(is_gene.sum()), 1)
    return LossRecovered(
        cells=len(starts),
        hidden_tokens=int(hidden.sum()),
        loss_unchanged=unchanged,
        loss_reconstructed=loss(lambda x, units: encoder.reconstruct(x, units).to(x)),
        loss_mean_ablated=loss(lambda x, units: mean.to(x).expand_as(x)),
    )


def _loss(
    model: CellModel,
    tokens: Tokens,
    is_gene: npt.NDArray[np.bool_],
    hidden: npt.NDArray[np.bool_],
    layer: int,
    hook: str,
    replace: Replace,
    batch_tokens: int,
) -> float:
    """Mean squared error of hidden values with the gene tokens' activations of one layer replaced."""
    squared, count = 0.0, 0
    for cells in cut_batches(tokens.lengths, batch_tokens):
        batch = tokens.take(cells)
        rows = ranges(tokens.cell_ptr[cells], tokens.lengths[cells])
        genes = np.flatnonzero(is_gene[rows])
        units = batch.gene[genes]

        def change(x: torch.Tensor, genes: npt.NDArray[np.int64] = genes, units: Units = units) -> torch.Tensor:
            at = torch.from_numpy(genes).to(x.device)
            return x.index_copy(0, at, replace(x[at], units).to(x.dtype))

        with torch.inference_mode():
            predicted = model.outputs(batch, masked=hidden[rows], hook=hook, interventions={layer: change}).expr_preds
        at = np.flatnonzero(hidden[rows])
        error = predicted.float().cpu().numpy()[at].astype(np.float64) - batch.value[at]
        squared, count = squared + float(error @ error), count + len(at)
    return squared / max(count, 1)
