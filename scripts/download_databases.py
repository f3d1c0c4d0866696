"""Fetch databases of known biology and bring them into one normal form, which is all that the stage validate reads of them.

Run it on a login node: compute nodes often have no network. A fetch that was stopped goes on when the same command is typed again.

    python scripts/download_databases.py --list                    what there is
    python scripts/download_databases.py                           all of them
    python scripts/download_databases.py --only hpo reactome       two of them
    python scripts/download_databases.py --from FOLDER             without a network: FOLDER/hpo/hp.obo, FOLDER/reactome/...

Sources with an access key read it from an environment variable (OMIM_API_KEY, DISGENET_API_KEY) and are skipped without it.
Each source leaves terms.parquet, where it has them terms_parents.parquet and edges.parquet, and source.json in TO/<source>.
Exit codes: 0 done, 2 where a source failed (one line says why; the others are there). docs/databases.md says more.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from sae_genomics.config import PathsConfig
from sae_genomics.errors import EXIT_DONE, EXIT_USER, UserError
from sae_genomics.guard import guarded
from sae_genomics.progress import say
from sae_genomics.validation.normal_form.build import built
from sae_genomics.validation.normal_form.catalogue import CATALOGUE, Entry, chosen, read_catalogue
from sae_genomics.validation.normal_form.obtain import Task, obtain
from sae_genomics.web import Patience


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", action="extend", default=[], metavar="NAME", help="these sources (default: all)"
    )
    parser.add_argument(
        "--list", action="store_true", help="show the sources, their licences and what is there, and stop"
    )
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="FOLDER",
        help="take the files from FOLDER/<source>/, under their official names, and use no network; sources without a folder are passed over",
    )  # fmt: skip
    parser.add_argument(
        "--to", type=Path, default=PathsConfig().databases, metavar="FOLDER", help="where the sources go: paths.databases of a config (default: %(default)s)"
    )  # fmt: skip
    parser.add_argument("--again", action="store_true", help="also fetch what is there and has the catalogue's version")
    parser.add_argument(
        "--catalogue", type=Path, default=CATALOGUE, metavar="FILE", help="default: configs/databases.yaml"
    )
    parser.add_argument("--tries", type=int, default=Patience.tries, help="tries per request (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=Patience.timeout, help="seconds without an answer until the next try (default: %(default)s)")  # fmt: skip
    arguments = parser.parse_args(argv)
    return guarded(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    catalogue = read_catalogue(arguments.catalogue)
    names = chosen(arguments.only, catalogue) or list(catalogue)
    if arguments.list:
        for name in names:
            print(_line(name, catalogue[name], arguments.to))
        return EXIT_DONE
    if arguments.tries < 1 or not arguments.timeout > 0:
        raise UserError("--tries takes a number from 1 on, and --timeout seconds above 0")
    patience = Patience(tries=arguments.tries, timeout=arguments.timeout)
    outcomes = obtain(names, Task(catalogue, arguments.to, arguments.source, arguments.again, patience))
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    counts = {state: sum(outcome.state == state for outcome in outcomes) for state in ("built", "there", "skipped")}
    print(
        f"{arguments.to}: {counts['built']} built, {counts['there']} there already, {counts['skipped']} skipped, {len(failed)} failed"
    )
    for outcome in failed:
        say(f"error: {outcome.line}")
    return EXIT_USER if failed else EXIT_DONE


def _line(name: str, entry: Entry, to: Path) -> str:
    facts = built(to / name)
    state = f"there since {facts['date']}, version {facts['version'] or 'not known'}" if facts else "not there"
    if not facts and entry.key and not os.environ.get(entry.key):
        state = f"not there; needs {entry.key}"
    return f"{name:<13} {entry.title:<34} {entry.version:<12} {entry.licence:<44} {state}"


if __name__ == "__main__":
    sys.exit(main())
