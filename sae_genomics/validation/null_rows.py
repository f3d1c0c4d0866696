"""The rows of annotation_nulls.parquet: how many units are annotated, over all collections and over each of them alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sae_genomics.validation.enrichment import Enrichment, Matched, Sets
from sae_genomics.validation.gene_lists import GeneLists
from sae_genomics.validation.nulls import ALL


@dataclass(frozen=True)
class Tested:
    """Lists against all sets, with the names of genes as they are or shuffled."""

    source: str
    """features, the name of a baseline, or that of a null"""

    units: str
    """whose lists: features, or the name of a baseline"""

    repeat: int
    """number of the shuffle; 0 elsewhere"""


def null_rows(
    about: Tested, lists: GeneLists, sets: Sets, names: Sequence[str], found: tuple[Enrichment, Matched], fdr: float
) -> list[dict[str, object]]:
    """One row for all collections, then one per collection. names: of the collections, as `sets.source` numbers them."""
    tests, matched = found
    n_units, n_terms = len(lists.unit), np.bincount(sets.source, minlength=len(names))
    source = sets.source[tests.term]
    rows = [_row(about, ALL, n_units, len(sets.source), tests, matched.q < fdr)]
    for number, name in enumerate(names):
        passes = (source == number) & (matched.q_source < fdr)
        rows.append(_row(about, name, n_units, int(n_terms[number]), tests, passes))
    return rows


def untested_rows(units: str, names: Sequence[str]) -> list[dict[str, object]]:
    """The rows of units that no gene set could be tested with."""
    counts = dict.fromkeys(("repeat", "n_units", "n_annotated", "n_tests", "n_terms"), 0)
    both = {"source": units, "units": units, **counts, "share": np.nan, "terms_per_100_units": np.nan}
    return [{**both, "collection": name} for name in (ALL, *names)]


def _row(
    about: Tested, collection: str, n_units: int, n_sets: int, tests: Enrichment, passes: npt.NDArray[np.bool_]
) -> dict[str, object]:
    n_annotated, n_terms = len(np.unique(tests.row[passes])), len(np.unique(tests.term[passes]))
    return {
        "source": about.source,
        "units": about.units,
        "collection": collection,
        "repeat": about.repeat,
        "n_units": n_units,
        "n_annotated": n_annotated,
        "share": n_annotated / n_units if n_units else np.nan,
        "n_tests": n_units * n_sets,
        "n_terms": n_terms,
        "terms_per_100_units": 100 * n_terms / n_units if n_units else np.nan,
    }
