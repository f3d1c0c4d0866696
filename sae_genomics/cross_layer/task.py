"""Stage cross_layer: features of all layers on the same tokens.

1. Every layer's SAE encodes the same tokens of held-out items, once.
2. So do SAEs on an untrained model, on some of these tokens: `untrained`.
3. All pairs of layers are matched: `compare`.
4. What drives the strongest features of a layer is looked for in an earlier layer: `attribution`.
5. Modules of features that fire together, the variance that features explain, and unnamed features: `modules`, `variance`, `novelty`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sae_genomics.activations.extraction.extract import use_allotted_cores
from sae_genomics.cross_layer.activations import sample_layers
from sae_genomics.cross_layer.attribution_table import write_attribution
from sae_genomics.cross_layer.compare import Comparison
from sae_genomics.cross_layer.files import folder
from sae_genomics.cross_layer.modules import write_modules
from sae_genomics.cross_layer.novelty import write_novelty
from sae_genomics.cross_layer.settings import attribution_pairs
from sae_genomics.cross_layer.untrained import STEPS, sample_untrained
from sae_genomics.cross_layer.variance import write_variance
from sae_genomics.models import pick_device
from sae_genomics.progress import Progress, stop_point
from sae_genomics.run import Run
from sae_genomics.sae.load import load_encoder
from sae_genomics.stages import stage_named

RESIDUAL = "resid_post"


def run_task(run: Run, task: int) -> None:
    """Leave the stage's tables.

    Raises DamagedArtifact when an input cannot be read, Interrupted at a signal (the stage starts again then).
    """
    device = pick_device(run.config.sae.device)
    if device.type == "cpu":
        use_allotted_cores()
    folder(run).mkdir(parents=True, exist_ok=True)
    n = len(run.layers)
    n_pairs = n * (n - 1) // 2 if run.config.cross_layer.pairs == "all" else n - 1
    total = n + STEPS + n_pairs + len(attribution_pairs(run)) + 2 * n + (n if run.config.sae.second_seed else 0)
    progress = Progress("cross_layer", total, "steps", run.heartbeat_file(stage_named("cross_layer"), task))

    def advance(steps: float) -> None:
        progress.advance(steps)
        stop_point()

    activations = sample_layers(run, device, advance)
    untrained = sample_untrained(run, activations, device, advance)

    @lru_cache(maxsize=2)
    def directions(layer: int) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = load_encoder(run.sae_dir(layer)).W_dec.numpy()
        return found

    shared_space = run.config.model.hook == RESIDUAL
    Comparison(
        activations,
        untrained,
        run.config.cross_layer,
        run.config.run.seed,
        directions if shared_space else None,
        advance,
    ).write(folder(run))
    write_attribution(run, device, advance)
    write_modules(run, activations, device, advance)
    write_variance(run, device, advance)
    write_novelty(run, activations)
    stop_point()
    progress.finish()
