"""Families of synthetic proteins: an architecture of domains, an ancestral sequence, and members that differ from it.

A family's ancestor is its own: a family that nobody trained on is new in everything but its domains. Each concept occurs in several
families, beside others, so that a family does not tell the concept.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sae_genomics.data.proteins.synthetic.composition import background, codes, draw, flexible
from sae_genomics.data.proteins.synthetic.drawing import Profile, break_one, descend, draw_chances

LENGTHS = (60, 400)
MEMBERS = (3, 8)
DOMAIN_SHARE = 0.6
"""At most this share of a protein's length is planned for domains."""
CHANGED_IN_DOMAINS, CHANGED_IN_LINKERS, CHANGED_IN_REPEATS = 0.35, 0.5, 0.08
"""How often a member's residue is drawn anew, where the pattern leaves a choice."""
DELETED = 0.2
"""A member lacks up to this share of each linker, in one piece."""
SHORTEST_LINKER = 4


@dataclass(frozen=True)
class Copies:
    """How many copies of a domain stand one after the other, and what joins them: a text, or linkers of about a length."""

    least: int = 1
    most: int = 1
    text: str = ""
    length: int = 0


TANDEM = {
    "PS00018": Copies(2, 3, length=24),
    "PS00022": Copies(1, 4, length=22),
    "PS00028": Copies(2, 5, text="TGEKP"),  # the linker of tandem fingers (Wolfe et al., Annu Rev Biophys 2000, 29:183)
    "PS00198": Copies(1, 2, length=18),
    "PS00678": Copies(2, 5, length=26),
    "PS50158": Copies(1, 3, length=7),
}


@dataclass
class Segment:
    """One part of a family: residues [members, length], which of them each member has, and what is planted there."""

    residues: npt.NDArray[np.int8]
    kept: npt.NDArray[np.bool_]
    concept: int | None = None
    decoy: bool = False


@dataclass
class Protein:
    """Spans and decoys: (first residue from 0, one behind the last, number of the pattern)."""

    family: str
    residues: npt.NDArray[np.int8]
    spans: list[tuple[int, int, int]] = field(default_factory=list)
    decoys: list[tuple[int, int, int]] = field(default_factory=list)


def make_families(n_families: int, profiles: list[Profile], generator: np.random.Generator) -> list[Protein]:
    """The proteins of all families, one family after the other."""
    uses = np.zeros(len(profiles))
    proteins = []
    for number in range(n_families):
        n_members = int(generator.integers(MEMBERS[0], MEMBERS[1] + 1))
        segments = plan_family(profiles, uses, n_members, generator)
        proteins.extend(assemble(f"SF{number + 1:03d}", segments, n_members))
    return proteins


def plan_family(
    profiles: list[Profile], uses: npt.NDArray[np.float64], n_members: int, generator: np.random.Generator
) -> list[Segment]:
    """The family's segments in order. The concepts used least so far come first; `uses` counts on."""
    length = int(np.exp(generator.uniform(np.log(LENGTHS[0] + 25), np.log(LENGTHS[1] - 40))))
    parts: list[list[Segment]] = []
    planned = 0
    for concept in np.lexsort((generator.random(len(profiles)), uses)):
        parts_length = _length(module := plan_module(profiles, int(concept), n_members, length, generator))
        if planned + parts_length > DOMAIN_SHARE * length:
            continue
        parts.append(module)
        planned += parts_length
        uses[concept] += 1
        if len(parts) == 4:
            break
    n_decoys = 1 + int(length > 150) + int(length > 250)
    for concept in generator.choice(len(profiles), n_decoys, replace=False):
        decoy = plan_domain(profiles[concept], int(concept), n_members, generator, decoy=True)
        if planned + _length([decoy]) < 0.75 * length:
            parts.append([decoy])
            planned += _length([decoy])
    for _ in range(generator.integers(0, 3)):
        repeat = plan_repeat(n_members, generator)
        if planned + _length([repeat]) < 0.8 * length:
            parts.append([repeat])
            planned += _length([repeat])
    order = generator.permutation(len(parts))
    spare = max(length - planned, 0)
    sizes = SHORTEST_LINKER + (generator.dirichlet(np.full(len(parts) + 1, 1.5)) * spare).astype(int)
    segments = [_whole(np.broadcast_to(codes("M"), (n_members, 1)))]
    for size, part in zip(sizes, [*order, None], strict=True):
        segments.append(plan_linker(int(size), n_members, generator))
        segments.extend([] if part is None else parts[part])
    return segments


