"""Download published SAEs into the hub's cache, for nodes without network.

    python scripts/download_saes.py ORG/NAME/layer_03
    python scripts/download_saes.py 'ORG/NAME@COMMIT' --layers 0,3 --cache DIR

RELEASE is what sae.from takes. HF_TOKEN is read from the environment. Exit codes: 0 done, 2 something you can fix. docs/sharing.md says more.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sae_genomics.errors import EXIT_DONE, UserError
from sae_genomics.guard import guarded
from sae_genomics.sae.published.hub import download
from sae_genomics.sae.published.sources import Release, source_of


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "release",
        metavar="RELEASE",
        help="as in sae.from: ORG/NAME, ORG/NAME/ID or RELEASE/ID, with @REVISION or without",
    )
    parser.add_argument("--layers", default="", metavar="0,3", help="layers, where RELEASE has one SAE per layer")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="as paths.cache; default: HF_HOME, else ~/.cache/huggingface"
    )
    arguments = parser.parse_args(argv)
    return guarded(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    release = source_of(arguments.release)
    if not isinstance(release, Release):
        raise UserError(f"{arguments.release} is a folder here; sae.from takes it as it is")
    if release.is_per_layer and not arguments.layers:
        raise UserError(f"{arguments.release} has one SAE per layer; name the layers, for example --layers 0,3")
    try:
        layers = [int(part) for part in arguments.layers.split(",")] if release.is_per_layer else [0]
    except ValueError:
        raise UserError(f"--layers {arguments.layers}: write numbers with commas between them, such as 0,3") from None
    for layer in layers:
        found = download(release, layer, release.revision, arguments.cache)
        print(f"{release.of_layer(layer)}: {found.weights.parent}, commit {found.commit}")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
