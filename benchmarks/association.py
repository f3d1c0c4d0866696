"""Feature x gene and feature x cell sums: ours against a Python loop, and against the cost of encoding itself.

    python benchmarks/association.py [--tokens 16384] [--d-in 512] [--d-sae 16384] [--k 64] [--genes 20000] [--json]

One process, one machine, the same triples for all. The loop runs over tokens and active features, as a first script
would be written, on fewer tokens because it takes long; rates are per token. The limit is encoding: associating cannot
be of use faster than there is something to associate.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import sae_genomics  # noqa: F401  before torch: it says how torch's threads wait

# isort: split
import numpy as np
import torch

from sae_genomics.associations.cell_sums import FeatureTotals
from sae_genomics.associations.gene_sums import DENSE_LIMIT, GeneSums
from sae_genomics.associations.linear_units import LinearUnits, Moments
from sae_genomics.associations.signed_sums import SignedSums
from sae_genomics.associations.triples import TokenBlock, Triples
from sae_genomics.sae.load import Encoder


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    encoder = _encoder(arguments.d_in, arguments.d_sae, arguments.k)
    x = torch.randn(arguments.tokens, arguments.d_in, generator=torch.Generator().manual_seed(1)).numpy()
    block = _block(arguments.tokens, arguments.genes, arguments.tokens_per_cell)

    encode = _best(lambda: encoder.encode_sparse(x), arguments.repeats)
    triples = Triples.ordered(*encoder.encode_sparse(x))

    with ThreadPoolExecutor(1) as threads:
        results: dict[str, float] = {}
        core_time: dict[str, float] = {}
        expected = np.bincount(block.unit[block.unit >= 0], minlength=arguments.genes)
        for name, limit in (("ours", DENSE_LIMIT), ("dense", 1 << 62), ("hashed", 0)):
            genes = GeneSums(arguments.d_sae, arguments.genes, expected, limit)
            cells = FeatureTotals(arguments.d_sae)

            def add(genes: GeneSums = genes, cells: FeatureTotals = cells) -> None:
                done = threads.submit(cells.add, block, triples)
                genes.add(block, triples)
                done.result()

            add()  # compiles, and touches the memory
            runs = [_timed(add) for _ in range(5 * arguments.repeats)]
            results[name] = min(seconds for seconds, _ in runs)
            core_time[name] = min(seconds for _, seconds in runs)
            del genes, add
        moments = Moments(arguments.d_in)
        moments.add(x)
        neurons = SignedSums(LinearUnits.of_neurons(moments), arguments.genes)
        neurons.add(block, x)
        neuron_time = _best(lambda: neurons.add(block, x), 5 * arguments.repeats)

    some = min(arguments.loop_tokens, arguments.tokens)
    loop_sums: dict[tuple[int, int], list[float]] = {}
    loop_time, loop_cores = _timed(lambda: _loop(block, triples, some, loop_sums))
    worst = _check(block, triples, some, loop_sums, arguments)

    n = arguments.tokens
    ours, loop_rate = n / results["ours"], some / loop_time
    with_encoding = (encode + results["ours"] + neuron_time) / encode
    print(f"{n:,} tokens, d_in {arguments.d_in}, d_sae {arguments.d_sae:,}, k {arguments.k}, {arguments.genes:,} genes, "
          f"{len(triples):,} triples, {arguments.threads} threads")  # fmt: skip
    print(f"python loop                  {loop_rate:14,.0f} tokens/s   ({some:,} tokens)")
    print(f"gene and cell sums           {ours:14,.0f} tokens/s   {ours / loop_rate:,.0f} x the loop")
    print(
        f"  all in dense rows          {n / results['dense']:14,.0f} tokens/s   {n / results['dense'] / loop_rate:,.0f} x the loop"
    )
    print(
        f"  all in hash tables         {n / results['hashed']:14,.0f} tokens/s   {n / results['hashed'] / loop_rate:,.0f} x the loop"
    )
    print(f"raw neurons, both signs      {n / neuron_time:14,.0f} tokens/s")
    print(f"encoding                     {n / encode:14,.0f} tokens/s")
    per_core = (loop_cores / some) / (core_time["ours"] / n)
    print(f"by time of cores             {per_core:14,.0f} x the loop (what other work on the machine disturbs less)")
    print(f"encoding and associating     {with_encoding:14.3f} x encoding alone (neurons included)")
    print(f"largest relative difference from the loop: {worst:.1e}")
    if arguments.json:
        record = {
            "name": "association", "unit": "tokens/s", "ours": ours, "peer": loop_rate, "peer_name": "python loop",
            "ratio": ours / loop_rate, "limit": n / encode, "limit_name": "encoding",
            "share_of_limit": (n / (encode + results["ours"] + neuron_time)) / (n / encode),
            "times_encoding": with_encoding, "hashed": n / results["hashed"], "neurons": n / neuron_time,
            "largest_relative_difference": worst, "threads": arguments.threads,
            "ratio_of_core_time": per_core,
        }  # fmt: skip
        print(json.dumps(record))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=16384, help="tokens added at once (default: %(default)s)")
    parser.add_argument("--tokens-per-cell", type=int, default=700, help="default: %(default)s")
    parser.add_argument(
        "--loop-tokens", type=int, default=2000, help="tokens of the Python loop (default: %(default)s)"
    )
    parser.add_argument("--d-in", type=int, default=512, help="default: %(default)s")
    parser.add_argument("--d-sae", type=int, default=16384, help="default: %(default)s")
    parser.add_argument("--k", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--genes", type=int, default=20000, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    parser.add_argument(
        "--repeats",
        type=int,
        default=3,
        help="best of so many, of five times as many where it is quick (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    return parser.parse_args()


def _best(work: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest of a few runs."""
    return min(_timed(work)[0] for _ in range(repeats))


