"""Download published models into the hub's cache, for clusters whose compute nodes have no network.

Run it on a login node; runs with model.name then find the files in the cache. HF_HOME and HF_ENDPOINT are respected.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sae_genomics.errors import UserError
from sae_genomics.guard import guarded
from sae_genomics.models.hub import RELEASES, cached_folder, download
from sae_genomics.revisions import checked_revision


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of {', '.join(RELEASES)}")
    parser.add_argument("--cache", type=Path, help="the cache folder, as in paths.cache (default: HF_HOME's)")
    parser.add_argument("--revision", help="branch, tag or commit, as in model.revision (default: the release's own)")
    parser.add_argument("--list", action="store_true", help="print which models there are and which are in the cache")
    arguments = parser.parse_args()
    if not arguments.names and not arguments.list:
        parser.error("name a model, or --list")
    return guarded(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    revision = _revision(arguments.revision)
    for name in arguments.names:
        print(f"{name}: {download(name, arguments.cache, revision)}")
    if arguments.list:
        for name, known in RELEASES.items():
            folder = cached_folder(name, arguments.cache, revision)
            print(f"{name}: {known.n_layers} layers, d_model {known.d_model}, {folder or 'not downloaded'}")
    return 0


def _revision(text: str | None) -> str | None:
    try:
        revision: str | None = checked_revision(text)
    except ValueError as error:
        raise UserError(f"--revision {text}: {error}") from None
    return revision


if __name__ == "__main__":
    sys.exit(main())
