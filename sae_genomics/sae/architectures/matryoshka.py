"""Matryoshka (Bussmann et al. 2025, arXiv:2503.17547): BatchTopK, whose first latents must reconstruct by themselves too.

The error of the reconstruction from the first d_sae / 16, / 8, / 4 and / 2 latents is added to the loss.
"""

from __future__ import annotations

from sae_genomics.sae.architectures.batchtopk import BatchTopK


class Matryoshka(BatchTopK):
    name = "matryoshka"
    description = "BatchTopK whose first d_sae / 16, / 8, / 4, / 2 latents must reconstruct too"

    def widths(self, d_sae: int) -> tuple[int, ...]:
        return tuple(sorted({max(1, d_sae // part) for part in (16, 8, 4, 2, 1)}))
