"""What any edit of a finished run's layer changes in the model's predictions, beside random directions of the same norm.

    python scripts/intervene.py --config configs/demo.yaml --layer 2 --features 68 --edit ablate
    python scripts/intervene.py --config configs/demo.yaml --layer 2 --features 68 109 --edit clamp --amount 2 --reference p99 --out moved.tsv
    python scripts/intervene.py --config configs/demo.yaml --layer 2 --concept "CD19+ B" --edit scale --amount 3 --items "label=CD56+ NK"
    python scripts/intervene.py --config configs/demo.yaml --layer 2 --direction mine.safetensors --edit add --amount 4 --draws 99

Several features are edited as one set. A concept (its id or name, as in concepts.json) is edited like a feature: its activation is its score where
that is above 0. A direction is the only tensor of a safetensors file, or the one named `direction`, float [d_model]; it can only be added.

    --edit ablate  the activation becomes 0, its mean over training tokens of the same unit (--to mean), or its value at one of them (--to resample)
    --edit scale   it is multiplied by --amount
    --edit clamp   it becomes --amount (default 1) times its median, or its 99th percentile (--reference p99), where it is active in training
    --edit add     --amount is added to it; --amount times a direction

Only tokens where it is active are edited; --where all edits every token. What the SAE does not reconstruct stays. By default 40 held-out items in
which something is edited are measured. The table (--out) has one row per unit (gene, residue, word piece): the mean change of what is predicted of
it, with its 95 % interval over items or groups, p and q. The same --seed gives the same numbers. Nothing is written without --out.
Exit codes: 0 done, 2 something you can fix. docs/causal.md says more.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sae_genomics.config import load_config
from sae_genomics.errors import EXIT_DONE, UserError
from sae_genomics.guard import guarded
from sae_genomics.intervene.request import EDITS, REFERENCES, REPLACEMENTS, WHERE, Request
from sae_genomics.progress import say
from sae_genomics.run import Run
from sae_genomics.stages import register_installed
from sae_genomics.table_file import check_out, write_table


def main(argv: list[str] | None = None) -> int:
    register_installed()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="config of the finished run")
    parser.add_argument("--layer", type=int, required=True, metavar="L", help="the layer that is edited")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--features", type=int, nargs="+", metavar="N", help="features of the layer's SAE, edited as one set"
    )
    what.add_argument("--concept", metavar="ID", help="a concept of the layer's concepts.json, by id or name")
    what.add_argument("--direction", type=Path, metavar="FILE", help="a safetensors file")
    parser.add_argument("--edit", choices=EDITS, required=True, help="what is done, see above")
    parser.add_argument("--to", choices=REPLACEMENTS, help="with ablate: what it becomes; default: zero")
    parser.add_argument("--amount", type=float, metavar="X", help="with scale, clamp and add")
    parser.add_argument(
        "--reference", choices=REFERENCES, help="with clamp: of which value --amount is a multiple; default: median"
    )
    parser.add_argument("--where", choices=WHERE, help="tokens; default: active, and all for a direction")
    parser.add_argument("--items", nargs="+", default=["heldout"], metavar="WHICH", help="heldout, all, label=VALUE; default: heldout")  # fmt: skip
    parser.add_argument("--max-items", type=int, default=40, metavar="N", help="items at most, at even distances; default: %(default)s")  # fmt: skip
    parser.add_argument(
        "--masked", action="store_true", help="hide a share of the tokens, as in training, and look at these alone"
    )
    parser.add_argument("--draws", type=int, default=50, metavar="N", help="random directions; p is at least 1 / (N + 1); default: %(default)s")  # fmt: skip
    parser.add_argument("--seed", type=int, metavar="N", help="of directions and draws; default: run.seed")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the table of units: .tsv or .parquet")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="units shown that move up, and down; default: %(default)s")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override a key of the run's config")  # fmt: skip
    arguments = parser.parse_args(argv)
    return guarded(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    from sae_genomics.intervene.answer import answer
    from sae_genomics.intervene.show import as_json, as_text

    out = arguments.out
    if out is not None:
        check_out(out)
    if arguments.top < 0:
        raise UserError("--top takes a number from 0 on")
    run = Run(load_config(arguments.config, arguments.overrides), arguments.config, arguments.overrides)
    request = Request(
        arguments.layer, arguments.edit, tuple(arguments.features or ()), arguments.concept, arguments.direction, arguments.to,
        arguments.amount, arguments.reference, arguments.where, tuple(arguments.items), arguments.max_items, arguments.masked,
        arguments.draws, arguments.seed,
    )  # fmt: skip
    found = answer(run, request)
    if out is not None:
        write_table(out, found.units)
        say(f"intervene: {len(found.units):,} rows of {run.kind.nouns.units}: {out}")
    print(as_json(found, arguments.top) if arguments.json else as_text(found, run.kind.nouns, arguments.top), end="")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