def plan_module(
    profiles: list[Profile], concept: int, n_members: int, length: int, generator: np.random.Generator
) -> list[Segment]:
    """A domain, or several copies of it with what joins them."""
    profile = profiles[concept]
    tandem = TANDEM.get(profile.pattern.accession, Copies())
    fitting = int(DOMAIN_SHARE * length) // (profile.pattern.longest + len(tandem.text) + tandem.length)
    n_copies = int(generator.integers(tandem.least, max(tandem.least, min(tandem.most, fitting)) + 1))
    segments: list[Segment] = []
    for copy in range(n_copies):
        if copy and tandem.text:
            segments.append(_whole(descend(_about(tandem.text), CHANGED_IN_REPEATS, n_members, generator)))
        elif copy:
            segments.append(plan_linker(int(tandem.length * generator.uniform(0.8, 1.2)), n_members, generator))
        segments.append(plan_domain(profile, concept, n_members, generator))
    return segments


def plan_domain(
    profile: Profile, concept: int, n_members: int, generator: np.random.Generator, decoy: bool = False
) -> Segment:
    chances, element = draw_chances(profile, generator)
    if decoy:
        chances = break_one(profile, chances, element, generator)
    segment = _whole(descend(chances, CHANGED_IN_DOMAINS, n_members, generator))
    segment.concept, segment.decoy = concept, decoy
    return segment


def plan_linker(length: int, n_members: int, generator: np.random.Generator) -> Segment:
    """Background residues, half of the linkers of flexible composition. Each member lacks a piece of it."""
    composition = flexible() if generator.random() < 0.5 else background()
    residues = descend(np.tile(composition, (length, 1)), CHANGED_IN_LINKERS, n_members, generator)
    missing = generator.integers(0, int(DELETED * length) + 1, n_members)
    first = (generator.random(n_members) * (length - missing + 1)).astype(int)
    at = np.arange(length)
    gone = (at >= first[:, None]) & (at < (first + missing)[:, None])
    return Segment(residues, ~gone)


def plan_repeat(n_members: int, generator: np.random.Generator) -> Segment:
    """Low complexity: a unit of three to six residues, five to nine times."""
    unit = draw(np.tile(background(), (int(generator.integers(3, 7)), 1)), 1, generator)[0]
    residues = np.tile(unit, int(generator.integers(5, 10)))
    changed = generator.random((n_members, len(residues))) < CHANGED_IN_REPEATS
    anew = draw(np.tile(background(), (len(residues), 1)), n_members, generator)
    return _whole(np.where(changed, anew, residues))


def assemble(family: str, segments: list[Segment], n_members: int) -> list[Protein]:
    """Put each member's residues together, and note where its spans and decoys are."""
    lengths = np.stack([segment.kept.sum(axis=1) for segment in segments])
    stops = np.cumsum(lengths, axis=0)
    residues = np.concatenate([segment.residues for segment in segments], axis=1)
    kept = np.concatenate([segment.kept for segment in segments], axis=1)
    proteins = []
    for member in range(n_members):
        protein = Protein(family, residues[member, kept[member]])
        for segment, length, stop in zip(segments, lengths[:, member], stops[:, member], strict=True):
            if segment.concept is not None:
                planted = protein.decoys if segment.decoy else protein.spans
                planted.append((int(stop - length), int(stop), segment.concept))
        proteins.append(protein)
    return proteins


def _about(text: str) -> npt.NDArray[np.float64]:
    """Chances of a text whose residues now and then are others: [length, 20]."""
    return 0.7 * np.eye(20)[codes(text)] + 0.3 * background()


def _whole(residues: npt.NDArray[np.int8]) -> Segment:
    return Segment(residues, np.ones(residues.shape, dtype=bool))


def _length(segments: list[Segment]) -> int:
    return sum(segment.residues.shape[1] for segment in segments)
