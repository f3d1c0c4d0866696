"""Where the sequences of a packed batch begin, the pieces in which a CPU takes it, and means over them. Nothing here is of one family."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# called with (hook, layer, activations [T, d_model]); what it returns, the network goes on with
Listener = Callable[[str, int, Tensor], Tensor]


class Sequences:
    """Where the sequences of a packed batch begin.

    ptr: int64 [sequences + 1]. padded: attention pads to the longest sequence and masks, which launches few kernels; otherwise it
    takes one sequence after the other.
    angles: cosine and sine of rotary positions, float32 [T, d_head / 2] both; None until a network with such positions computes them.
    """

    def __init__(self, ptr: npt.NDArray[np.int64], device: torch.device, *, padded: bool):
        self.ptr = ptr
        lengths = np.diff(ptr)
        self.count, self.longest = len(lengths), int(lengths.max(initial=0))
        self.padded = padded
        self.angles: tuple[Tensor, Tensor] | None = None
        sequence = np.repeat(np.arange(self.count), lengths)
        place = np.arange(int(ptr[-1])) - ptr[sequence]
        self.of_token = torch.from_numpy(sequence).to(device)
        self.place = torch.from_numpy(place).to(device)
        self.lengths = torch.from_numpy(lengths).to(device)
        self.is_uniform = bool((lengths == self.longest).all())
        self.row = self.of_token * self.longest + self.place
        self.real = torch.arange(self.longest, device=device) < self.lengths[:, None] if padded else None

    @property
    def computed(self) -> int:
        """Tokens that the widest step computes, padding included."""
        return self.count * self.longest if self.padded else int(self.ptr[-1])

    def pad(self, rows: Tensor) -> Tensor:
        """[T, n] -> [sequences, longest, n]."""
        if self.is_uniform:
            return rows.view(self.count, self.longest, -1)
        padded = rows.new_zeros(self.count * self.longest, rows.shape[1])
        return padded.index_copy(0, self.row, rows).view(self.count, self.longest, -1)

    def pack(self, padded: Tensor) -> Tensor:
        """[sequences, longest, n] -> [T, n]."""
        flat = padded.reshape(self.count * self.longest, -1)
        return flat if self.is_uniform else flat[self.row]


def pieces_of(ptr: npt.NDArray[np.int64], tokens: int | None) -> list[tuple[int, int]]:
    """First sequence and the one behind the last of each piece of at most so many tokens, or of one sequence; None: one piece.

    ptr: int64 [sequences + 1].
    """
    n = len(ptr) - 1
    if tokens is None:
        return [(0, n)]
    cuts = [0]
    while cuts[-1] < n:
        most = int(np.searchsorted(ptr, ptr[cuts[-1]] + tokens, side="right")) - 1
        cuts.append(max(most, cuts[-1] + 1))
    return list(pairwise(cuts))


def mean_over(x: Tensor, sequences: Sequences, counts: npt.NDArray[np.bool_]) -> Tensor:
    """[sequences, n]: the mean of x [T, n] over those tokens of each sequence that count; zeros where none does."""
    usual = torch.from_numpy(counts).to(x)
    n = x.new_zeros(sequences.count).index_add(0, sequences.of_token, usual)
    sums = x.new_zeros(sequences.count, x.shape[1]).index_add(0, sequences.of_token, x * usual[:, None])
    return sums / n.clamp(min=1)[:, None]
