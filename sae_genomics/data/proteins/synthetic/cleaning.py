"""Make the planted truth the whole truth: no pattern matches where no span of it is.

Random residues match a short pattern now and then, and a decoy may match in another alignment. Such a match loses one residue. Where
all of its residues belong to planted domains, it is annotated instead: it is one.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from sae_genomics.data.proteins.synthetic.composition import RESIDUES, among, background, codes, text
from sae_genomics.data.proteins.synthetic.families import Protein
from sae_genomics.data.proteins.synthetic.patterns import PATTERNS, Pattern

_ROUNDS = 100


def clean(protein: Protein, generator: np.random.Generator) -> None:
    """Change `protein` until every match of a pattern touches a span of this concept."""
    for _ in range(_ROUNDS):
        match = _first_unplanted(protein)
        if match is None:
            return
        concept, found = match
        at, allowed = _weakest(PATTERNS[concept], found, _free(protein))
        if at is None:
            protein.spans.append((found.start(), found.end(), concept))
            continue
        weights = np.where(among(allowed), 0.0, background())
        letter = RESIDUES[generator.choice(len(RESIDUES), p=weights / weights.sum())]
        protein.residues[at] = codes(letter)[0]
    raise RuntimeError("a match of a pattern stays where no span is")


def _first_unplanted(protein: Protein) -> tuple[int, re.Match[str]] | None:
    sequence = text(protein.residues)
    for concept, pattern in enumerate(PATTERNS):
        spans = [(start, stop) for start, stop, planted in protein.spans if planted == concept]
        for lookahead in pattern.anywhere.finditer(sequence):
            found = pattern.regex.match(sequence, lookahead.start())
            assert found is not None
            if not any(found.start() < stop and start < found.end() for start, stop in spans):
                return concept, found
    return None


def _free(protein: Protein) -> npt.NDArray[np.bool_]:
    """Residues that may be changed: those of no span, and not the first methionine."""
    free = np.ones(len(protein.residues), dtype=bool)
    free[0] = False
    for start, stop, _ in protein.spans:
        free[start:stop] = False
    return free


def _weakest(pattern: Pattern, found: re.Match[str], free: npt.NDArray[np.bool_]) -> tuple[int | None, str]:
    """The free residue of the match that the fewest others could stand for, and those: (None, "") if there is none."""
    best: tuple[int | None, str] = (None, "")
    for group, element in enumerate(pattern.elements, start=1):
        positions = [at for at in range(*found.span(group)) if free[at]]
        if (
            positions
            and len(element.allowed) < len(RESIDUES)
            and (best[0] is None or len(element.allowed) < len(best[1]))
        ):
            best = positions[0], element.allowed
    return best
