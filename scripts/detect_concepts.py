"""Which concepts new items have, by the concept vectors and thresholds of a finished run.

    python scripts/detect_concepts.py --config configs/demo_proteins.yaml --data new.fasta --out detected.tsv
    python scripts/detect_concepts.py --config configs/demo_proteins.yaml --data new.fasta --spans new_spans.tsv --out detected.parquet
    python scripts/detect_concepts.py --config configs/demo.yaml --data new.h5ad --label-key cell_type --layers 2 3 --out detected.tsv

--data is a FASTA, JSONL or .h5ad file, or a config whose section `data` is meant. The items go through the run's own model; nothing of it is
stored. A concept of whole items (a label) is scored by the mean over the item's tokens. A concept of stretches (a domain) is scored by the best
window, and each stretch above the threshold is one row. Residues count from 1. A gene set is scored by the score that at least half of the item's
tokens of its genes reach; a row says which share of them is above the threshold, beside all other tokens, and names them.

Without --layers each concept is looked for in the layer in which its threshold was best on validation items. --rule says which
threshold: the one of the largest F1, the one that finds 0.9 of what has the concept, or the one that takes at most 0.05 of the others for it.

With annotations (--spans, --labels and --label-key, or those of the config) precision and recall are printed beside the registry's. Both
depend on how common a concept is, so the share of items with it stands beside them. Gene sets need no annotation: tokens of the held-out genes that
the registry was measured on are counted. Exit codes: 0 done, 2 something you can fix.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import pandas as pd

from sae_genomics.concepts.choosing import RULES
from sae_genomics.config import load_config
from sae_genomics.errors import EXIT_DONE, UserError
from sae_genomics.guard import guarded
from sae_genomics.progress import say
from sae_genomics.run import Run
from sae_genomics.stages import register_installed
from sae_genomics.table_file import check_out, write_table


def main(argv: list[str] | None = None) -> int:
    register_installed()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="config of the finished run")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="FILE", help="the new items: FASTA, JSONL, .h5ad, or a config"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="what is found: .tsv or .parquet")
    parser.add_argument("--layers", type=int, nargs="+", metavar="L", help="default: the best layer of each concept")
    parser.add_argument("--rule", choices=RULES, default=RULES[0], help="which threshold; default: %(default)s")
    parser.add_argument(
        "--concepts", nargs="+", metavar="ID", help="only these, as in thresholds.json, such as span:PS00028"
    )
    parser.add_argument("--all", action="store_true", help="a row also for what is not found, with its best score")
    parser.add_argument("--spans", metavar="FILE", help="annotated spans of the new items")
    parser.add_argument("--labels", metavar="FILE", help="labels of the new items")
    parser.add_argument("--label-key", metavar="COLUMN", help="the column of labels; of obs for an .h5ad file")
    parser.add_argument(
        "--group-key", metavar="COLUMN", help="the column of groups (family, donor): intervals then count groups"
    )
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override a key of the run's config")  # fmt: skip
    arguments = parser.parse_args(argv)
    return guarded(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    from sae_genomics.concepts.detect import compare, detect, detectors, run_on

    check_out(arguments.out)
    if not arguments.data.exists() and not str(arguments.data).startswith("builtin:"):
        raise UserError(f"--data: no such file: {arguments.data}")
    run = Run(load_config(arguments.config, arguments.overrides), arguments.config, arguments.overrides)
    found = detectors(run, arguments.layers, arguments.rule, arguments.concepts)
    label_key = "cell_type_key" if run.kind.name == "cells" else "label_key"
    settings = {
        "spans": arguments.spans,
        "labels": arguments.labels,
        label_key: arguments.label_key,
        "group_key": arguments.group_key,
    }
    with tempfile.TemporaryDirectory(prefix="detect-concepts-") as folder:
        new = run_on(run, arguments.data, settings, Path(folder))
        new.kind.prepare(new)
        detected = detect(new, found, arguments.all)
        compared = compare(new, found, detected, arguments.rule)
        n_items = new.n_items
    write_table(arguments.out, detected.rows)
    n_found = int(detected.rows["detected"].sum())
    n_with = detected.rows.loc[detected.rows["detected"], "item_id"].nunique()
    say(f"detect: {n_found:,} rows found in {n_with:,} of {n_items:,} {run.kind.nouns.items}; {arguments.out}")
    if len(compared):
        print(_table(compared, run.kind.nouns.items), end="")
    return EXIT_DONE


def _table(compared: pd.DataFrame, items: str) -> str:
    """Precision and recall in the new items beside the registry's, columns of one width."""
    lines = [
        [
            "concept",
            "layer",
            f"{items} with it",
            "registry",
            "precision",
            "registry (95 %)",
            "recall",
            "registry (95 %)",
        ]
    ]
    for row in compared.sort_values("concept").to_dict("records"):
        lines.append([
            f"{row['concept']} {row['name']}"[:48], str(row["layer"]), f"{row['n_positive']} of {row['n_items']}{' tokens' if row['counted'] == 'token' else ''}", f"{row['prevalence_registry']:.3f}",
            *(text for name in ("precision", "recall") for text in (_number(row[name]), _interval(row, name))),
        ])  # fmt: skip
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return (
        "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        )
        + "\n"
    )


def _number(value: float | None) -> str:
    return "-" if value is None or pd.isna(value) else f"{value:.2f}"


def _interval(row: dict[str, float], name: str) -> str:
    value, low, high = (row[f"{name}_registry{end}"] for end in ("", "_low", "_high"))
    return _number(value) if pd.isna(low) else f"{_number(value)} ({_number(low)} to {_number(high)})"


if __name__ == "__main__":
    sys.exit(main())
