"""The demo's synthetic proteins, and the three files that hold them.

proteins.fasta.gz   one record per protein; every header says "synthetic"
spans.tsv.gz        accession, start, end (1-based, inclusive), concept (PROSITE accession), name
labels.tsv.gz       accession, family, domains (in order, from N to C terminus), decoys (how many), decoy_spans (CONCEPT:START-END)
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sae_genomics.atomic import atomic_path
from sae_genomics.data.proteins.synthetic.cleaning import clean
from sae_genomics.data.proteins.synthetic.composition import text
from sae_genomics.data.proteins.synthetic.drawing import make_profile
from sae_genomics.data.proteins.synthetic.families import Protein, make_families
from sae_genomics.data.proteins.synthetic.patterns import PATTERNS

FAMILIES, SEED = 260, 1
FOLDER = Path(__file__).parents[3] / "assets" / "demo_proteins"
_LINE = 80


def make_proteins(n_families: int = FAMILIES, seed: int = SEED, domains_of: int | None = None) -> list[Protein]:
    """The same seed gives the same proteins, in an order in which families are mixed.

    domains_of: the seed of other proteins, whose domains these have too (their profiles); None: domains of their own.
    """
    profile_seed, family_seed, clean_seed, order_seed = np.random.SeedSequence(seed).spawn(4)
    if domains_of is not None:
        profile_seed = np.random.SeedSequence(domains_of).spawn(4)[0]
    generator = np.random.default_rng(profile_seed)
    profiles = [make_profile(pattern, generator) for pattern in PATTERNS]
    proteins = make_families(n_families, profiles, np.random.default_rng(family_seed))
    generator = np.random.default_rng(clean_seed)
    for protein in proteins:
        clean(protein, generator)
        protein.spans.sort()
    order = np.random.default_rng(order_seed).permutation(len(proteins))
    return [proteins[i] for i in order]


def accession_of(index: int) -> str:
    return f"SYN{index + 1:05d}"


def write_proteins(proteins: list[Protein], folder: Path) -> None:
    _write(folder / "proteins.fasta.gz", _fasta(proteins))
    spans = [
        (accession_of(i), start + 1, stop, PATTERNS[concept].accession, PATTERNS[concept].name)
        for i, protein in enumerate(proteins)
        for start, stop, concept in protein.spans
    ]
    _write(folder / "spans.tsv.gz", _table(("accession", "start", "end", "concept", "name"), spans))
    labels = [
        (
            accession_of(i), protein.family, ";".join(PATTERNS[concept].accession for _, _, concept in protein.spans),
            len(protein.decoys),
            ";".join(f"{PATTERNS[concept].accession}:{start + 1}-{stop}" for start, stop, concept in protein.decoys),
        )
        for i, protein in enumerate(proteins)
    ]  # fmt: skip
    _write(folder / "labels.tsv.gz", _table(("accession", "family", "domains", "decoys", "decoy_spans"), labels))


def _fasta(proteins: list[Protein]) -> str:
    lines = []
    for i, protein in enumerate(proteins):
        sequence = text(protein.residues)
        lines.append(f">{accession_of(i)} synthetic; family {protein.family}; {len(protein.spans)} planted domains")
        lines.extend(sequence[at : at + _LINE] for at in range(0, len(sequence), _LINE))
    return "\n".join(lines) + "\n"


def _table(columns: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> str:
    return "".join("\t".join(map(str, row)) + "\n" for row in (columns, *rows))


def _write(path: Path, content: str) -> None:
    # no time and no name in the header: the same proteins give the same file
    with (
        atomic_path(path) as temporary,
        open(temporary, "wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=9, fileobj=raw, mtime=0) as file,
    ):
        file.write(content.encode())
