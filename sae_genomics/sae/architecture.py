"""An SAE architecture: which latents are active, what is minimised beside the error, and how the SAE is saved.

`architectures/` has one file per architecture; docs/architectures.md says how to add one. All of them share

    h = (x - b_dec) W_enc^T + b_enc;   x^ = b_dec + sum_j a_j W_dec[j]

and differ in a(h) and in the loss. Importing an architecture's module is quick, because every command reads the list of them: what
needs torch is imported where it is used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sae_genomics.errors import UserError
from sae_genomics.sae.section import SaeConfig

if TYPE_CHECKING:
    import torch

    from sae_genomics.kernels.sparse import Entries
    from sae_genomics.sae.encode import TokenTopK, Weights
    from sae_genomics.sae.spec import Spec
    from sae_genomics.sae.state import SaeState
    from sae_genomics.sae.step import TakeStep
    from sae_genomics.sae.torch_step import Active

Parameters = Mapping[str, "torch.Tensor"]


class Architecture(ABC):
    """What every architecture says of itself; SparseArchitecture and DenseArchitecture are the two ways to make its step.

    name: as in `sae.architecture`. description: one line, without a full stop.
    section: the config's section `sae` for it; a subclass of SaeConfig where it has settings of its own.
    uses_k: `sae.k` is the number of active latents per token that it aims at. Else the metrics compare L0 with nothing.
    dense: a step holds all pre-activations and their gradients in memory, not active latents alone.
    saved_as: what SAELens calls the saved SAE. topk: the k largest h_j, if positive. jumprelu: a_j = h_j where h_j > threshold_j.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    section: ClassVar[type[SaeConfig]] = SaeConfig
    uses_k: ClassVar[bool] = True
    dense: ClassVar[bool]
    saved_as: ClassVar[Literal["topk", "jumprelu"]] = "jumprelu"

    def check(self, settings: SaeConfig, d_sae: int) -> None:
        """Raise UserError for settings that cannot work with d_sae latents. It is asked before anything runs."""
        if self.uses_k and settings.k > d_sae:
            raise UserError(
                f"sae.k = {settings.k} is more than d_sae = {d_sae} (sae.expansion x d_model); "
                f"set sae.k to {d_sae} or less, or sae.d_sae to more"
            )

    def widths(self, d_sae: int) -> tuple[int, ...]:
        """Sizes of nested dictionaries, ascending to d_sae; (d_sae,) where there is one dictionary."""
        return (d_sae,)

    def own_settings(self, settings: SaeConfig) -> dict[str, Any]:
        """The settings that this architecture alone has."""
        return {
            name: getattr(settings, name) for name in self.section.model_fields if name not in SaeConfig.model_fields
        }

    def shown_settings(self, settings: SaeConfig) -> dict[str, Any]:
        """The settings that decide how many latents are active, for the log and the report."""
        return ({"k": settings.k} if self.uses_k else {}) | self.own_settings(settings)

    def in_words(self, settings: SaeConfig) -> str:
        """The same in one line: `k = 32`."""
        return ", ".join(f"{name} = {value}" for name, value in self.shown_settings(settings).items())

    @abstractmethod
    def make_step(self, state: SaeState, spec: Spec, device: torch.device) -> TakeStep:
        """What takes the optimisation steps. It moves the state to the device."""

    def threshold(self, state: SaeState, norm: torch.Tensor) -> torch.Tensor:
        """What h_j |W_dec[j]| must exceed for latent j to be active in the saved SAE, [d_sae], in the units of training.

        norm: float32 [d_sae], |W_dec[j]|. It is not asked of what is saved as topk. The default is that of a ReLU.
        """
        return norm.new_zeros(len(norm))

    def l0_advice(self, steps: int | None) -> str:
        """Why L0 is far from `sae.k`, and what to do; steps: how many were taken. It is asked where `uses_k` holds."""
        return f"the threshold of this {self.name} SAE has not settled; raise sae.steps (now {steps})"


class SparseArchitecture(Architecture):
    """A choice of the largest h_j |W_dec[j]|: gradients come from active latents alone, on a CPU and on CUDA.

    The loss is that of `sae_genomics.sae.step`. Both devices choose in their own way, so that nothing of size tokens x d_sae is kept.
    """

    dense = False

    def make_step(self, state: SaeState, spec: Spec, device: torch.device) -> TakeStep:
        if device.type == "cuda":
            from sae_genomics.sae.torch_step import TorchStep

            return TorchStep(state.to(device), spec, self)
        import torch

        from sae_genomics.sae.cpu_step import CpuStep

        return CpuStep(state.to(torch.device("cpu")), spec, self)

    @abstractmethod
    def plain_choice(self, score: torch.Tensor, spec: Spec, state: SaeState) -> torch.Tensor:
        """The choice as its formula says it: 1 where a latent may be active, else 0. score: h_j |W_dec[j]|, [tokens, d_sae].

        It is for reading, and for tests that compare it with the next three, which choose the same latents quickly.
        """

    @abstractmethod
    def choose(
        self, centred: torch.Tensor, weights: Weights, spec: Spec, state: SaeState, auxiliary: TokenTopK | None
    ) -> Entries:
        """The active latents of x - b_dec, float32 [tokens, d_in], on a CPU. `auxiliary` must see every block of h, once."""

    @abstractmethod
    def candidates(self, hidden: torch.Tensor, score: torch.Tensor, tokens: int, spec: Spec, spare: float) -> Active:
        """The candidates among a few tokens' h, float32 [rows, d_sae], in torch; these tokens are counted from 0.

        score: h_j |W_dec[j]|. tokens: of the whole batch. spare: how many times as many as needed are to be taken.
        """

    @abstractmethod
    def chosen(self, active: Active, score: torch.Tensor, tokens: int, spec: Spec, state: SaeState) -> Active:
        """The active latents among all tokens' candidates. score: float32 [n], max(h_j, 0) |W_dec[j]| of each candidate."""


class DenseArchitecture(Architecture):
    """An activation and a loss in torch, which autograd differentiates: the same on every device, and as slow as it looks.

        L = 1/T sum_t |x - x^|^2 + sparsity_loss

    parameters: W_enc [d_sae, d_in], b_enc [d_sae], W_dec [d_sae, d_in], b_dec [d_in], and those of `first_parameters`.
    The norms of W_dec's rows are free, and are folded into W_enc when the SAE is saved: a loss on a_j must be one on a_j |W_dec[j]|.
    """

    dense = True

    def make_step(self, state: SaeState, spec: Spec, device: torch.device) -> TakeStep:
        from sae_genomics.sae.dense_step import DenseStep

        return DenseStep(state.to(device), spec, self)

    def first_parameters(self, state: SaeState, x: torch.Tensor, spec: Spec) -> dict[str, torch.Tensor]:
        """Further parameters by name, before the first step; x is its batch, float32 [tokens, d_in]."""
        return {}

    @abstractmethod
    def activation(self, hidden: torch.Tensor, parameters: Parameters, spec: Spec) -> torch.Tensor:
        """a of h, float32 [tokens, d_sae]. What is saved is `saved_as` and `threshold`: they must say the same."""

    @abstractmethod
    def sparsity_loss(
        self, hidden: torch.Tensor, active: torch.Tensor, parameters: Parameters, spec: Spec
    ) -> torch.Tensor:
        """What is minimised beside the squared error, a number. active: a of hidden, both float32 [tokens, d_sae]."""

    def constrain(self, parameters: Parameters) -> None:
        """Change parameters in place after each step, where some values are not allowed."""
