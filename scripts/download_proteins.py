"""Download the proteins of a UniProt query, with their annotated stretches and labels, for `data.kind: proteins`.

Run it on a login node: compute nodes often have no network. A download that was stopped goes on when the same command is typed again.

    python scripts/download_proteins.py "reviewed:true AND organism_id:9606" --out data/human

leaves proteins.fasta.gz, spans.tsv.gz and labels.tsv.gz in data/human. docs/proteins.md says how a config names them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sae_genomics.cli import guarded
from sae_genomics.data.proteins.download import FILES, SERVER, Query, download
from sae_genomics.data.proteins.uniprot import FEATURES, USUAL
from sae_genomics.errors import UserError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("query", help="a query as www.uniprot.org takes it")
    parser.add_argument("--out", type=Path, required=True, help="the folder for the files")
    parser.add_argument(
        "--features",
        default=",".join(USUAL),
        help=f"annotations that become spans, of {', '.join(FEATURES)} (default: {','.join(USUAL)})",
    )
    parser.add_argument(
        "--pfam", action="store_true", help="add a column of each protein's Pfam families to the labels"
    )
    parser.add_argument("--most", type=int, help="stop after this many proteins")
    parser.add_argument("--restart", action="store_true", help="begin anew instead of going on")
    parser.add_argument("--size", type=int, default=500, help="proteins per request, at most 500")
    parser.add_argument("--server", default=SERVER, help="address of the service")
    arguments = parser.parse_args()
    return guarded(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    features = tuple(name.strip() for name in arguments.features.split(",") if name.strip())
    unknown = [name for name in features if name not in FEATURES]
    if unknown:
        raise UserError(f"--features: {unknown[0]!r} is not known; there is {', '.join(FEATURES)}")
    if not 1 <= arguments.size <= 500:
        raise UserError(f"--size {arguments.size}: UniProt gives 1 to 500 proteins per request")
    if arguments.most is not None and arguments.most < 1:
        raise UserError(f"--most {arguments.most}: ask for at least one protein")
    query = Query(arguments.query, features, arguments.pfam, arguments.server, arguments.size, arguments.most)
    source = download(query, arguments.out, arguments.restart)
    print(f"{arguments.out}: {source['n_proteins']:,} proteins, {source['n_spans']:,} spans")
    print("\n".join(["data:", "  kind: proteins", *_config_lines(arguments.out.absolute())]))
    return 0


def _config_lines(folder: Path) -> list[str]:
    lines = [f"  {key}: {folder / name}" for key, name in zip(("path", "spans", "labels"), FILES, strict=True)]
    return [*lines, "  group_key: group"]


if __name__ == "__main__":
    sys.exit(main())
