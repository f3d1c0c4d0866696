"""What the same procedure finds where the tie between lists and gene sets is cut: two nulls, one stricter than the other.

Both shuffle the names of the background's genes. One permutation serves all lists of a repeat, so list sizes, how often each
gene is listed, how much lists share, set sizes and how much sets share all stay. They differ in what else stays:

    shuffled_genes   nothing else: any gene may take any name. This is Fisher's own null, so few units can pass it by chance. It cannot tell biology from expression: a list of highly expressed genes loses that, too.
    matched_genes    how often a gene is detected and how strongly it is expressed: names move within `background.matched_bins`.
                     A list of highly expressed genes stays one, and meets the sets of highly expressed genes as often as it would
                     without any biology. What stands above this null is more than expression.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sae_genomics.validation.enrichment import Enrichment
from sae_genomics.validation.enrichment_test import EnrichmentTest
from sae_genomics.validation.gene_lists import GeneLists
from sae_genomics.validation.gene_sets import Membership

SHUFFLED, MATCHED = "shuffled_genes", "matched_genes"
ALL = "all"  # the rows of every collection at once
_SEED_WORDS = {SHUFFLED: b"shuffled genes", MATCHED: b"matched genes"}


def null_tests(
    test: EnrichmentTest,
    null: str,
    lists: GeneLists,
    members: Membership,
    bins: npt.NDArray[np.int64],
    seed: int,
    layer: int,
    repeats: int,
) -> Iterator[Enrichment]:
    """The tests with the background's gene names shuffled, once per repeat.

    null: SHUFFLED, which takes no notice of the bins, or MATCHED.
    bins: int64 [background].

    Features and baselines of one background meet the same permutations.
    """
    where = np.zeros_like(bins) if null == SHUFFLED else bins
    for repeat in range(repeats):
        generator = np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(_SEED_WORDS[null]), layer, repeat]))
        yield test.run(lists, members.matrix[shuffled_within(where, generator)])


def shuffled_within(bins: npt.NDArray[np.int64], generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """A random permutation of positions that stays within bins: int64 [genes]."""
    permutation = np.empty(len(bins), dtype=np.int64)
    permutation[np.argsort(bins, kind="stable")] = np.lexsort((generator.random(len(bins)), bins))
    return permutation


def null_row(
    source: str, units: str, repeat: int, lists: GeneLists, tests: Enrichment, fdr: float
) -> dict[str, object]:
    """A row of annotation_nulls.parquet."""
    found = tests.q_value < fdr
    n_annotated = len(np.unique(tests.row[found]))
    n_terms = len(np.unique(tests.term[found]))
    n_units = len(lists.unit)
    return {
        "source": source,
        "units": units,
        "collection": ALL,
        "repeat": repeat,
        "n_units": n_units,
        "n_annotated": n_annotated,
        "share": n_annotated / n_units if n_units else np.nan,
        "n_tests": tests.n_tests,
        "n_terms": n_terms,
        "terms_per_100_units": 100 * n_terms / n_units if n_units else np.nan,
    }


def untested_row(units: str) -> dict[str, object]:
    """The row of units that no gene set could be tested with."""
    counts = dict.fromkeys(("repeat", "n_units", "n_annotated", "n_tests", "n_terms"), 0)
    return {
        "source": units,
        "units": units,
        "collection": ALL,
        **counts,
        "share": np.nan,
        "terms_per_100_units": np.nan,
    }
