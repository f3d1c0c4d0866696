"""The column `residues` of feature_examples.parquet: the units of a window as one text, and back again."""

from __future__ import annotations

from collections.abc import Sequence

BETWEEN = "\x1f"  # the unit separator of ASCII: no name of a unit has it


def join_units(names: Sequence[str], are_letters: bool) -> str:
    """The units of a window one after the other, with a separator where units are more than letters."""
    return ("" if are_letters else BETWEEN).join(names)


def split_units(text: str, n: int) -> list[str]:
    """The names of the n units of a window. Raises ValueError where the text has other than n."""
    names = [text] if n == 1 else text.split(BETWEEN) if BETWEEN in text else list(text)
    if len(names) != n:
        raise ValueError("a window has other than one unit per activation")
    return names
