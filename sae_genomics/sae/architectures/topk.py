"""TopK (Gao et al. 2024, arXiv:2406.04093): the k latents of each token with the largest h_j |W_dec[j]|."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sae_genomics.sae.architecture import SparseArchitecture

if TYPE_CHECKING:
    import torch

    from sae_genomics.kernels.sparse import Entries
    from sae_genomics.sae.encode import TokenTopK, Weights
    from sae_genomics.sae.spec import Spec
    from sae_genomics.sae.state import SaeState
    from sae_genomics.sae.torch_step import Active


class TopK(SparseArchitecture):
    name = "topk"
    description = "k latents per token"
    saved_as = "topk"

    def plain_choice(self, score: torch.Tensor, spec: Spec, state: SaeState) -> torch.Tensor:
        from sae_genomics.sae.plain_step import largest

        return largest(score, spec.k)

    def choose(
        self, centred: torch.Tensor, weights: Weights, spec: Spec, state: SaeState, auxiliary: TokenTopK | None
    ) -> Entries:
        from sae_genomics.sae.encode import token_top_k

        return token_top_k(centred, weights, spec.k, auxiliary)

    def candidates(self, hidden: torch.Tensor, score: torch.Tensor, tokens: int, spec: Spec, spare: float) -> Active:
        from sae_genomics.sae.torch_step import token_entries

        latent = score.topk(min(spec.d_sae, int(spare * spec.k)), dim=1, sorted=False).indices
        return token_entries(latent, hidden.gather(1, latent))

    def chosen(self, active: Active, score: torch.Tensor, tokens: int, spec: Spec, state: SaeState) -> Active:
        per_token = len(score) // tokens
        if per_token == spec.k:
            return active
        import torch

        best = score.view(tokens, per_token).topk(spec.k, dim=1, sorted=False).indices
        return active.where((best + per_token * torch.arange(tokens, device=best.device)[:, None]).flatten())

    def l0_advice(self, steps: int | None) -> str:
        return "most tokens have fewer than k positive pre-activations; lower sae.k or raise sae.expansion"
