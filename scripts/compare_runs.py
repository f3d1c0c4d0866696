"""Which terms of known biology are found in which model and layer, and how many of them two models would share by chance.

    python scripts/compare_runs.py results/tahoe_70m results/tahoe_3b
    python scripts/compare_runs.py configs/a.yaml configs/b.yaml --out results/comparison

Each RUN is the folder of a run's results or its config file; the stage validate of each must be done. The page is printed. With --out the
folder gets comparison.md, terms.tsv (each term, and the number of features that have it in each run and layer) and pairs.tsv
(each two runs and layers, beside chance). Only files are read; no network is used. Exit codes: 0 done, 2 something you can fix.
docs/known_biology.md says more.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sae_genomics.atomic import write_text
from sae_genomics.comparison.document import document
from sae_genomics.comparison.pairs import compare_pairs
from sae_genomics.comparison.run_terms import read_runs
from sae_genomics.comparison.term_table import term_table
from sae_genomics.errors import EXIT_DONE, UserError
from sae_genomics.guard import guarded


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="results/<run>, or the config file of a run")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write comparison.md, terms.tsv and pairs.tsv there")
    arguments = parser.parse_args(argv)
    return guarded(lambda: _run(arguments.runs, arguments.out))


def _run(paths: list[Path], out: Path | None) -> int:
    if len(paths) < 2:
        raise UserError("name two runs or more: scripts/compare_runs.py results/A results/B")
    runs = read_runs(paths)
    terms, pairs = term_table(runs), compare_pairs(runs)
    text = document(runs, pairs, terms)
    if out is None:
        print(text, end="")
        return EXIT_DONE
    write_text(out / "terms.tsv", terms.to_csv(sep="\t", index=False, lineterminator="\n"))
    write_text(out / "pairs.tsv", pairs.to_csv(sep="\t", index=False, lineterminator="\n"))
    write_text(out / "comparison.md", text)
    print(f"{len(terms):,} terms in {len(runs)} runs: {out / 'comparison.md'}")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
