"""BatchTopK (Bussmann et al. 2024, arXiv:2412.06410): the k T largest h_j |W_dec[j]| of a whole batch of T tokens.

A token alone has no batch. So what is saved has a threshold for all latents, the running mean of the smallest that was chosen.
"""

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


class BatchTopK(SparseArchitecture):
    name = "batchtopk"
    description = "the k T largest of a batch; at inference a threshold, the running mean of the smallest chosen, corrected for its start at 0"

    def plain_choice(self, score: torch.Tensor, spec: Spec, state: SaeState) -> torch.Tensor:
        from sae_genomics.sae.plain_step import largest

        chosen = largest(score.reshape(1, -1), min(spec.k * len(score), score.numel())).view_as(score) * (score > 0)
        if chosen.any():
            state.add_smallest(float(score[chosen > 0].min()))
        return chosen

    def choose(
        self, centred: torch.Tensor, weights: Weights, spec: Spec, state: SaeState, auxiliary: TokenTopK | None
    ) -> Entries:
        from sae_genomics.sae.encode import batch_top_k

        active, smallest = batch_top_k(centred, weights, spec.k, auxiliary)
        if smallest > 0:
            state.add_smallest(smallest)
        return active

    def candidates(self, hidden: torch.Tensor, score: torch.Tensor, tokens: int, spec: Spec, spare: float) -> Active:
        from sae_genomics.sae.torch_step import Active

        wanted = int(tokens * spec.k * spare)
        flat = score.flatten().topk(min(wanted, score.numel()), sorted=False).indices.sort().values
        return Active(flat // spec.d_sae, flat % spec.d_sae, hidden.flatten()[flat])

    def chosen(self, active: Active, score: torch.Tensor, tokens: int, spec: Spec, state: SaeState) -> Active:
        kept = score.topk(min(spec.k * tokens, len(score)), sorted=False).indices.sort().values
        kept = kept[score[kept] > 0]
        if len(kept):
            state.add_smallest(float(score[kept].min()))
        return active.where(kept)

    def threshold(self, state: SaeState, norm: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.full_like(norm, state.mean_smallest, dtype=torch.float64)
