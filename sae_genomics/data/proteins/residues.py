"""Residue letters: which there are, what they are called, and how the letters of a file are checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_genomics.errors import UserError

AMINO_ACIDS = {
    "A": "Ala", "C": "Cys", "D": "Asp", "E": "Glu", "F": "Phe", "G": "Gly", "H": "His", "I": "Ile", "K": "Lys", "L": "Leu",
    "M": "Met", "N": "Asn", "P": "Pro", "Q": "Gln", "R": "Arg", "S": "Ser", "T": "Thr", "V": "Val", "W": "Trp", "Y": "Tyr",
}  # fmt: skip
OTHER_RESIDUES = {"X": "any", "B": "Asp or Asn", "Z": "Glu or Gln", "U": "Sec", "O": "Pyl"}
LETTERS = "".join([*AMINO_ACIDS, *OTHER_RESIDUES])
UNKNOWN = "X"
STOP = "*"
_GAPS = "-."

_A, _Z, _STOP, _X = (np.uint8(ord(letter)) for letter in ("A", "Z", STOP, UNKNOWN))
_LOWER_TO_UPPER = np.arange(256, dtype=np.uint8)
_LOWER_TO_UPPER[ord("a") : ord("z") + 1] -= ord("a") - ord("A")


def unit_name(letter: str) -> str:
    """`Cys (C)`."""
    return f"{(AMINO_ACIDS | OTHER_RESIDUES).get(letter, 'residue')} ({letter})"


@dataclass(frozen=True)
class Letters:
    """How many letters of the input were changed."""

    lower: int = 0
    """lower-case letters, read as upper case"""
    unknown: int = 0
    """letters that are no residue, or none that the model knows, read as X"""
    unknown_kinds: str = ""
    """which these were, in alphabetical order"""
    stops: int = 0
    """stop codons at the end of a sequence, left out"""

    def __add__(self, other: Letters) -> Letters:
        kinds = "".join(sorted({*self.unknown_kinds, *other.unknown_kinds}))
        return Letters(
            self.lower + other.lower, self.unknown + other.unknown, kinds, self.stops + other.stops
        )  # fmt: skip


def checked_residues(
    residues: npt.NDArray[np.uint8],
    ptr: npt.NDArray[np.int64],
    alphabet: str,
    where: Callable[[int], str],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], Letters]:
    """Letters of some sequences, ready for the model.

    residues: uint8 [T], the letters as they stand in the file. ptr: int64 [sequences + 1].
    alphabet: letters that the model knows, X among them. where: says in which file and line a letter stands.

    Returns residues (upper case, every letter in the alphabet), ptr, and what was changed. Raises UserError for gaps, for stop codons
    inside a sequence, and for what is no letter.
    """
    upper = _LOWER_TO_UPPER[residues]
    n_lower = int(np.count_nonzero(upper != residues))
    is_letter = (upper >= _A) & (upper <= _Z)
    stops = np.empty(0, dtype=np.int64)
    if not is_letter.all():
        stops = _checked_stops(upper, is_letter, ptr, where)
        upper = np.delete(upper, stops)
        ptr = ptr - np.searchsorted(stops, ptr)
    is_known = np.zeros(256, dtype=bool)
    is_known[[ord(letter) for letter in alphabet]] = True
    unknown = ~is_known[upper]
    kinds = ""
    if unknown.any():
        kinds = "".join(chr(letter) for letter in np.unique(upper[unknown]))
        upper = np.where(unknown, _X, upper)
    return upper, ptr, Letters(n_lower, int(np.count_nonzero(unknown)), kinds, len(stops))


def _checked_stops(
    upper: npt.NDArray[np.uint8],
    is_letter: npt.NDArray[np.bool_],
    ptr: npt.NDArray[np.int64],
    where: Callable[[int], str],
) -> npt.NDArray[np.int64]:
    """Where a stop codon ends a sequence: int64. Raises UserError for any other sign."""
    signs = np.flatnonzero(~is_letter)
    is_stop = upper[signs] == _STOP
    is_last = np.isin(signs, ptr[1:] - 1)
    wrong = signs[~(is_stop & is_last)]
    if len(wrong):
        first = int(wrong[0])
        sign = chr(upper[first])
        if sign == STOP:
            why = "a stop codon (*) inside the sequence; cut the sequence there, or remove the record"
        elif sign in _GAPS:
            why = f"a gap ({sign!r}); these are aligned sequences: remove the gaps"
        else:
            why = f"{sign!r} is not a residue letter; remove it"
        raise UserError(f"{where(first)}: {why}")
    return signs
