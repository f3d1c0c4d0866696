"""The model with the random weights that its training began with: its weights, and its activations on some of the run's tokens."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sae_genomics.activations.extraction.extract import capture
from sae_genomics.activations.extraction.tokenised import TokenisedShard
from sae_genomics.activations.format.store import ActivationWriter, Header
from sae_genomics.models import FoundationModel, pick_device, untrained_model, used_dtype
from sae_genomics.progress import Progress
from sae_genomics.run import Run


def load_untrained(run: Run) -> FoundationModel:
    """The run's model with weights that derive from run.seed alone: the same for every layer and stage."""
    device = pick_device(run.config.model.device)
    return untrained_model(run.pinned_model, device, seed_for(run, b"untrained weights"), run.config.paths.cache)


def capture_untrained(
    run: Run, model: FoundationModel, shard: TokenisedShard, files: Mapping[int, Path], progress: Progress
) -> None:
    """One pass of the untrained model over a shard: its stored rows of each layer go to files in the run's storage dtype.

    files: layer -> HDF5 file that is written. progress: told of every token that the model reads.
    Raises UserError when a value overflows the dtype, Interrupted at a signal.
    """
    config, device = run.config, pick_device(run.config.model.device)
    writers = {}
    for layer, path in files.items():
        header = Header(
            fingerprint="", model=model.info.name, model_identity="untrained", hook=config.model.hook, layer=layer, shard=0,
            d_model=model.info.d_model, dtype=config.activations.dtype, compute_dtype=used_dtype(config.model, device),
            sampled_by=shard.sampled_by,
        )  # fmt: skip
        writers[layer] = ActivationWriter(path, header, len(shard.kept))
    hook, batch_tokens = config.model.hook, config.activations.batch_tokens
    capture(model, shard, writers, batch_tokens, device, progress, hook, n_layers=len(writers))


def seed_for(run: Run, purpose: bytes, layer: int = 0) -> int:
    """A seed that derives from run.seed alone."""
    sequence = np.random.SeedSequence([run.config.run.seed, zlib.crc32(purpose), layer])
    return int(sequence.generate_state(1)[0])
