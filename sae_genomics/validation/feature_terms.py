"""The rows of feature_terms.parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from sae_genomics.validation.background import Background
from sae_genomics.validation.enrichment import Enrichment, Keep, Matched
from sae_genomics.validation.enrichment_test import EnrichmentTest
from sae_genomics.validation.gene_lists import GeneLists
from sae_genomics.validation.gene_sets import Collection, Membership
from sae_genomics.validation.hierarchy import explained_rows

ENTRIES_AT_ONCE = 1 << 22

KEPT_P, KEPT_BEST = 0.05, 20  # tests with a p up to here have a row, and so have the best of each feature


def all_terms_of(
    test: EnrichmentTest,
    lists: GeneLists,
    background: Background,
    collections: Sequence[Collection],
    fdr: float,
    best: int,
) -> pd.DataFrame:
    """Every list against every set, as rows of feature_terms.parquet. best: rows of each list that are there whatever their p."""
    small = max(KEPT_P, fdr)  # above fdr no p of the matched test can matter
    tests = test.run(lists, background.sets, Keep(small, best))
    matched = test.beside_expression(lists, background.sets, tests, np.asarray(tests.p_value <= small))
    is_found = (matched.q < fdr) | (matched.q_source < fdr)
    explained = explained_rows(tests, is_found, lists.matrix, background.members, collections)
    return feature_terms(lists, tests, matched, background.members, explained)


def feature_terms(
    lists: GeneLists,
    tests: Enrichment,
    matched: Matched,
    members: Membership,
    explained: npt.NDArray[np.object_],
) -> pd.DataFrame:
    """One row per test that is kept, by feature, then p. explained: text [rows], as `hierarchy.explained_rows` gives it."""
    odds_ratio, low, high = tests.odds_ratio()
    row, term = tests.row, tests.term
    table = pd.DataFrame(
        {
            "feature": lists.unit[row].astype(np.int32),
            "collection": members.collection[term],
            "term": members.term[term],
            "term_id": members.term_id[term],
            "n_overlap": tests.n_overlap,
            "n_term": tests.n_term,
            "n_top": tests.n_top,
            "n_background": tests.n_background,
            "odds_ratio": odds_ratio,
            "odds_ratio_low": low,
            "odds_ratio_high": high,
            "p_value": tests.p_value,
            "q_value": tests.q_value,
            "q_source": tests.q_source,
            "p_matched": matched.p,
            "q_matched": matched.q,
            "q_source_matched": matched.q_source,
            "explained_by": explained,
            "genes": shared_genes(lists, tests, members),
        }
    )
    return table.iloc[np.lexsort((term, tests.p_value, row))].reset_index(drop=True)


def shared_genes(lists: GeneLists, tests: Enrichment, members: Membership) -> npt.NDArray[np.object_]:
    """Shared symbols of each test, comma-separated; empty where list and set share none."""
    result = np.full(len(tests.row), "", dtype=object)
    for start, stop in _blocks(lists, members):
        here = np.flatnonzero((tests.row >= start) & (tests.row < stop))
        if len(here):
            result[here] = _shared(lists, members, start, stop, tests.row[here], tests.term[here])
    return result


def _blocks(lists: GeneLists, members: Membership) -> Iterator[tuple[int, int]]:
    """Ranges of lists whose genes are in about ENTRIES_AT_ONCE sets, so that memory does not grow with the lists."""
    per_list = lists.matrix @ np.diff(members.matrix.indptr).astype(np.int64)
    block = np.cumsum(per_list) // ENTRIES_AT_ONCE
    starts = np.flatnonzero(np.diff(block, prepend=-1))
    yield from zip(starts.tolist(), [*starts[1:].tolist(), len(per_list)], strict=True)


def _shared(
    lists: GeneLists,
    members: Membership,
    start: int,
    stop: int,
    row: npt.NDArray[np.int64],
    term: npt.NDArray[np.int64],
) -> npt.NDArray[np.object_]:
    """The same for lists start to stop.

    Every listed gene brings the sets that it is in, which gives (list, set, gene) once per shared gene.
    """
    sets, n_terms = members.matrix, len(members.term)
    listed = lists.matrix[start:stop]
    gene = listed.indices.astype(np.int64)
    n_sets = np.diff(sets.indptr)[gene].astype(np.int64)
    first = np.cumsum(n_sets) - n_sets
    entry = np.repeat(sets.indptr[gene] - first, n_sets) + np.arange(int(n_sets.sum()))
    of_list = np.repeat(np.arange(start, stop), np.diff(listed.indptr))
    pair, gene = np.repeat(of_list, n_sets) * n_terms + sets.indices[entry], np.repeat(gene, n_sets)
    wanted = np.unique(row * n_terms + term)
    at = np.minimum(np.searchsorted(wanted, pair), len(wanted) - 1)
    asked = wanted[at] == pair
    pair, gene = pair[asked], gene[asked]
    order = np.argsort(pair, kind="stable")
    names = pa.array(members.symbols).take(pa.array(gene[order]))
    starts = np.flatnonzero(np.diff(pair[order], prepend=-1))
    offsets = pa.array(np.append(starts, len(pair)).astype(np.int64))
    text = pc.binary_join(pa.LargeListArray.from_arrays(offsets, names), ",").to_numpy(zero_copy_only=False)
    sharing, tested = pair[order][starts], row * n_terms + term
    at = np.searchsorted(sharing, tested)
    result = np.append(text, "")[at]
    result[np.append(sharing, -1)[at] != tested] = ""
    return result
