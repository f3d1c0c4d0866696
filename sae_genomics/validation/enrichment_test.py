"""What an enrichment test is. `enrichment_tests` has the list of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from scipy import sparse

from sae_genomics.artifacts import Inference
from sae_genomics.validation.enrichment import Enrichment
from sae_genomics.validation.gene_lists import GeneLists


@dataclass(frozen=True)
class EnrichmentTest:
    """One way to tell whether a unit's genes and a gene set have more in common than chance gives."""

    name: str
    """as in `validation.test`"""

    description: str
    """what the report calls it: `exact hypergeometric test`"""

    inference: Inference
    """what its statistics are about: written into feature_terms.parquet, shown under the tables of report and dashboard"""

    run: Callable[[GeneLists, sparse.csr_matrix], Enrichment]
    """(lists, sets) -> every list against every set. sets: csr int32 [background, terms], 1 for a member.

    The nulls call it too, with the rows of `sets` shuffled. So it must depend on nothing but its arguments.
    """

    reads: Literal["lists", "ranking"] = "lists"
    """lists: each unit's top genes, cut at validation.top_genes. ranking: the scores of all genes of the background as well
    (`GeneLists.ranking`), for which the stage associate leaves a further table."""
