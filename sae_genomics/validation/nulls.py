"""What the same procedure finds where there is nothing to find, or without an SAE."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from sae_genomics.validation.enrichment import Enrichment, GeneLists, enrich
from sae_genomics.validation.gene_sets import Membership


def shuffled_genes(lists: GeneLists, members: Membership, seed: int, layer: int, repeats: int) -> Iterator[Enrichment]:
    """The tests with the background's gene names dealt out anew, once a repeat.

    One permutation of names serves all lists of a repeat: list sizes, how often each gene is listed, how much lists
    share, set sizes and how much sets share all stay; only what ties a list to a set is broken.
    """
    for repeat in range(repeats):
        generator = np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(b"shuffled genes"), layer, repeat]))
        yield enrich(lists, members.matrix[generator.permutation(len(members.background))])


def null_row(source: str, repeat: int, lists: GeneLists, tests: Enrichment, fdr: float) -> dict[str, object]:
    """A row of annotation_nulls.parquet."""
    found = tests.q_value < fdr
    n_annotated = len(np.unique(tests.row[found]))
    n_units = len(lists.unit)
    return {
        "source": source,
        "repeat": repeat,
        "n_units": n_units,
        "n_annotated": n_annotated,
        "share": n_annotated / n_units if n_units else np.nan,
        "n_tests": tests.n_tests,
        "n_terms": len(np.unique(tests.term[found])),
    }
