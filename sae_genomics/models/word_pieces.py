"""What the tokeniser of a family that reads text offers to the data kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt


class TextTokeniser(Protocol):
    """Documents to vocabulary ids, as the model's own tokeniser makes them. It reads no weights."""

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that stand for no text, such as `<bos>`."""

    @property
    def most_tokens(self) -> int:
        """Longest sequence that the model takes, special tokens included."""

    def encode(self, texts: list[str], max_tokens: int | None) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Ids of all documents, int32 [T], and where each begins, int64 [n + 1].

        A document is cut behind `max_tokens` or `most_tokens`, whichever is less.
        """

    def lengths(self, texts: list[str]) -> npt.NDArray[np.int64]:
        """Tokens of each document where nothing is cut, special ones included: int64 [n]."""

    def spell(self, ids: Sequence[int] | npt.NDArray[np.integer]) -> list[str]:
        """Each id as a reader should see it."""
