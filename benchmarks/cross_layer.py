"""Features of two layers against each other: our correlations beside scipy.sparse, and all pairs of many layers.

    python benchmarks/cross_layer.py [--tokens 50000] [--features 16384] [--k 32] [--layers 0] [--json]

Made-up activations: k active features per token, some features far more often than others. A product is one feature of the first layer times
one of the second at one token. The peer makes the same sums as a sparse product, and their correlations, without choosing the best.
The limit is as many products added into a row that stays in the cache. --layers 12 goes through all pairs of twelve layers as the stage
does, with its null, assignment, tables and all, and tells time and peak memory. --modules 4096 16384 looks for modules of features that fire together, of so many
features of a layer and of pairs of two layers.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import sae_genomics  # noqa: F401  before torch: it says how torch's threads wait

# isort: split
import numba
import numpy as np
import torch
from scipy import sparse

from sae_genomics.cross_layer.activations import LayerActivations, SparseRows
from sae_genomics.cross_layer.coactivation import High, together
from sae_genomics.cross_layer.compare import Comparison
from sae_genomics.cross_layer.correlations import Features
from sae_genomics.cross_layer.modules import MOST_PAIRS, Settings, find_modules
from sae_genomics.cross_layer.section import CrossLayerConfig
from sae_genomics.cross_layer.untrained import Untrained
from sae_genomics.kernels.cross_products import best_correlations

N_BEST = 3
UNITS = 2_000
ITEMS = 1_000
D_MODEL = 512


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    rng = np.random.default_rng(0)
    first, second = (layer(rng, arguments.tokens, arguments.features, arguments.k) for _ in range(2))
    n_products = arguments.tokens * arguments.k**2
    ours, peer, limit = compare(first, second, arguments)
    record: dict[str, Any] = {
        "name": "correlations of two layers' features", "unit": "products/s", "ours": n_products / ours, "peer": n_products / peer,
        "peer_name": "scipy.sparse product", "ratio": peer / ours, "limit": n_products / limit,
        "limit_name": "adding into a row in the cache", "share_of_limit": limit / ours, "threads": arguments.threads,
    }  # fmt: skip
    print(f"{arguments.features:,} features a layer, k {arguments.k}, {arguments.tokens:,} tokens, {n_products:,} products, "
          f"{arguments.threads} threads: ours {ours:.2f} s, scipy.sparse {peer:.2f} s, limit {limit:.2f} s")  # fmt: skip
    if arguments.layers:
        record |= all_pairs(rng, arguments)
        print(f"all {record['pairs']} pairs of {arguments.layers} layers: {record['seconds']:.0f} s, {record['core_seconds']:.0f} s of cores, "
              f"at most {record['peak_bytes'] / 2**30:.1f} GiB")  # fmt: skip
    for features in arguments.modules:
        found = modules(rng, features, arguments)
        record[f"modules_{features}"] = found
        print(f"modules of {features:,} features, {arguments.items:,} items: {found['pairs']:,} pairs looked at in {found['seconds']:.0f} s; two layers: "
              f"{found['pairs_between']:,} pairs in {found['seconds_between']:.0f} s; {found['core_seconds']:.0f} s of cores, at most {found['peak_bytes'] / 2**30:.1f} GiB")  # fmt: skip
    if arguments.json:
        print(json.dumps(record))


def layer(rng: np.random.Generator, n_tokens: int, d_sae: int, k: int) -> SparseRows:
    """k active features of each token; how often a feature is active is log-normal."""
    frequency = rng.lognormal(0, 1, d_sae)
    feature = rng.choice(d_sae, (n_tokens, k), p=frequency / frequency.sum())
    value = rng.exponential(1, (n_tokens, k)).astype(np.float32)
    rows = sparse.csr_matrix((value.ravel(), feature.ravel(), np.arange(n_tokens + 1) * k), shape=(n_tokens, d_sae))
    rows.sum_duplicates()
    return SparseRows(rows.indptr.astype(np.int64), rows.indices.astype(np.int32), rows.data)


def compare(first: SparseRows, second: SparseRows, arguments: argparse.Namespace) -> tuple[float, float, float]:
    """Seconds of ours, of the peer, and of the limit: each feature's best partners in the other layer."""
    one, other = (Features.of(rows, arguments.features) for rows in (first, second))
    order = np.arange(arguments.tokens)

    def ours() -> None:
        best_correlations(one.by_feature, other.by_token, order, (one.moments, other.moments), N_BEST)

    n = arguments.tokens
    x, y = (
        sparse.csr_matrix((rows.value.astype(np.float64), rows.feature, rows.indptr), shape=(n, arguments.features))
        for rows in (first, second)
    )

    def peer() -> None:
        sums = (x.T.tocsr() @ y).tocoo()
        mean, sd = (one.moments.mean, other.moments.mean), (one.moments.sd, other.moments.sd)
        with np.errstate(invalid="ignore", divide="ignore"):
            (sums.data - n * mean[0][sums.row] * mean[1][sums.col]) / (n * sd[0][sums.row] * sd[1][sums.col])

    ours()  # compiles
    _add(1, arguments.k, arguments.features)
    repeats = arguments.tokens * arguments.k // arguments.threads
    return _timed(ours), _timed(peer), _timed(lambda: _add(repeats, arguments.k, arguments.features))


