"""The section `sae` of the config."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sae_genomics.section import Section, also

DEFAULT_ARCHITECTURE = "topk"


class SaeConfig(Section):
    """One sparse autoencoder per layer. An architecture with settings of its own has a subclass of this (`Architecture.section`)."""

    architecture: str = Field(DEFAULT_ARCHITECTURE, description="a file in sae_genomics/sae/architectures")
    d_sae: int | None = Field(None, ge=1, description="number of latents; default: expansion x d_model")
    expansion: float = Field(8, gt=0)
    k: int = Field(32, ge=1, description="active latents a token")
    steps: int = Field(2000, ge=1)
    batch_tokens: int = Field(2048, ge=1, description="tokens an optimisation step")
    lr: float | None = Field(None, gt=0, description="peak learning rate; default: from the width, see sae/train")
    lr_decay: Literal["linear", "cosine", "none"] = "linear"
    lr_warmup_steps: int = Field(100, ge=0)
    lr_decay_fraction: float = Field(0.2, ge=0, le=1, description="last share of the steps, over which lr falls to 0")
    normalise: bool = Field(True, description="train on activations scaled to mean norm sqrt(d_model)")
    include_cls: bool = Field(False, description="train on the <cls> rows too")
    centre: Literal["none", "unit"] = Field(
        "none",
        description="unit: subtract each unit's (gene's, residue's) mean activation over the training data before the SAE",
    )
    auxk_coefficient: float = Field(1 / 32, ge=0, description="weight of the dead-latent loss; 0 turns it off")
    dead_after_tokens: int = Field(500_000, ge=1, description="a latent silent this long is dead")
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    checkpoint_every_seconds: float = Field(300, gt=0)
    log_every: int = Field(50, ge=1)
    layers_per_task: int = Field(1, ge=1, description="layers one Slurm task trains")
    layers_at_once: int | None = Field(
        None,
        ge=1,
        description="layers one process trains at once; default: as many as fit a GPU's free memory, elsewhere 1",
    )
    gpus_per_task: int = Field(1, ge=0)
    evaluate_tokens: int = Field(200_000, ge=1, description="held-out tokens the metrics are measured on")
    loss_recovered_cells: int = Field(
        64,
        ge=0,
        validation_alias=also("loss_recovered_cells", "loss_recovered_items"),
        description="held-out items (cells, proteins) on which the reconstruction is spliced into the model; 0 leaves that out",
    )
    stability: bool = Field(
        False, description="train a second SAE with another seed, to see which share of the features comes back"
    )
    loggers: list[Literal["wandb", "tensorboard"]] = Field(default_factory=list)
