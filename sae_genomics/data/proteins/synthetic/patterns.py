"""The domains that are planted: consensus patterns as PROSITE writes them, and what reads such a pattern.

Source: PROSITE (Sigrist et al., Nucleic Acids Research 2013, 41:D344; prosite.expasy.org), one accession for each pattern.
The zinc knuckle has a profile there (PS50158) and no pattern: its published consensus C-x2-C-x4-H-x4-C stands here instead.

Syntax: elements joined by "-". A letter stands for itself, [ABC] for one of these, {ABC} for all but these, x for any residue;
(n) repeats an element n times, (n,m) between n and m times.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from sae_genomics.data.proteins.synthetic.composition import RESIDUES


@dataclass(frozen=True)
class Element:
    """`allowed` residues, `least` to `most` times."""

    allowed: str
    least: int
    most: int

    @property
    def fixed(self) -> bool:
        """Only one residue will do."""
        return len(self.allowed) == 1


@dataclass(frozen=True)
class Pattern:
    """One concept: PROSITE's accession, what the domain is called, and the pattern."""

    accession: str
    name: str
    prosite: str

    @cached_property
    def elements(self) -> tuple[Element, ...]:
        return tuple(parse_element(part) for part in self.prosite.split("-"))

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The pattern as a regular expression with one group for each element."""
        return re.compile("".join(f"([{e.allowed}]{{{e.least},{e.most}}})" for e in self.elements))

    @cached_property
    def anywhere(self) -> re.Pattern[str]:
        """Matches at each residue where a match starts, also where matches overlap; the match is group 1."""
        return re.compile(f"(?=({self.regex.pattern}))")

    @property
    def longest(self) -> int:
        return sum(element.most for element in self.elements)


_ELEMENT = re.compile(
    r"(?:\[(?P<of>[A-Z]+)\]|\{(?P<but>[A-Z]+)\}|(?P<one>[A-Zx]))(?:\((?P<least>\d+)(?:,(?P<most>\d+))?\))?"
)


def parse_element(text: str) -> Element:
    match = _ELEMENT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no element of a PROSITE pattern")
    if match["of"]:
        allowed = match["of"]
    elif match["but"]:
        allowed = "".join(residue for residue in RESIDUES if residue not in match["but"])
    else:
        allowed = RESIDUES if match["one"] == "x" else match["one"]
    least = int(match["least"] or 1)
    return Element(allowed, least, int(match["most"] or least))


# fmt: off
PATTERNS = tuple(Pattern(*row) for row in (
    ("PS00017", "P-loop",                      "[AG]-x(4)-G-K-[ST]"),
    ("PS00018", "EF-hand",                     "D-{W}-[DNS]-{ILVFYW}-[DENSTG]-[DNQGHRK]-{GP}-[LIVMC]-[DENQSTAGC]-x(2)-[DE]-[LIVMFYW]"),
    ("PS00022", "EGF-like",                    "C-x-C-x(2)-{V}-x(2)-G-{C}-x-C"),
    ("PS00027", "Homeobox",                    "[LIVMFYG]-[ASLVR]-x(2)-[LIVMSTACN]-x-[LIVM]-{Y}-x(2)-{L}-[LIV]-[RKNQESTAIY]-[LIVFSTNKH]-W-[FYVC]-x-[NDQTAH]-x(5)-[RKNAIMW]"),
    ("PS00028", "Zinc finger C2H2",            "C-x(2,4)-C-x(3)-[LIVMFYWC]-x(8)-H-x(3,5)-H"),
    ("PS00029", "Leucine zipper",              "L-x(6)-L-x(6)-L-x(6)-L"),
    ("PS00039", "DEAD-box helicase",           "[LIVMF](2)-D-E-A-D-[RKEN]-x-[LIVMFYGSTN]"),
    ("PS00086", "Cytochrome P450 heme-binding", "[FW]-[SGNH]-x-[GD]-{F}-[RKHPT]-{P}-C-[LIVMFAP]-[GAD]"),
    ("PS00107", "Protein kinase ATP-binding",  "[LIV]-G-{P}-G-{P}-[FYWMGSTNH]-[SGA]-{PW}-[LIVCAT]-{PD}-x-[GSTACLIVMFY]-x(5,18)-[LIVMFYWCSTAR]-[AIVP]-[LIVMFAGCKR]-K"),
    ("PS00108", "Protein kinase active site",  "[LIVMFYC]-x-[HY]-x-D-[LIVMFY]-K-x(2)-N-[LIVMFYCT](3)"),
    ("PS00135", "Trypsin serine active site",  "[DNSTAGC]-[GSTAPIMVQH]-x(2)-G-[DE]-S-G-[GS]-[SAPHV]-[LIVMFYWH]-[LIVMFYSTANQH]"),
    ("PS00142", "Zinc metallopeptidase",       "[GSTALIVN]-{PCHR}-{KND}-H-E-[LIVMFYW]-{DEHRKP}-H-{EKPC}-[LIVMFYWGSPQ]"),
    ("PS00194", "Thioredoxin active site",     "[LIVMF]-[LIVMSTA]-x-[LIVMFYC]-[FYWSTHE]-x(2)-[FYWGTN]-C-[GATPLVE]-[PHYWSTA]-C-{I}-x-{A}-x(3)-[LIVMFYWT]"),
    ("PS00198", "4Fe-4S ferredoxin",           "C-x-{P}-C-{C}-x-C-{CP}-x-{C}-C-[PEG]"),
    ("PS00463", "Zn(2)-Cys(6) fungal",         "[GASTPV]-C-x(2)-C-[RKHSTACW]-x(2)-[RKHQ]-x(2)-C-x(5,12)-C-x(2)-C-x(6,8)-C"),
    ("PS00518", "Zinc finger RING",            "C-x-H-x-[LIVMFY]-C-x(2)-C-[LIVMYA]"),
    ("PS00678", "WD repeat",                   "[LIVMSTAC]-[LIVMFYWSTAGC]-[LIMSTAG]-[LIVMSTAGC]-x(2)-[DN]-x-{P}-[LIVMWSTAC]-{DP}-[LIVMFSTAG]-W-[DEN]-[LIVMFSTAGCN]"),
    ("PS50158", "Zinc knuckle CCHC",           "C-x(2)-C-x(4)-H-x(4)-C"),
))
# fmt: on
