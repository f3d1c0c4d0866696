"""Write the demo's proteins: `python -m sae_genomics.data.proteins.synthetic --output FOLDER`."""

from __future__ import annotations

import argparse
from pathlib import Path

from sae_genomics.data.proteins.synthetic.writing import FAMILIES, FOLDER, SEED, make_proteins, write_proteins


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=FOLDER, help="default: %(default)s")
    parser.add_argument("--families", type=int, default=FAMILIES, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=SEED, help="default: %(default)s")
    parser.add_argument(
        "--domains-of",
        type=int,
        metavar="SEED",
        help="new families of the domains that this seed gives; without it the domains' free positions are drawn anew",
    )
    arguments = parser.parse_args()
    proteins = make_proteins(arguments.families, arguments.seed, arguments.domains_of)
    write_proteins(proteins, arguments.output)
    n_spans = sum(len(protein.spans) for protein in proteins)
    n_residues = sum(len(protein.residues) for protein in proteins)
    print(f"{len(proteins):,} synthetic proteins, {n_residues:,} residues, {n_spans:,} spans: {arguments.output}")


if __name__ == "__main__":
    main()
