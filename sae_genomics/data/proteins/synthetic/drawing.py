"""Draw a domain from its pattern.

A pattern says which residues are possible; in real domains some of them are much more frequent than others. So each pattern gets
a profile, made up once from the seed: chances of the residues at each position, 0 where the pattern forbids a residue. Domains of
all families come from this profile. The profile is synthetic too, and it is no published one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_genomics.data.proteins.synthetic.composition import among, background, draw
from sae_genomics.data.proteins.synthetic.patterns import Pattern

CONCENTRATION = 0.15
"""Shape of the gamma distribution of a residue's weight. Small: few residues make up most of a position."""


@dataclass(frozen=True)
class Profile:
    """`chances`: [longest, 20], of each residue at each position of the pattern at its longest; `element`: [longest], whose position it is."""

    pattern: Pattern
    chances: npt.NDArray[np.float64]
    element: npt.NDArray[np.int64]


def make_profile(pattern: Pattern, generator: np.random.Generator) -> Profile:
    element = np.repeat(np.arange(len(pattern.elements)), [e.most for e in pattern.elements])
    allowed = np.stack([among(e.allowed) for e in pattern.elements])[element]
    weights = background() * (generator.gamma(CONCENTRATION, size=allowed.shape) + 0.02)
    chances = np.where(allowed, weights, 0.0)
    return Profile(pattern, chances / chances.sum(axis=1, keepdims=True), element)


def draw_chances(
    profile: Profile, generator: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """A domain of a length that the pattern allows: chances [length, 20] and each position's element [length]."""
    elements = profile.pattern.elements
    lengths = np.array([generator.integers(e.least, e.most + 1) for e in elements])
    within = np.concatenate([np.arange(e.most) for e in elements])
    keep = within < lengths[profile.element]
    return profile.chances[keep], profile.element[keep]


def break_one(
    profile: Profile, chances: npt.NDArray[np.float64], element: npt.NDArray[np.int64], generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """The same domain with one essential residue replaced by others: a decoy. Essential: a position with one possible residue."""
    fixed = np.array([e.fixed for e in profile.pattern.elements])[element]
    at = generator.choice(np.flatnonzero(fixed))
    weights = np.where(chances[at] > 0, 0.0, background())
    broken = chances.copy()
    # one residue for the whole family
    broken[at] = np.eye(len(weights))[generator.choice(len(weights), p=weights / weights.sum())]
    return broken


def descend(
    chances: npt.NDArray[np.float64], rate: float, n_members: int, generator: np.random.Generator
) -> npt.NDArray[np.int8]:
    """A family's members at these positions: int8 [members, positions]. One ancestor is drawn; each residue of each member is drawn anew with probability `rate`."""
    ancestor = draw(chances, 1, generator)
    anew = generator.random((n_members, len(chances))) < rate
    return np.where(anew, draw(chances, n_members, generator), ancestor)
