"""What an enrichment test is. `enrichment_tests` has the list of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sae_genomics.artifacts import Inference
from sae_genomics.validation.enrichment import Enrichment, Floats, Keep, Matched, Sets, matched_q
from sae_genomics.validation.gene_lists import GeneLists


def _of_shared_genes(lists: GeneLists, sets: Sets, tests: Enrichment) -> Floats:
    from sae_genomics.validation.matched import (
        matched_overlaps,
    )  # numba, which a command that only asks for names does not need

    return matched_overlaps(lists, sets, tests)


@dataclass(frozen=True)
class EnrichmentTest:
    """One way to tell whether a unit's genes and a gene set have more in common than chance gives.

    The nulls call it too, with the names of the genes exchanged. So it must depend on nothing but its arguments.
    """

    name: str
    """as in `validation.test`"""

    description: str
    """what the report calls it: `exact hypergeometric test`"""

    inference: Inference
    """what its statistics are about: written into feature_terms.parquet, shown under the tables of report and dashboard"""

    run: Callable[[GeneLists, Sets, Keep], Enrichment]
    """(lists, sets, keep) -> every list against every set, with rows as `keep` says"""

    reads: Literal["lists", "ranking"] = "lists"
    """lists: each unit's top genes, cut at validation.top_genes. ranking: the scores of all genes of the background as well
    (`GeneLists.ranking`), for which the stage associate leaves a further table."""

    matched: Callable[[GeneLists, Sets, Enrichment], Floats] = _of_shared_genes
    """(lists, sets, tests) -> p of these tests when list and set are independent within each bin: float64 [rows]. The default is right
    for every test that looks at shared genes alone."""

    def beside_expression(
        self, lists: GeneLists, sets: Sets, tests: Enrichment, wanted: npt.NDArray[np.bool_]
    ) -> Matched:
        """What is left of the tests among genes of similar expression. wanted: bool [rows], for which p is computed."""
        p = np.full(len(tests.row), np.nan)
        p[wanted] = self.matched(lists, sets, tests.only(wanted))
        return matched_q(tests, p, sets, len(lists.unit))
