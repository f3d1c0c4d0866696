"""Items as a data kind reads them: what a model family's tokeniser takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class CountItems:
    """Items that are counts of units: cells."""

    rows: npt.NDArray[np.int64]
    """[n], row of each item in the input."""
    counts: csr_matrix
    """float32 [n, units], not negative; only what is above zero becomes a token."""
    token: npt.NDArray[np.int32]
    """[units], vocabulary id of each unit; negative: the unit is left out."""
    drugs: list[str] | None = None
    """Name of each item's drug, for models that read one."""
    totals: npt.NDArray[np.float64] | None = None
    """[n], all counts of each item in the input, also of units that the model does not know; None where they were not asked for."""


@dataclass(frozen=True)
class SequenceItems:
    """Items that are sequences of letters: proteins."""

    rows: npt.NDArray[np.int64]
    """[n], row of each item in the input."""
    sequences: list[str]
    """Upper-case letters as they were read; unknown ones are X already."""
    overlap: int = 128
    """Residues that consecutive windows of a long sequence share (`data.window_overlap`)."""


@dataclass(frozen=True)
class TextItems:
    """Items that are texts: documents."""

    rows: npt.NDArray[np.int64]
    """[n], row of each item in the input."""
    texts: list[str]
    """The documents as they were read."""
    token: npt.NDArray[np.int32]
    """[units], vocabulary id of each unit, ascending: the word pieces that the run has a unit for."""
    max_tokens: int | None = None
    """A document is cut behind so many tokens, special ones included (`data.max_tokens`). None: the model's longest sequence."""


Items = CountItems | SequenceItems | TextItems