@numba.njit
def _add(n, k, d):  # type: ignore[no-untyped-def]
    sums, index = np.zeros(d), (np.arange(k) * 7919) % d
    value = np.ones(k, np.float32)
    for i in range(n):
        a = 1.0 + i
        for p in range(k):
            sums[index[p]] += a * value[p]
    return sums


def all_pairs(rng: np.random.Generator, arguments: argparse.Namespace) -> dict[str, float]:
    """All that the stage does with pairs of layers: matches with their null, cosines, shared units, fates and persistence."""
    n, d = arguments.tokens, arguments.features
    layers = {number: layer(rng, n, d, arguments.k) for number in range(arguments.layers)}
    item = np.sort(rng.integers(0, ITEMS, n))
    taken = LayerActivations(rng.integers(0, UNITS, n).astype(np.int32), item, layers, dict.fromkeys(layers, d), UNITS)
    directions = rng.standard_normal((d, D_MODEL)).astype(np.float32)
    done: list[float] = []
    clock, cores = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        Comparison(
            taken, Untrained.none("not measured here"), CrossLayerConfig(), 0, lambda number: directions, done.append
        ).write(Path(folder))
    return {
        "pairs": len(done), "seconds": time.perf_counter() - clock, "core_seconds": time.process_time() - cores,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }  # fmt: skip


def modules(rng: np.random.Generator, n_features: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Modules of one layer, and pairs of it with another: 40 programmes, groups of ten donors, features high in a share of the items that is log-normal."""
    n, settings = arguments.items, CrossLayerConfig()
    stratum = np.sort(rng.integers(0, 10, n))
    on = rng.random((n, 40)) < 0.2
    layers = []
    for _ in range(2):
        share = np.clip(rng.lognormal(np.log(0.05), 1.0, n_features), 0.01, 0.9)
        programme = rng.integers(0, 400, n_features)  # one feature in ten belongs to one
        raised = np.where(programme < 40, on[:, programme % 40], False)
        fires = rng.random((n, n_features)) < np.where(raised, np.minimum(3 * share + 0.2, 0.95), share)
        layers.append(High(fires, sparse.csr_matrix((0, n_features), dtype=np.float32), np.zeros(0, np.int64)))
    asked = Settings(
        n_features, settings.module_draws, settings.module_bootstraps, tuple(settings.module_resolutions), (0, 1), n_heldout_draws=199
    )  # fmt: skip
    clock, cores = time.perf_counter(), time.process_time()
    held = High(layers[0].fires[::4], layers[0].alone, layers[0].item)
    found = find_modules(layers[0], stratum, held, stratum[::4], asked)
    middle = time.perf_counter()
    between = together(layers[0], stratum, settings.module_draws, [0, 3], MOST_PAIRS, layers[1])
    return {
        "pairs": found.pairs.n_pairs, "above_chance": len(found.pairs.pairs), "modules": len(found.rows), "seconds": middle - clock,
        "pairs_between": between.n_pairs, "seconds_between": time.perf_counter() - middle, "core_seconds": time.process_time() - cores,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }  # fmt: skip


def _timed(work: Callable[[], object]) -> float:
    """Seconds on the clock, the best of three."""
    found = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=50_000, help="default: %(default)s")
    parser.add_argument("--features", type=int, default=16_384, help="of a layer (default: %(default)s)")
    parser.add_argument("--k", type=int, default=32, help="active features of a token (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=0, help="go through all pairs of so many; 0 for none")
    parser.add_argument(
        "--modules", type=int, nargs="+", default=[], metavar="FEATURES", help="look for modules of so many features"
    )
    parser.add_argument(
        "--items", type=int, default=ITEMS, help="items in which modules are looked for (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="one more line, for scripts")
    return parser.parse_args()


if __name__ == "__main__":
    main()
