"""Terms with most of their genes in common are one family."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from sae_genomics.comparison import families as module
from sae_genomics.comparison.families import families


def matrix(sets: list[set[int]]) -> sparse.csr_matrix:
    dense = np.zeros((40, len(sets)), dtype=np.int32)
    for column, genes in enumerate(sets):
        dense[list(genes), column] = 1
    return sparse.csr_matrix(dense)


def test_near_copies_are_linked_and_chains_hold_together() -> None:
    sets = [
        set(range(10)), set(range(20, 30)), set(range(12)), {0, 1, 2}, set(range(14)), set(range(20, 25)), set(range(24, 34)), set(),
    ]  # fmt: skip
    found = families(matrix(sets))
    assert found[0] == found[2] == found[4]
    assert found[1] == found[5]  # 5 of 10
    others = [3, 6, 7]  # 3 of 10; 6 of 14; no genes
    assert len({found[i] for i in [0, 1, *others]}) == 5


def test_blocks_change_nothing(monkeypatch) -> None:
    generator = np.random.default_rng(0)
    base = [set(generator.choice(40, 6, replace=False).tolist()) for _ in range(30)]
    sets = base + [each | {int(generator.integers(40))} for each in base]
    whole = families(matrix(sets))
    monkeypatch.setattr(module, "_BLOCK", 7)
    np.testing.assert_array_equal(families(matrix(sets)), whole)
    assert len(set(whole)) <= 30
    # beside a plain count
    linked = [[len(a & b) >= 0.5 * len(a | b) for b in sets] for a in sets]
    for i, row in enumerate(linked):
        assert all(whole[i] == whole[j] for j, one in enumerate(row) if one)
