"""What the same procedure finds where the tie between lists and gene sets is cut: two nulls, one stricter than the other.

Both shuffle the names of the background's genes. One permutation serves all lists of a repeat, so list sizes, how often each
gene is listed, how much lists share, set sizes and how much sets share all stay. They differ in what else stays:

    shuffled_genes   nothing else: any gene may take any name. This is Fisher's own null, so few units can pass it by chance.
    matched_genes    how often a gene is detected and how strongly it is expressed: names move within `background.matched_bins`.
                     A list of highly expressed genes stays one, and meets the sets of highly expressed genes as often as it would
                     without any biology.

A unit is annotated by `Matched.q`, which takes expression into account already. The nulls show that this is so: both find next to nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from sae_genomics.validation.enrichment import Enrichment, Keep, Matched, Sets
from sae_genomics.validation.enrichment_test import EnrichmentTest
from sae_genomics.validation.gene_lists import GeneLists

SHUFFLED, MATCHED = "shuffled_genes", "matched_genes"
ALL = "all"  # the rows of every collection at once
_SEED_WORDS = {SHUFFLED: b"shuffled genes", MATCHED: b"matched genes"}


def annotated(test: EnrichmentTest, lists: GeneLists, sets: Sets, fdr: float) -> tuple[Enrichment, Matched]:
    """The tests as far as they decide who is annotated: p of the matched test is computed for those that pass without it."""
    tests = test.run(lists, sets, Keep(fdr))
    return tests, test.beside_expression(lists, sets, tests, (tests.q_value < fdr) | (tests.q_source < fdr))


def null_tests(
    test: EnrichmentTest, null: str, lists: GeneLists, sets: Sets, seeds: Sequence[int], repeats: int, fdr: float
) -> Iterator[tuple[Enrichment, Matched]]:
    """The tests with the background's gene names shuffled, once per repeat.

    null: SHUFFLED, which takes no notice of the bins, or MATCHED.
    seeds: of the run and of the layer. Features and baselines of one background meet the same permutations.
    """
    where = np.zeros_like(sets.bins) if null == SHUFFLED else sets.bins
    for repeat in range(repeats):
        generator = np.random.default_rng(
            np.random.SeedSequence([seeds[0], zlib.crc32(_SEED_WORDS[null]), *seeds[1:], repeat])
        )
        yield annotated(test, lists, sets.shuffled(shuffled_within(where, generator)), fdr)


def shuffled_within(bins: npt.NDArray[np.int64], generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """A random permutation of positions that stays within bins: int64 [genes]."""
    permutation = np.empty(len(bins), dtype=np.int64)
    permutation[np.argsort(bins, kind="stable")] = np.lexsort((generator.random(len(bins)), bins))
    return permutation
