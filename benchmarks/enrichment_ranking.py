"""Tests of whole rankings against gene sets: Savage scores beside decoupler's and gseapy's methods.

    python benchmarks/enrichment_ranking.py [--units 512] [--sets 10000] [--genes 15000] [--json]

Made-up rankings and sets, of log-normal sizes. A test is one ranking against one set. gseapy's prerank shuffles 1 000 times for a p; decoupler's
ulm gives a p by the normal theory of a slope, its gsea shuffles, its aucell gives no p. A peer that is not installed is left
out. The limit is the product of scores and sets alone, without any p. `largest_p_ratio` compares p with shuffles of our own.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import sae_genomics  # noqa: F401  before torch: it says how torch's threads wait

# isort: split
import numpy as np
import pandas as pd
import torch
from scipy import sparse

from sae_genomics.validation.enrichment import Keep, Sets
from sae_genomics.validation.enrichment_tests.savage import SAVAGE, _sums
from sae_genomics.validation.gene_lists import GeneLists
from sae_genomics.validation.rank_scores import savage_scores

SHARE = 0.3  # of the genes that have a value
PEER_PERMUTATIONS = 1000
OWN_PERMUTATIONS = 100_000


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    rng = np.random.default_rng(0)
    values, sets = rankings(rng, arguments.units, arguments.genes), gene_sets(rng, arguments.genes, arguments.sets)
    some = lists_of(values[:8])
    SAVAGE.run(some, sets, Keep(0.05, 20))  # compiles
    ours, cpu = _timed(lambda: SAVAGE.run(lists_of(values), sets, Keep(0.05, 20)))
    lists, n_tests = lists_of(values), values.shape[0] * arguments.sets
    by_term = sets.matrix.T.tocsr().astype(np.float64)
    limit, _ = _timed(lambda: _sums(lists.ranking, by_term, sets.sizes))
    records = [
        _record(name, n_tests / ours, rate, n_tests / limit) for name, rate in peers(values, sets, arguments).items()
    ]
    worst = largest_p_ratio(rng, lists, sets)
    print(f"{arguments.units:,} rankings x {arguments.sets:,} sets x {arguments.genes:,} genes, {arguments.threads} threads: "
          f"{ours:.1f} s, {cpu:.1f} s of cores, {n_tests / ours:,.0f} tests/s; products alone {limit:.1f} s")  # fmt: skip
    for record in records:
        print(f"{record['peer_name']:32} {record['peer']:14,.0f} tests/s   ours is {record['ratio']:,.0f} x")
    print(f"p against {OWN_PERMUTATIONS:,} shuffles: at most {worst:.2f} x apart")
    if arguments.json:
        more = {"seconds": ours, "core_seconds": cpu, "n_tests": n_tests, "threads": arguments.threads}
        for record in records or [_record("none", n_tests / ours, None, n_tests / limit)]:
            print(json.dumps({**record, **more, "largest_p_ratio": worst}))


def rankings(rng: np.random.Generator, n_units: int, n_genes: int) -> sparse.csr_matrix:
    """Values of a share of the genes: csr float32 [units, genes]."""
    rows = []
    for _ in range(n_units):
        value = np.where(rng.random(n_genes) < SHARE, rng.exponential(1, n_genes) + 1e-6, 0.0)
        rows.append(sparse.csr_matrix(value.astype(np.float32)))
    return sparse.vstack(rows, format="csr")


def gene_sets(rng: np.random.Generator, n_genes: int, n_sets: int) -> Sets:
    """Random sets of 5 to 2 000 genes."""
    sizes = np.clip(rng.lognormal(4, 1, n_sets), 5, min(2000, n_genes // 2)).astype(int)
    gene = np.concatenate([rng.choice(n_genes, size, replace=False) for size in sizes])
    matrix = sparse.csr_matrix(
        (np.ones(len(gene), np.int32), (gene, np.repeat(np.arange(n_sets), sizes))), shape=(n_genes, n_sets)
    )
    return Sets(matrix, np.zeros(n_sets, np.int64), np.ones((n_genes, 1), bool), rng.integers(0, 100, n_genes))


def lists_of(values: sparse.csr_matrix, n_top: int = 30) -> GeneLists:
    """Scores of the rankings, and their first genes."""
    scores = savage_scores(values)
    place = np.arange(scores.matrix.nnz) - np.repeat(scores.matrix.indptr[:-1], np.diff(scores.matrix.indptr))
    row = np.repeat(np.arange(values.shape[0]), np.diff(scores.matrix.indptr))[place < n_top]
    top = sparse.csr_matrix(
        (np.ones(len(row), np.int32), (row, scores.matrix.indices[place < n_top])), shape=values.shape
    )
    return GeneLists(np.arange(values.shape[0]), top, scores)


def peers(values: sparse.csr_matrix, sets: Sets, arguments: argparse.Namespace) -> dict[str, float]:
    """Tests per second of what is installed. What shuffles gets few rankings and sets, or it would take hours."""
    few = _Given(values[: arguments.shuffled_units], sets, arguments.shuffled_sets)
    many = _Given(values[: arguments.peer_units], sets, arguments.peer_sets)
    found: dict[str, float] = {}
    with contextlib.suppress(ImportError):
        gseapy = importlib.import_module("gseapy")

        def prerank() -> None:
            for _, row in few.table.iterrows():
                gseapy.prerank(
                    rnk=row.sort_values(ascending=False), gene_sets=few.members, permutation_num=PEER_PERMUTATIONS, outdir=None,
                    min_size=1, max_size=100_000, threads=arguments.threads, seed=0, verbose=False,
                )  # fmt: skip

        found["gseapy prerank"] = few.n_tests / _quiet(prerank)
    with contextlib.suppress(ImportError):
        methods = importlib.import_module("decoupler").mt
        for name, given, more in (
            ("ulm", many, {}),
            ("aucell", many, {}),
            ("gsea", few, {"times": PEER_PERMUTATIONS}),
        ):
            run = functools.partial(getattr(methods, name), net=given.net, tmin=1, verbose=False, **more)
            run(given.table.iloc[:1])  # compiles
            found[f"decoupler {name}"] = given.n_tests / _quiet(functools.partial(run, given.table))
    return found


class _Given:
    """Rankings and the first sets, as peers take them."""

    def __init__(self, values: sparse.csr_matrix, sets: Sets, n_sets: int):
        names = np.array([f"g{gene}" for gene in range(values.shape[1])])
        rows = [f"u{unit}" for unit in range(values.shape[0])]
        self.table = pd.DataFrame(values.toarray(), columns=names, index=rows)
        by_set = sets.matrix.tocsc()[:, :n_sets]
        of_set = np.split(by_set.indices, by_set.indptr[1:-1])
        self.members = {f"s{number}": names[genes].tolist() for number, genes in enumerate(of_set)}
        source = np.repeat(list(self.members), np.diff(by_set.indptr))
        self.net = pd.DataFrame({"source": source, "target": names[by_set.indices], "weight": 1.0})
        self.n_tests = len(rows) * len(self.members)


def largest_p_ratio(rng: np.random.Generator, lists: GeneLists, sets: Sets) -> float:
    """How far p is from the share of shuffles with as large a sum, for tests with p from 0.001 to 0.05 of one ranking."""
    one = GeneLists(lists.unit[:1], lists.matrix[:1], lists.ranking.of(np.array([0])))
    tests = SAVAGE.run(one, sets, Keep(0.05))
    scores = one.ranking.matrix.toarray()[0] + one.ranking.tied[0]
    chosen = np.flatnonzero((tests.p_value > 0.001) & (tests.n_term <= 100))[:4]
    worst = 1.0
    for test in chosen.tolist():
        size = int(tests.n_term[test])
        total = scores[sets.matrix[:, [int(tests.term[test])]].nonzero()[0]].sum()
        sums = np.concatenate([_drawn_sums(rng, scores, size, 10_000) for _ in range(OWN_PERMUTATIONS // 10_000)])
        ratio = float((sums >= total - 1e-9).mean() / tests.p_value[test])
        worst = max(worst, ratio, 1 / ratio)
    return worst


def _drawn_sums(rng: np.random.Generator, scores: np.ndarray, size: int, n: int) -> np.ndarray:
    """Sums of genes drawn without replacement: those with a gene twice are drawn again."""
    drawn = rng.integers(0, len(scores), (n, size))
    twice = np.flatnonzero((np.diff(np.sort(drawn, axis=1), axis=1) == 0).any(axis=1))
    for row in twice.tolist():
        drawn[row] = rng.choice(len(scores), size, replace=False)
    return scores[drawn].sum(axis=1)


def _record(name: str, ours: float, peer: float | None, limit: float) -> dict[str, Any]:
    return {
        "name": "enrichment of rankings", "unit": "tests/s", "ours": ours, "peer": peer, "peer_name": name,
        "ratio": ours / peer if peer else None, "limit": limit, "limit_name": "the product of scores and sets alone", "share_of_limit": ours / limit,
    }  # fmt: skip


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock, and of cores."""
    clock, cores = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - cores


def _quiet(work: Callable[[], object]) -> float:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return _timed(work)[0]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=512, help="rankings (default: %(default)s)")
    parser.add_argument("--sets", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--genes", type=int, default=15_000, help="default: %(default)s")
    parser.add_argument("--peer-units", type=int, default=64, help="rankings for ulm, aucell (default: %(default)s)")
    parser.add_argument("--peer-sets", type=int, default=2000, help="sets for ulm, aucell (default: %(default)s)")
    parser.add_argument(
        "--shuffled-units", type=int, default=1, help="rankings for prerank, gsea (default: %(default)s)"
    )
    parser.add_argument("--shuffled-sets", type=int, default=50, help="sets for prerank, gsea (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="one more line per peer, for scripts")
    return parser.parse_args()


if __name__ == "__main__":
    main()
