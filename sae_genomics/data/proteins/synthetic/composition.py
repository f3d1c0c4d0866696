"""How often each residue occurs, and how residues are drawn.

Source: UniProtKB/Swiss-Prot, release 2013_10 of 16 October 2013, statistics, "Composition in percent for the complete database"
(192,480,382 residues).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"

SWISSPROT_PERCENT = {
    "A": 8.25, "C": 1.37, "D": 5.45, "E": 6.75, "F": 3.86, "G": 7.07, "H": 2.27, "I": 5.95, "K": 5.84, "L": 9.66,
    "M": 2.42, "N": 4.06, "P": 4.70, "Q": 3.93, "R": 5.53, "S": 6.57, "T": 5.34, "V": 6.87, "W": 1.08, "Y": 2.92,
}  # fmt: skip

FLEXIBLE = "AEGKPQRS"
"""Residues that are more frequent in parts of proteins without a fixed structure (Dunker et al., J Mol Graph Model 2001)."""


def background() -> npt.NDArray[np.float64]:
    """Published frequency of each residue: [20], sum 1."""
    percent = np.array([SWISSPROT_PERCENT[residue] for residue in RESIDUES])
    return percent / percent.sum()


def flexible() -> npt.NDArray[np.float64]:
    """The published frequencies with the flexible residues three times as likely: [20], sum 1."""
    weights = background() * np.where(among(FLEXIBLE), 3.0, 1.0)
    return weights / weights.sum()


def among(letters: str) -> npt.NDArray[np.bool_]:
    """Which residues are among `letters`: bool [20]."""
    return np.isin(list(RESIDUES), list(letters))


def draw(chances: npt.NDArray[np.float64], rows: int, generator: np.random.Generator) -> npt.NDArray[np.int8]:
    """One residue for each row and position: int8 [rows, positions]. chances: [positions, 20], each row's sum 1."""
    bounds = np.cumsum(chances, axis=1)
    picks = generator.random((rows, len(chances), 1)) * bounds[:, -1:]
    return (picks >= bounds).sum(axis=2).astype(np.int8)


def text(codes: npt.NDArray[np.integer]) -> str:
    """The residues' letters."""
    return np.frombuffer(RESIDUES.encode(), dtype=np.uint8)[codes].tobytes().decode()


def codes(letters: str) -> npt.NDArray[np.int8]:
    """Each letter's number in RESIDUES: int8 [letters]."""
    return np.searchsorted(list(RESIDUES), list(letters)).astype(np.int8)
