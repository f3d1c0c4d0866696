"""The section `sae` of the config."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sae_genomics.section import Section, also

DEFAULT_ARCHITECTURE = "topk"


class SaeConfig(Section):
    """One sparse autoencoder per layer. An architecture with settings of its own has a subclass of this (`Architecture.section`)."""

    from_: str | None = Field(
        None,
        validation_alias=also("from_", "from"),
        serialization_alias="from",
        description="published SAEs to use instead of training: a folder in SAELens' format, or RELEASE/ID on the hub",
    )
    architecture: str = Field(DEFAULT_ARCHITECTURE, description="a file in sae_genomics/sae/architectures")
    d_sae: int | None = Field(None, ge=1, description="number of features; default: expansion x d_model")
    expansion: float = Field(8, gt=0, description="number of features / d_model, where d_sae is not set")
    k: int = Field(32, ge=1, description="active features per token")
    steps: int = Field(2000, ge=1, description="number of optimisation steps")
    batch_tokens: int = Field(2048, ge=1, description="tokens per optimisation step")
    lr: float | None = Field(
        None, gt=0, description="peak learning rate; default: depends on d_sae, see docs/training.md"
    )
    lr_decay: Literal["linear", "cosine", "none"] = Field("linear", description="how lr falls to 0 at the end")
    lr_warmup_steps: int = Field(100, ge=0, description="steps over which lr rises to its peak")
    lr_decay_fraction: float = Field(
        0.2, ge=0, le=1, description="share of the steps, at the end, over which lr falls to 0"
    )
    normalise: bool = Field(True, description="scale activations to mean norm sqrt(d_model) before training")
    include_cls: bool = Field(False, description="train on the <cls> tokens too")
    centre: Literal["none", "unit"] = Field(
        "none",
        description="unit: subtract each unit's (gene's, residue's) mean activation over the training data before the SAE",
    )
    auxk_coefficient: float = Field(
        1 / 32, ge=0, description="weight of the loss that revives dead features; 0 turns it off"
    )
    dead_after_tokens: int = Field(500_000, ge=1, description="a feature that is inactive for this many tokens is dead")
    compute_dtype: Literal["float32", "bfloat16"] = Field("float32", description="dtype of the SAE's products")
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto | cpu | cuda | cuda:N | mps")
    checkpoint_every_seconds: float = Field(300, gt=0, description="seconds between two checkpoints")
    log_every: int = Field(50, ge=1, description="steps between two lines of the training log")
    layers_per_task: int = Field(1, ge=1, description="number of layers that one Slurm task trains")
    layers_at_once: int | None = Field(
        None,
        ge=1,
        description="number of layers that one process trains at once; default: as many as fit into the GPU's free memory; 1 on a CPU",
    )
    gpus_per_task: int = Field(1, ge=0, description="number of GPUs that one Slurm task of train asks for")
    evaluate_tokens: int = Field(
        200_000, ge=1, description="number of held-out tokens that the metrics are measured on"
    )
    loss_recovered_cells: int = Field(
        64,
        ge=0,
        validation_alias=also("loss_recovered_cells", "loss_recovered_items"),
        description="number of held-out items (cells, proteins) on which loss recovered is measured; 0 leaves it out",
    )
    stability: bool = Field(
        False, description="train a second SAE with another seed, and measure the share of features that both find"
    )
    loggers: list[Literal["wandb", "tensorboard"]] = Field(
        default_factory=list, description="where the training log is written too: wandb | tensorboard"
    )

    @property
    def second_seed(self) -> bool:
        """Whether a second SAE is trained for `sae.stability`: not where the first one is a published one."""
        return self.stability and self.from_ is None
