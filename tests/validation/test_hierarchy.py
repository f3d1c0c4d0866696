"""A found term is explained by the found terms below it when its other genes alone would not be found."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import sparse, stats

from sae_genomics.validation import hierarchy
from sae_genomics.validation.gene_sets import Collection, GeneSet, membership
from sae_genomics.validation.hierarchy import Found, explained_by, terms_below

N = 1000
GENES = np.array([f"G{i:04d}" for i in range(N)], dtype=object)
CUT = 1e-3


def collection(name: str, sets: dict[str, range | list[int]], parents: dict[str, tuple[str, ...]]) -> Collection:
    made = tuple(GeneSet(f"the {term}", term, tuple(GENES[list(genes)]), term) for term, genes in sets.items())
    return Collection(name, made, parents=parents)


def run(collections: list[Collection], lists: list[list[int]], cut: float = CUT) -> dict[tuple[int, str], str]:
    """Every test whose p is not above the cut counts as found: (list, term_id) -> what explains it."""
    members = membership(collections, GENES, 1, N)
    matrix = sparse.csr_matrix(
        np.isin(np.arange(N)[None, :], np.zeros(0))
        if not lists
        else np.stack([np.isin(np.arange(N), genes) for genes in lists]).astype(np.int32)
    )
    overlap = (matrix @ members.matrix).tocoo()
    n_term, n_top = members.set_sizes[overlap.col], np.array([len(set(genes)) for genes in lists])[overlap.row]
    p = stats.hypergeom.sf(overlap.data - 1, N, n_term, n_top)
    keep = p <= cut
    found = Found(
        *(part[keep].astype(np.int64) for part in (overlap.row, overlap.col, overlap.data, n_term, n_top)),
        np.full(keep.sum(), N),
    )
    said = explained_by(found, matrix, members, collections, cut)
    return {
        (int(row), members.term_id[term]): each for row, term, each in zip(found.row, found.term, said, strict=True)
    }


CHAIN = {"top": ("root",), "middle": ("top",), "leaf": ("middle",)}


def test_a_chain_is_explained_by_its_most_specific_term() -> None:
    sets = {"top": range(100), "middle": range(40), "leaf": range(20), "apart": range(15)}
    found = run([collection("go", sets, CHAIN)], [[*range(15), *range(500, 515)]])
    assert found == {(0, "leaf"): "", (0, "middle"): "leaf", (0, "top"): "leaf", (0, "apart"): ""}


def test_a_parent_with_genes_of_its_own_stands() -> None:
    sets = {"top": range(100), "leaf": range(20)}
    genes = [*range(10), *range(50, 60), *range(500, 510)]
    assert run([collection("go", sets, {"leaf": ("top",)})], [genes]) == {(0, "leaf"): "", (0, "top"): ""}
    # p of the rest, 10 of 20 genes in a set of 80 among 980, is what decides.
    rest = stats.hypergeom.sf(9, 980, 80, 20)
    assert run([collection("go", sets, {"leaf": ("top",)})], [genes], rest * 1.01)[0, "top"] == ""
    assert run([collection("go", sets, {"leaf": ("top",)})], [genes], rest * 0.99)[0, "top"] == "leaf"


def test_two_children_together_explain_a_parent_that_neither_explains() -> None:
    sets = {"top": range(100), "left": range(30), "right": range(50, 80)}
    parents = {"left": ("top",), "right": ("top",)}
    genes = [*range(12), *range(50, 60), *range(500, 510)]
    assert run([collection("go", sets, parents)], [genes]) == {(0, "left"): "", (0, "right"): "", (0, "top"): "left"}
    for one in ("left", "right"):
        alone = {term: genes for term, genes in sets.items() if term in ("top", one)}
        assert run([collection("go", alone, parents)], [genes])[0, "top"] == ""


def test_a_term_that_is_explained_explains_nothing() -> None:
    """In a diamond both sides are explained by what is below both, so that the top is compared with that term alone."""
    sets = {"top": range(200), "left": range(60), "right": [*range(30), *range(60, 90)], "leaf": range(20)}
    parents = {"leaf": ("left", "right"), "left": ("top",), "right": ("top",)}
    genes = [*range(16), 20, 60, *range(500, 515)]
    found = run([collection("go", sets, parents)], [genes])
    assert found == {(0, "leaf"): "", (0, "left"): "leaf", (0, "right"): "leaf", (0, "top"): "leaf"}


def test_terms_of_other_lists_and_other_collections_explain_nothing() -> None:
    sets = {"top": range(60), "leaf": range(20)}
    first, second = [*range(15), *range(500, 515)], [*range(20, 40), *range(500, 515)]
    same = [collection("go", sets, {"leaf": ("top",)})]
    assert run(same, [first, second]) == {(0, "leaf"): "", (0, "top"): "leaf", (1, "top"): ""}
    apart = [
        collection("go", {"top": sets["top"]}, {"leaf": ("top",)}),
        collection("hpo", {"leaf": sets["leaf"]}, {"leaf": ("top",)}),
    ]
    assert run(apart, [first]) == {(0, "top"): "", (0, "leaf"): ""}
    assert run([collection("go", sets, {})], [first]) == {(0, "top"): "", (0, "leaf"): ""}


def test_terms_between_that_are_not_tested_are_passed_through_and_circles_end() -> None:
    sets = {"top": range(100), "leaf": range(20), "a": range(300, 310), "b": range(300, 305)}
    parents = {**CHAIN, "a": ("b",), "b": ("a",)}
    tested = [collection("go", sets, parents), collection("plain", {"x": range(9)}, {})]
    members = membership(tested, GENES, 1, N)
    below = terms_below(tested, members).tocoo()
    assert [(members.term_id[i], members.term_id[j]) for i, j in zip(below.row, below.col, strict=True)] == [
        ("top", "leaf")
    ]
    assert run(tested, [[*range(15), *range(500, 515)]])[0, "top"] == "leaf"
    assert run(tested, []) == {}


def plain(sets: dict[str, set[int]], below: dict[str, set[str]], genes: set[int], cut: float) -> dict[str, str]:
    """The same with sets and loops."""

    def p(background: int, term: set[int], top: set[int]) -> float:
        return float(stats.hypergeom.sf(len(term & top) - 1, background, len(term), len(top)))

    found = {term for term in sets if sets[term] & genes and p(N, sets[term], genes) <= cut}
    said: dict[str, str] = {}
    for term in sorted(found, key=lambda each: len(below[each])):
        inner = [each for each in found & below[term] if said[each] == ""]
        union = set().union(*(sets[each] for each in inner))
        said[term] = ""
        if inner and p(N - len(union), sets[term] - union, genes - union) > cut:
            share = {each: len(sets[each] & sets[term] & genes) for each in inner}
            order = list(sets)
            best = min(inner, key=lambda each: (-share[each], len(sets[each]), order.index(each)))
            said[term] = best if share[best] else ""
    return said


@pytest.mark.parametrize("block", [1, 1 << 23])
@pytest.mark.parametrize("seed", range(6))
def test_random_hierarchies_against_plain_loops(seed: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hierarchy, "_BLOCK_GENES", block)
    generator = np.random.default_rng(seed)
    n_terms = 40
    names = [f"t{i}" for i in generator.permutation(n_terms)]
    up = {i: {int(j) for j in generator.integers(0, i, 2)} for i in range(1, n_terms)}
    members = [set(generator.choice(N, int(generator.integers(3, 40)), False).tolist()) for _ in range(n_terms)]
    below: list[set[int]] = [set() for _ in range(n_terms)]
    for i in range(n_terms - 1, 0, -1):
        for j in up[i]:
            below[j] |= {i} | below[i]
            if seed % 2:  # sets that hold those below them, and sets that only overlap them
                members[j] |= members[i]
            else:
                members[j] |= set(list(members[i])[::2])
    sets = {names[i]: members[i] for i in generator.permutation(n_terms)}
    under = {names[i]: {names[j] for j in below[i]} for i in range(n_terms)}
    parents = {names[i]: tuple(names[j] for j in ids) for i, ids in up.items()}
    lists = []
    for _ in range(12):
        programme = list(members[int(generator.integers(n_terms))])
        lists.append({*programme[:20], *generator.choice(N, 20).tolist()})
    cut = 1e-2
    got = run(
        [collection("go", {term: sorted(genes) for term, genes in sets.items()}, parents)],
        [sorted(x) for x in lists],
        cut,
    )
    expected = {
        (row, term): each for row, genes in enumerate(lists) for term, each in plain(sets, under, genes, cut).items()
    }
    assert got == expected
    assert sum(each != "" for each in got.values()) > 5
    assert sum(each == "" for each in got.values()) > 5


def test_a_whole_layer_takes_seconds() -> None:
    """2,000 lists of 100 genes with some 30 found terms each, in a hierarchy of 3,000 terms."""
    generator = np.random.default_rng(0)
    n_genes, n_terms, n_lists = 15_000, 3_000, 2_000
    levels = np.sort(generator.integers(0, 8, n_terms))
    parent = np.array([generator.choice(np.flatnonzero(levels < level)) if level else -1 for level in levels])
    below = np.zeros((n_terms, n_terms), dtype=bool)
    for i in range(n_terms - 1, 0, -1):
        if parent[i] >= 0:
            below[parent[i], i] = True
            below[parent[i]] |= below[i]
    genes = sparse.random(n_terms, n_genes, 0.001, "csr", rng=generator, dtype=np.float64).astype(bool)
    sets = ((sparse.csr_matrix(below) @ genes).astype(bool) + genes).astype(np.int32).T.tocsr()
    lists = sparse.random(n_lists, n_genes, 100 / n_genes, "csr", rng=generator).astype(bool).astype(np.int32)
    row = np.repeat(np.arange(n_lists), 30)
    chain = generator.integers(0, n_terms, n_lists * 30)
    size = np.bincount(sets.indices, minlength=n_terms).astype(np.int64)
    overlap = np.asarray(lists[row].multiply(sets.T.tocsr()[chain]).sum(axis=1)).ravel().astype(np.int64)
    top = np.diff(lists.indptr)[row].astype(np.int64)
    found = Found(row, chain, overlap, size[chain], top, np.full(len(row), n_genes))
    start = time.perf_counter()
    hierarchy.explaining(found, lists, sets, sparse.csr_matrix(below), 1e-4)
    assert time.perf_counter() - start < 60
