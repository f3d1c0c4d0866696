"""Features of SAEs on an untrained model, on some of the tokens on which the run's layers are compared.

The baseline `untrained` of the stage associate leaves an SAE per layer. The model with the same random weights reads some of the sampled
items once; every layer's rows of the sampled tokens go to scratch files, and from there through the layer's SAE. What a feature of the trained model
has in common with such a feature comes from the data and the architecture, not from what the model has learned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from sae_genomics.activations.extraction.tokenised import TokenisedShard, tokenised_items
from sae_genomics.activations.format.store import open_activations
from sae_genomics.activations.format.token_store import read_item_ptr
from sae_genomics.associations.files import has_untrained, untrained_sae_dir
from sae_genomics.associations.untrained_model import capture_untrained, load_untrained
from sae_genomics.cross_layer.activations import Int64, LayerActivations, ShardSample, SparseRows, encode_blocks
from sae_genomics.errors import UserError
from sae_genomics.leftovers import scratch_folder
from sae_genomics.progress import Progress, stop_point
from sae_genomics.run import Run
from sae_genomics.sae.load import CFG_FILE, load_encoder
from sae_genomics.sae.loss_recovered import evenly
from sae_genomics.stages import stage_named

TURNED_OFF = "cross_layer.untrained_tokens is 0"
NO_BASELINE = "there is no SAE on an untrained model; add untrained to validation.baselines"
NO_GENES = "no SAE is trained on an untrained model for this kind of data"
NO_TOKEN = "no token was sampled"
STEPS = 2.0  # that `sample_untrained` reports


@dataclass(frozen=True)
class Untrained:
    """token: int64 [n], those of the sampled tokens that are compared, ascending. layers: layer -> the SAE's features on them. d_sae: layer ->
    how many it has. why: why there are none, one clause; empty where there are."""

    token: Int64
    layers: Mapping[int, SparseRows] = field(default_factory=dict)
    d_sae: Mapping[int, int] = field(default_factory=dict)
    why: str = ""

    @staticmethod
    def none(why: str) -> Untrained:
        return Untrained(np.empty(0, dtype=np.int64), why=why)


def why_none(run: Run) -> str:
    """Why there is nothing to compare with; empty where there is."""
    if run.config.cross_layer.untrained_tokens == 0:
        return TURNED_OFF
    if not run.kind.units_are_genes:
        return NO_GENES
    if not has_untrained(run):
        return NO_BASELINE
    lacking = [layer for layer in run.layers if not (untrained_sae_dir(run, layer) / CFG_FILE).exists()]
    if lacking:
        return (
            f"associate kept no SAE on an untrained model of layer {', '.join(map(str, lacking))}, as earlier versions did not; to have it made, remove "
            f"untrained_genes.parquet from the layer's folder of results and start the run again"
        )
    return ""


def sample_untrained(
    run: Run, activations: LayerActivations, device: torch.device, advance: Callable[[float], None]
) -> Untrained:
    """The features, or why there are none. One layer's SAE is in memory at a time, the model before the first of them.

    device: for the SAEs. advance: told of `STEPS` in all. Raises UserError when the model's values overflow the storage dtype,
    DamagedArtifact when a file cannot be read, Interrupted at a signal.
    """
    if why := why_none(run):
        advance(STEPS)
        return Untrained.none(why)
    if not len(activations):
        advance(STEPS)
        return Untrained.none(NO_TOKEN)
    token = chosen_tokens(activations.item, run.config.cross_layer.untrained_tokens)
    with scratch_folder(run, stage_named("cross_layer"), 0) as folder:
        files = {layer: folder / f"layer_{layer:02d}.h5" for layer in run.layers}
        _capture(run, activations.samples, activations.item[token], token, files)
        advance(1)
        finite = np.ones(len(token), dtype=bool)
        for path in files.values():
            with open_activations(path) as opened:
                finite[opened.nonfinite_rows] = False
        vocabulary = np.concatenate([sample.token for sample in activations.samples])[token]
        layers, d_sae = {}, {}
        for layer, path in files.items():
            encoder = load_encoder(untrained_sae_dir(run, layer), device)
            with open_activations(path) as opened:
                rows = np.flatnonzero(finite)
                layers[layer] = encode_blocks(encoder, opened.rows, rows, vocabulary[rows])
            d_sae[layer] = encoder.d_sae
            path.unlink()
            advance(1 / len(files))
    return Untrained(token[finite], layers, d_sae)


def chosen_tokens(item: Int64, n_tokens: int) -> Int64:
    """Of the sampled tokens about n_tokens at most: all of some items, which stand at even distances. int64, ascending.

    item: int64 [T], of each token, ascending. One item is there in any case.
    """
    items = np.unique(item)
    n_items = max(1, int(n_tokens * len(items) / max(len(item), 1)))
    return np.flatnonzero(np.isin(item, items[evenly(len(items), n_items)]))


def _capture(run: Run, samples: tuple[ShardSample, ...], item: Int64, token: Int64, files: Mapping[int, Path]) -> None:
    """Leave every layer's rows of the chosen tokens in files, in their order. item: of each chosen token."""
    try:
        model = load_untrained(run)
        shard = sampled_shard(run, tokenised_items(run, model, np.unique(item)), samples, item, token)
        heartbeat = run.heartbeat_file(stage_named("cross_layer"), 0)
        progress = Progress("cross_layer: untrained model", len(shard.tokens), "tokens", heartbeat)
        capture_untrained(run, model, shard, files, progress)
        progress.finish()
    except UserError as error:
        raise UserError(
            f"untrained model: {error}; or leave it out with --set cross_layer.untrained_tokens=0"
        ) from None


def sampled_shard(
    run: Run, whole: TokenisedShard, samples: tuple[ShardSample, ...], item: Int64, token: Int64
) -> TokenisedShard:
    """The same items of which only the chosen tokens are stored.

    whole: the items' tokens, of which those are stored that their shards have. samples: the sampled tokens. token: int64 [n], which of them
    are chosen. item: int64 [n], of each.
    """
    row = np.concatenate([sample.row for sample in samples])[token]
    in_shard = np.repeat([sample.shard for sample in samples], [len(sample.row) for sample in samples])[token]
    begins = np.empty(len(token), dtype=np.int64)  # of the item, in its shard's files
    for shard in np.unique(in_shard).tolist():
        stop_point()
        mine = in_shard == shard
        begins[mine] = read_item_ptr(run.tokens_file(shard))[item[mine] - run.shard_items(shard)[0]]
    number = np.unique(item, return_inverse=True)[1]
    kept: npt.NDArray[np.int64] = whole.kept[whole.stored_item_ptr[number] + row - begins]
    return replace(whole, kept=kept)