def _timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds on the clock, and of all cores together."""
    start, cores = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - cores


def _encoder(d_in: int, d_sae: int, k: int) -> Encoder:
    generator = torch.Generator().manual_seed(0)
    decoder = torch.nn.functional.normalize(torch.randn(d_sae, d_in, generator=generator), dim=1)
    return Encoder("topk", decoder.T.contiguous(), torch.zeros(d_sae), decoder, torch.zeros(d_in), k=k)


def _block(n_tokens: int, n_genes: int, per_cell: int) -> TokenBlock:
    """Cells of distinct genes, common ones more often, after one special token each."""
    rng = np.random.default_rng(2)
    weights = rng.lognormal(0, 1.5, n_genes)
    starts = np.arange(0, n_tokens, per_cell)
    gene = np.empty(n_tokens, dtype=np.int32)
    for start in starts:
        size = min(per_cell, n_tokens - start)
        gene[start : start + size] = np.sort(rng.choice(n_genes, size, replace=False, p=weights / weights.sum()))
        gene[start] = -1
    expression = rng.poisson(3, n_tokens).astype(np.float32) + 1
    return TokenBlock(gene, expression, np.append(starts, n_tokens), np.arange(len(starts)) % 5 == 0)


def _loop(block: TokenBlock, triples: Triples, n_tokens: int, result: dict[tuple[int, int], list[float]]) -> None:
    """What a first script does: every token, every active feature, one addition at a time."""
    ptr = np.searchsorted(triples.token, np.arange(n_tokens + 1)).tolist()
    feature, activation = triples.feature.tolist(), triples.activation.tolist()
    gene, expression = block.unit.tolist(), block.weight.tolist()
    cell = np.repeat(np.arange(block.n_items), np.diff(block.item_ptr)).tolist()
    gene_sums: dict[tuple[int, int], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    cell_maximum: dict[tuple[int, int], float] = defaultdict(float)
    cell_sum: dict[tuple[int, int], float] = defaultdict(float)
    for token in range(n_tokens):
        if gene[token] < 0:
            continue
        for i in range(ptr[token], ptr[token + 1]):
            sums = gene_sums[feature[i], gene[token]]
            sums[0] += activation[i] * expression[token]
            sums[1] += activation[i]
            sums[2] += 1
            key = (cell[token], feature[i])
            cell_maximum[key] = max(cell_maximum[key], activation[i])
            cell_sum[key] += activation[i]
    result.update(gene_sums)


def _check(
    block: TokenBlock,
    triples: Triples,
    n_tokens: int,
    expected: dict[tuple[int, int], list[float]],
    arguments: argparse.Namespace,
) -> float:
    """Largest relative difference of our sums over the same tokens."""
    stop = int(np.searchsorted(triples.token, n_tokens))
    part = Triples(triples.token[:stop], triples.feature[:stop], triples.activation[:stop])
    sums = GeneSums(arguments.d_sae, arguments.genes, dense_limit=0)
    sums.add(block, part)
    worst, found = 0.0, 0
    for pairs in sums.by_feature():
        feature = pairs.first + np.repeat(np.arange(len(pairs.ptr) - 1), np.diff(pairs.ptr))
        keys = zip(feature.tolist(), pairs.unit.tolist(), strict=True)
        theirs = np.array([expected[key] for key in keys]).reshape(-1, 3)
        ours = np.stack([pairs.activation_weight, pairs.activation, pairs.n_active.astype(float)], axis=1)
        if len(ours):
            worst = max(worst, float(np.max(np.abs(ours / theirs - 1))))
        found += len(ours)
    if found != len(expected):
        raise SystemExit(f"{found} pairs instead of {len(expected)}")
    return worst


if __name__ == "__main__":
    main()
