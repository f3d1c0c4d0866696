"""Enrichment of gene lists in gene sets: all lists x all sets, with everything that the stage validate stores of them.

    python benchmarks/enrichment.py [--lists N] [--sets N] [--genes N] [--no-peers] [--json]

Made-up lists and sets that both prefer genes that are often detected, as real ones do, so that a twentieth of the tests have p <= 0.05. The sets come
from six sources with backgrounds of their own. Ours is the exact test with interval, false discovery rates over all tests and by source, and the
exact test among genes of similar expression. The peers do less: gseapy's `enrich` and scipy's `hypergeom.sf` (for pairs that share a gene alone)
give the exact p in one background; decoupler's `ora` gives a two-sided p and the odds ratio. A peer that is not installed here is left out.
Peers run on the first lists alone, and a rate is of tests, lists x sets, per second. p is compared with scipy's and gseapy's. The limit is
counting shared genes and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("NUMBA_NUM_THREADS", "2")  # decoupler's threads; read when numba is imported

import numpy as np
import pandas as pd
from scipy import sparse, stats

N_SOURCES = 6
TOP = 100
PEER_LISTS = {"scipy": 8, "gseapy": 4, "decoupler": 32}
COUNT_IN_RATIO = ("scipy", "gseapy")  # of decoupler only the rate is told: its p is another


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lists", type=int, default=4096, help="default: %(default)s")
    parser.add_argument("--sets", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--genes", type=int, default=15_000, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=2, help="the best of so many; default: %(default)s")
    parser.add_argument("--no-peers", action="store_true", help="only our side runs")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on a line")
    arguments = parser.parse_args()
    result = compare(arguments)
    print(
        f"ours       {result['ours']:>14,.0f} tests/s   {result['seconds']:.2f} s for {result['tests']:,} tests, {result['rows']:,} rows; "
        f"{result['share_of_limit']:.0%} of counting alone"
    )
    for name, peer in result["peers"].items():
        print(
            f"{name:<10} {peer['rate']:>14,.0f} tests/s   {peer['ratio']:,.0f} times slower; version {peer['version']}"
        )
    if arguments.json:
        print(json.dumps(result))
    return 0


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    from sae_genomics.kernels.arrays import Members, PairCells
    from sae_genomics.kernels.overlaps import overlap_kinds
    from sae_genomics.validation.enrichment import Keep
    from sae_genomics.validation.enrichment_tests.fisher import FISHER
    from sae_genomics.validation.feature_terms import KEPT_BEST, KEPT_P

    torch.set_num_threads(arguments.threads)
    lists, sets = made_up(arguments.lists, arguments.sets, arguments.genes)

    def everything() -> Any:
        tests = FISHER.run(lists, sets, Keep(KEPT_P, KEPT_BEST))
        return tests, tests.odds_ratio(), FISHER.beside_expression(lists, sets, tests, tests.p_value <= KEPT_P)

    one = PairCells(sets.source, np.zeros_like(sets.source), np.zeros((len(lists.unit), N_SOURCES), np.int64), 1, 1)
    members = Members.of(lists.matrix), Members.of(sets.matrix)
    seconds, (tests, _, _) = best_of(everything, arguments.repeats)
    limit_seconds, _ = best_of(lambda: overlap_kinds(*members, one), arguments.repeats)
    rate, limit = tests.n_tests / seconds, tests.n_tests / limit_seconds
    peers = {} if arguments.no_peers else measured(lists, sets, rate)
    against = [peers[name] for name in COUNT_IN_RATIO if name in peers]
    fastest = max(against, key=lambda peer: float(peer["rate"])) if against else None
    return {
        "name": "enrichment", "unit": "tests/s", "ours": rate, "peer": fastest["rate"] if fastest else None,
        "peer_name": "the faster of gseapy.enrich and scipy.stats.hypergeom.sf", "ratio": fastest["ratio"] if fastest else None,
        "limit": limit, "limit_name": "counting shared genes alone", "share_of_limit": rate / limit, "peers": peers,
        "seconds": seconds, "tests": tests.n_tests, "rows": len(tests.row), "lists": arguments.lists, "sets": arguments.sets,
        "genes": arguments.genes, "genes_per_list": TOP, "threads": arguments.threads,
    }  # fmt: skip


def made_up(n_lists: int, n_sets: int, n_genes: int) -> tuple[Any, Any]:
    """Lists of TOP genes, and sets of 3 to 2,000 genes (median 30) of six sources, of which five could have named part of the genes."""
    from sae_genomics.validation.background import matched_bins
    from sae_genomics.validation.enrichment import Sets
    from sae_genomics.validation.gene_lists import GeneLists

    rng = np.random.default_rng(0)
    tokens, expression = rng.lognormal(5, 1.5, n_genes) + 10, rng.lognormal(0, 1, n_genes)
    weight = np.sqrt(tokens)
    top = np.concatenate([drawn(rng, weight, min(256, n_lists - i), TOP).ravel() for i in range(0, n_lists, 256)])
    sizes = np.clip(rng.lognormal(3.4, 1.1, n_sets).astype(int), 3, min(2000, n_genes // 4))
    genes = np.concatenate([drawn(rng, weight, 1, size)[0] for size in sizes])
    lists = membership(np.repeat(np.arange(n_lists), TOP), top, (n_lists, n_genes))
    sets = membership(genes, np.repeat(np.arange(n_sets), sizes), (n_genes, n_sets))
    source = np.arange(n_sets) * N_SOURCES // n_sets
    universe = rng.random((n_genes, N_SOURCES)) < np.linspace(1, 0.4, N_SOURCES)
    for number in range(N_SOURCES):
        universe[:, number] |= sets[:, np.flatnonzero(source == number)].getnnz(axis=1) > 0
    bins = matched_bins(tokens, expression)
    return GeneLists(np.arange(n_lists), lists), Sets(sets, source, universe, bins)


def drawn(rng: np.random.Generator, weight: np.ndarray, n: int, size: int) -> np.ndarray:
    """n draws of `size` genes without replacement, heavy ones more often: int64 [n, size]."""
    return np.argpartition(rng.exponential(size=(n, len(weight))) / weight, size, axis=1)[:, :size]


def membership(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    matrix = sparse.csr_matrix((np.ones(len(rows), np.int32), (rows, columns)), shape=shape)
    matrix.sort_indices()
    return matrix


def measured(lists: Any, sets: Any, rate: float) -> dict[str, dict[str, Any]]:
    """Rate, version and our ratio of every peer that is installed here."""
    found = {}
    for name, peer in {"scipy": scipy, "gseapy": gseapy, "decoupler": decoupler}.items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            continue
        n_lists = min(PEER_LISTS[name], lists.matrix.shape[0])
        seconds, p = peer(lists.matrix[:n_lists], sets.matrix)
        if p is not None:
            check(lists, sets, p)
        of_peer = n_lists * sets.matrix.shape[1] / seconds
        found[name] = {"rate": of_peer, "ratio": rate / of_peer, "version": installed, "lists": n_lists}
    return found


def scipy(lists: sparse.csr_matrix, sets: sparse.csr_matrix) -> tuple[float, np.ndarray]:
    """All pairs at once; p [lists, sets], 1 where no gene is shared."""
    size, n_genes = np.asarray(sets.sum(axis=0)).ravel(), sets.shape[0]

    def everything() -> np.ndarray:
        overlap = (lists @ sets).toarray()
        row, term = np.nonzero(overlap)
        p = np.ones(overlap.shape)
        p[row, term] = stats.hypergeom.sf(overlap[row, term] - 1, n_genes, size[term], TOP)
        return p

    return best_of(everything, 1)


def gseapy(lists: sparse.csr_matrix, sets: sparse.csr_matrix) -> tuple[float, np.ndarray]:
    """One call per list, as its users write it; p [lists, sets]."""
    import gseapy as gp

    names = np.array([f"G{i}" for i in range(sets.shape[0])], dtype=object)
    columns = sets.tocsc()
    known = {
        f"{i}": names[columns.indices[columns.indptr[i] : columns.indptr[i + 1]]].tolist() for i in range(sets.shape[1])
    }
    listed = [names[row.indices].tolist() for row in lists]

    def everything() -> list[pd.DataFrame]:
        return [gp.enrich(genes, known, background=names.tolist(), outdir=None).results for genes in listed]

    seconds, tables = best_of(everything, 1)
    p = np.ones((len(listed), sets.shape[1]))
    for row, table in enumerate(tables):
        p[row, table["Term"].astype(int)] = table["P-value"]
    return seconds, p


def decoupler(lists: sparse.csr_matrix, sets: sparse.csr_matrix) -> tuple[float, None]:
    """A table of scores in, as its users have it; the sets' genes are matched by name within the time."""
    import decoupler as dc

    names = np.array([f"G{i}" for i in range(sets.shape[0])], dtype=object)
    scores = pd.DataFrame(
        lists.toarray().astype(np.float64), columns=names, index=[f"L{i}" for i in range(lists.shape[0])]
    )
    gene, term = sets.nonzero()
    net = pd.DataFrame({"source": term.astype(str), "target": names[gene]})
    few = net[net["source"].isin([f"{i}" for i in range(20)])]
    dc.mt.ora(scores, few, tmin=1, n_up=TOP, n_bg=sets.shape[0])  # compiled here
    seconds, _ = best_of(lambda: dc.mt.ora(scores, net, tmin=1, n_up=TOP, n_bg=sets.shape[0]), 1)
    return seconds, None


def check(lists: Any, sets: Any, p: np.ndarray) -> None:
    """Ours, in one background of all genes, is the peer's. Raises AssertionError."""
    from sae_genomics.validation.enrichment import Keep, Sets
    from sae_genomics.validation.enrichment_tests.fisher import FISHER
    from sae_genomics.validation.gene_lists import GeneLists

    one = Sets(sets.matrix, np.zeros_like(sets.source), np.ones((len(sets.bins), 1), bool), sets.bins)
    tests = FISHER.run(GeneLists(lists.unit[: len(p)], lists.matrix[: len(p)]), one, Keep(1.0))
    ours = np.ones(p.shape)
    ours[tests.row, tests.term] = tests.p_value
    np.testing.assert_allclose(ours, p, rtol=1e-9)


def best_of(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    best, result = float("inf"), None
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return best, result


if __name__ == "__main__":
    sys.exit(main())
