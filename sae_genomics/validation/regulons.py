"""Is a feature the programme of a transcription factor? Three questions of each unit and factor.

- Are more of the factor's targets among the top genes than chance gives? (`enrichment_tests.fisher`, and among genes of similar expression)
- Are they targets that the factor activates? A list holds genes that a feature goes with, so repressed ones speak against it. With a
  activated and r repressed targets in the background, and k of them listed, the number of activated ones among the k is hypergeometric.
- Is the factor itself one of the top genes? By chance it is with the share of genes in its bin (`background.matched_bins`) that are.

A factor is never counted as its own target.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from sae_genomics.validation.enrichment import Enrichment, Floats, Keep, Matched, Sets
from sae_genomics.validation.enrichment_tests.fisher import FISHER, hypergeometric_tail
from sae_genomics.validation.gene_lists import GeneLists

KEPT_P = 0.05
Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Regulons:
    """Targets of factors, as sets over a background.

    factor: text [factors]. gene: int64 [factors], position of the factor itself, -1 where no list can hold it.
    sets: of all targets; one source. signs: csr int32 [background, factors], 1 for activated, -1 for repressed ones.
    """

    factor: npt.NDArray[np.object_]
    gene: Positions
    sets: Sets
    signs: sparse.csr_matrix

    def shuffled(self, permutation: Positions) -> Regulons:
        """With the names of genes exchanged: a position takes targets and factors of another. See `Sets.shuffled`."""
        back = np.empty_like(permutation)
        back[permutation] = np.arange(len(permutation))
        gene = np.where(self.gene >= 0, back[self.gene], -1)
        return Regulons(self.factor, gene, self.sets.shuffled(permutation), self.signs[permutation])


@dataclass(frozen=True)
class Found:
    """Tests of units against factors. activated, repressed: int64, of the shared targets. All others float64 [tests].

    expected_activated, p_sign: NaN without a shared target of known sign. own: whether the factor is listed. own_chance: NaN where no list can hold it.
    """

    tests: Enrichment
    matched: Matched
    activated: Positions
    repressed: Positions
    expected_activated: Floats
    p_sign: Floats
    own: npt.NDArray[np.bool_]
    own_chance: Floats


def regulons_over(
    pairs: pd.DataFrame, symbols: npt.NDArray[np.object_], universe: npt.NDArray[np.bool_], bins: Positions,
    min_size: int, max_size: int,
) -> Regulons:  # fmt: skip
    """Regulons with min_size to max_size targets of the background.

    pairs: factor (symbol), factor_gene and target (positions in the background, -1 for none), sign. symbols: of the background.
    universe: bool [background], genes that the database names.
    """
    known = pairs[(pairs["target"] >= 0) & (pairs["target"] != pairs["factor_gene"])]
    known = known.drop_duplicates(["factor", "target"])
    size = known.groupby("factor")["target"].transform("size")
    known = known[(size >= min_size) & (size <= max_size)].sort_values(["factor", "target"], kind="stable")
    number, factors = pd.factorize(known["factor"])
    shape = (len(symbols), len(factors))
    target = known["target"].to_numpy()
    members = sparse.csr_matrix((np.ones(len(known), dtype=np.int32), (target, number)), shape=shape)
    signs = sparse.csr_matrix((known["sign"].to_numpy(np.int32), (target, number)), shape=shape)
    gene = known.drop_duplicates("factor")["factor_gene"].to_numpy(np.int64)
    sets = Sets(members, np.zeros(len(factors), dtype=np.int64), universe[:, None], bins)
    return Regulons(np.asarray(factors, dtype=object), gene, sets, signs)


def find(lists: GeneLists, regulons: Regulons, p: float) -> Found:
    """Every unit against every factor; rows for tests with a p up to this one."""
    tests = FISHER.run(lists, regulons.sets, Keep(p))
    matched = FISHER.beside_expression(lists, regulons.sets, tests, np.ones(len(tests.row), dtype=np.bool_))
    activated, repressed = (_shared(lists, regulons.signs == sign, tests) for sign in (1, -1))
    n_activated, n_repressed = (
        np.asarray((regulons.signs == sign).sum(axis=0)).ravel().astype(np.int64)[tests.term] for sign in (1, -1)
    )
    signed, all_signed = activated + repressed, n_activated + n_repressed
    with np.errstate(invalid="ignore"):
        expected = np.where(signed > 0, signed * (n_activated / all_signed), np.nan)
    p_sign = np.full(len(signed), np.nan)
    some = signed > 0
    p_sign[some] = hypergeometric_tail(activated[some], n_activated[some], signed[some], all_signed[some])
    own, chance = _own_factor(lists, regulons, tests)
    return Found(tests, matched, activated, repressed, expected, p_sign, own, chance)


def _shared(lists: GeneLists, sets: sparse.csr_matrix, tests: Enrichment) -> Positions:
    """Genes that a list shares with some of a factor's targets: int64 [tests]."""
    if not len(tests.row):
        return np.zeros(0, dtype=np.int64)
    overlap = (lists.matrix @ sparse.csr_matrix(sets, dtype=np.int32)).tocsr()
    return np.asarray(overlap[tests.row, tests.term]).ravel().astype(np.int64)


def _own_factor(lists: GeneLists, regulons: Regulons, tests: Enrichment) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Whether the factor is one of the list's genes, and how likely that is for a gene of its bin."""
    gene, bins = regulons.gene[tests.term], regulons.sets.bins
    there = gene >= 0
    own, chance = np.zeros(len(gene), dtype=np.bool_), np.full(len(gene), np.nan)
    if not there.any():
        return own, chance
    row, of_factor = tests.row[there], gene[there]
    own[there] = np.asarray(lists.matrix[row, of_factor]).ravel() > 0
    size = np.bincount(bins)
    in_bin = sparse.csr_matrix((np.ones(len(bins), dtype=np.int32), (np.arange(len(bins)), bins)))
    listed = (lists.matrix @ in_bin).tocsr()
    chance[there] = np.asarray(listed[row, bins[of_factor]]).ravel() / size[bins[of_factor]]
    return own, chance
