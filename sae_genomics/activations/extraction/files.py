"""What the stage extract leaves for a shard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sae_genomics.stage import Files

if TYPE_CHECKING:
    from sae_genomics.run import Run


def extract_files(run: Run, shard: int) -> Files:
    """Its tokens, and one file of activations per layer."""
    files: Files = {run.tokens_file(shard): {"shard": shard}}
    for layer in run.layers:
        files[run.activations_file(layer, shard)] = {"shard": shard, "layer": layer}
    return files
