"""Two sets of directions against each other: an SAE's decoder against a known dictionary, or against another seed's.

MMCS = mean over one set of the largest cosine with a direction of the other (mean max cosine similarity)
matched share = share of one set whose largest cosine is at least a bound
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

RECOVERED_COSINE = 0.9  # a known direction is found
STABLE_COSINE = 0.7  # a feature has a partner in another seed's SAE
_BLOCK = 4096


@dataclass(frozen=True)
class Match:
    """best: float32 [n], each direction's largest cosine with one of the other set. Signs count: -1 is no match."""

    best: torch.Tensor

    @property
    def mmcs(self) -> float:
        return float(self.best.double().mean())

    def share(self, cosine: float) -> float:
        """Share of the directions matched at `cosine` or better."""
        return float((self.best >= cosine).double().mean())


def match(directions: torch.Tensor, among: torch.Tensor) -> Match:
    """Match each row of `directions`, [n, d], with the rows of `among`, [m, d]; norms do not matter. No [n, m] is kept."""
    left = torch.nn.functional.normalize(directions.float(), dim=1)
    right = torch.nn.functional.normalize(among.float(), dim=1)
    best = torch.full((len(left),), -1.0, device=left.device)
    for start in range(0, len(left), _BLOCK):
        part = slice(start, start + _BLOCK)
        for first in range(0, len(right), _BLOCK):
            cosine = left[part] @ right[first : first + _BLOCK].T
            best[part] = torch.maximum(best[part], cosine.amax(dim=1))
    return Match(best)
