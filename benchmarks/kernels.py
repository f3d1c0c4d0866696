"""What each hand-written kernel brings to a whole benchmark: with it, and with the plain version in its place.

    python benchmarks/kernels.py [--rounds 3] [--only adam,sparse] [--small] [--json]

A kernel is a file of `sae_genomics/kernels`; SAE_GENOMICS_PLAIN=FILE runs the plain versions of one of them. Both run by
turns, each in a process of its own, and the best of the rounds counts. A kernel that brings less than a tenth should go.
The rows `all` are the same benchmark with every kernel, and with none.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Arguments of each benchmark that measures kernels, and of the same one on sizes that say nothing about speed.
BENCHMARKS = {
    "association": ("--loop-tokens 200", "--tokens 256 --d-in 32 --d-sae 128 --k 4 --genes 50 --tokens-per-cell 30 --loop-tokens 32 --repeats 1"),
    "cross_layer": ("--tokens 20000", "--tokens 500 --features 64 --k 4"),
    "enrichment": ("--lists 256 --no-peers", "--lists 20 --sets 50 --genes 1000 --repeats 1 --no-peers"),
    "enrichment_ranking": ("--units 64", "--units 8 --sets 40 --genes 500"),
    "extraction": ("--cells 16 --repeats 2", "--shape tiny --cells 4 --repeats 1 --threads 1"),
    "store": ("--no-peer", "--rows 20000 --d-model 32 --shards 4 --batch-rows 256 --memory 200000 --no-peer"),
    "tokenise": ("", "--cells 50 --repeats 1"),
    "training": ("--no-peers --rounds 5", "--d-in 32 --d-sae 128 --k 4 --tokens 64 --rounds 1 --no-peers"),
}  # fmt: skip
# The benchmark, and the number in its JSON, that shows what a kernel brings.
KERNELS = {
    "adam": ("training", "rates.ours"),
    "attention": ("extraction", "ours"),
    "checksum": ("store", "ours"),
    "chunks": ("store", "ours"),
    "cross_products": ("cross_layer", "ours"),
    "dots": ("training", "rates.ours, bfloat16"),
    "grouped_sums": ("association", "neurons"),
    "item_sums": ("association", "ours"),
    "onednn": ("extraction", "ours"),
    "overlaps": ("enrichment", "ours"),
    "pair_sums": ("association", "ours"),
    "sample_sums": ("enrichment_ranking", "ours"),
    "select": ("training", "rates.ours"),
    "sparse": ("training", "rates.ours"),
    "stratified_tail": ("enrichment", "ours"),
    "tokenise": ("tokenise", "ours"),
}
NO_BENCHMARK = {
    "curveball": "tables with the same margins, part of cross_layer",
    "pair_g": "modules, part of cross_layer: benchmarks/cross_layer.py --modules",
    "pairs_drawn": "draws of matched genes beside a network, part of validate",
    "rank_sums": "AUROC of features and cell types, part of associate",
    "span_counts": "concepts of proteins, part of associate",
    "target_swaps": "rewired regulons, part of validate",
    "triton_sparse": "needs a CUDA device: benchmarks/training.py --device cuda, with SAE_GENOMICS_TRITON=0 and without",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of each version; default: %(default)s")
    parser.add_argument("--only", help="some kernels, or all, separated by commas; default: every row")
    parser.add_argument("--small", action="store_true", help="sizes that say nothing about speed")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    arguments = parser.parse_args()
    rows = []
    wanted = arguments.only.split(",") if arguments.only else [*KERNELS, "all"]
    print(f"{'kernel':16} {'benchmark':14} {'number':14} {'kernel':>14} {'plain':>14}   ratio")
    for name in wanted:
        pairs = [KERNELS[name]] if name != "all" else sorted(set(KERNELS.values()))
        for benchmark, number in pairs:
            row = compare("1" if name == "all" else name, benchmark, number, arguments)
            rows.append({"kernel": name, "benchmark": benchmark, "number": number, **row})
            print(
                f"{name:16} {benchmark:14} {number:14} {row['ours']:14,.0f} {row['peer']:14,.0f} {row['ratio']:7.2f}",
                flush=True,
            )
    for name, reason in NO_BENCHMARK.items():
        print(f"{name:16} not measured here: {reason}")
    if arguments.json:
        least = min(rows, key=lambda row: float(row["ratio"]))
        print(json.dumps({
            "name": "kernels", "unit": f"{least['benchmark']} {least['number']} per second", "ours": least["ours"], "peer": least["peer"],
            "peer_name": f"plain version of {least['kernel']}", "ratio": least["ratio"], "limit": None, "share_of_limit": None,
            "kernels": rows,
        }))  # fmt: skip
    return 0


def compare(switch: str, benchmark: str, number: str, arguments: argparse.Namespace) -> dict[str, float]:
    """The best rates with the kernels and without those that the switch turns off."""
    best = {"": 0.0, switch: 0.0}
    for _ in range(arguments.rounds):
        for plain in best:
            best[plain] = max(best[plain], rate(plain, benchmark, number, arguments.small))
    return {"ours": best[""], "peer": best[switch], "ratio": best[""] / best[switch]}


def rate(plain: str, benchmark: str, number: str, small: bool) -> float:
    done = subprocess.run(
        [sys.executable, HERE / f"{benchmark}.py", *BENCHMARKS[benchmark][small].split(), "--json"],
        env=os.environ | {"SAE_GENOMICS_PLAIN": plain}, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    found: object = json.loads(done.stdout.splitlines()[-1])
    for key in number.split("."):
        assert isinstance(found, dict)
        found = found[key]
    assert isinstance(found, (int, float))
    return float(found)


if __name__ == "__main__":
    sys.exit(main())
