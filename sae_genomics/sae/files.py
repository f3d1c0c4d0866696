"""What the stage train leaves for a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sae_genomics.sae.published.sources import identity
from sae_genomics.stage import Files

if TYPE_CHECKING:
    from sae_genomics.run import Run

TRAINED_FILES = ("cfg.json", "sae_weights.safetensors")
EVALUATED_FILES = ("sparsity.safetensors", "metrics.json")
MEANS_FILES = ("unit_means.safetensors",)  # with sae.centre: unit
SAE_FILES = TRAINED_FILES + EVALUATED_FILES
SECOND_SEED = "second_seed"  # folder of the SAE that sae.stability compares with
EVALUATION_KEYS = ("sae.stability", "sae.evaluate_tokens", "sae.loss_recovered_cells")


def train_files(run: Run, task: int) -> Files:
    """Only what the evaluation leaves depends on its settings. A published SAE's identity is a part of each layer's own files."""
    layer = run.layers[task]
    which: dict[str, Any] = {"layer": layer}
    if run.config.sae.from_ is not None:
        which["from"] = identity(run, layer)
    folder, evaluation = run.sae_dir(layer), run.values(EVALUATION_KEYS)
    trained = TRAINED_FILES + (MEANS_FILES if run.config.sae.centre == "unit" else ())
    files: Files = {folder / name: which for name in trained}
    files |= {folder / name: {**which, "evaluation": evaluation} for name in EVALUATED_FILES}
    if run.config.sae.second_seed:
        files |= {folder / SECOND_SEED / name: which for name in trained}
    return files
