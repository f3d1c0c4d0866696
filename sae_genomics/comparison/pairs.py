"""Every two runs, and every two layers of different runs: what both find, beside chance."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from sae_genomics.associations.multiple_testing import benjamini_hochberg
from sae_genomics.comparison.chance import Shared, shared, strata_of
from sae_genomics.comparison.families import families
from sae_genomics.comparison.run_terms import KEY, RunTerms

ANY = "any"  # a term counts that one of the run's layers has
COLUMNS = (
    "run_a", "layer_a", "run_b", "layer_b", "terms_tested", "terms_a", "terms_b", "terms_shared", "terms_by_chance",
    "families_tested", "families_a", "families_b", "families_shared", "families_by_chance", "by_chance_low", "by_chance_high",
    "p_value", "q_value",
)  # fmt: skip


def compare_pairs(runs: Sequence[RunTerms]) -> pd.DataFrame:
    """One row per pair: first the runs as wholes, then their layers. q_value: Benjamini-Hochberg over all rows."""
    rows = [row for first, second in combinations(runs, 2) for row in _pair(first, second)]
    table = pd.DataFrame(rows).sort_values("layer_a", key=lambda layer: layer != ANY, kind="stable", ignore_index=True)
    q = benjamini_hochberg(table["p_value"].to_numpy(), len(table))
    return table.assign(q_value=q)[list(COLUMNS)]


def _pair(first: RunTerms, second: RunTerms) -> list[dict[str, object]]:
    both = first.terms.reset_index().merge(second.terms.reset_index(), on=KEY, suffixes=("_a", "_b"))
    family = families(_common(first, second, both))
    n_families = int(family.max(initial=-1)) + 1
    size = both["n_term_a"].to_numpy() + both["n_term_b"].to_numpy()
    # A family belongs to the collection of its first term, and its size is that of all its terms: more terms, more chances.
    _, first_term = np.unique(family, return_index=True)
    collection = pd.factorize(both["collection"])[0].astype(np.int64)
    of_terms = strata_of(collection, size)
    of_families = strata_of(collection[first_term], np.bincount(family, size, n_families))
    rows = []
    keys = pd.MultiIndex.from_frame(both[KEY])
    found_a, found_b = _found(first, keys), _found(second, keys)
    wholes = [(ANY, ANY)]
    for layer_a, layer_b in [*wholes, *((a, b) for a in map(str, first.layers) for b in map(str, second.layers))]:
        a, b = found_a[layer_a], found_b[layer_b]
        terms = shared(a, b, of_terms)
        of_family = shared(_any(a, family, n_families), _any(b, family, n_families), of_families)
        rows.append(
            {"run_a": first.name, "layer_a": layer_a, "run_b": second.name, "layer_b": layer_b} | _row(terms, of_family)
        )
    return rows


def _row(terms: Shared, of_family: Shared) -> dict[str, object]:
    return {
        "terms_tested": terms.n_tested, "terms_a": terms.n_first, "terms_b": terms.n_second, "terms_shared": terms.n_shared,
        "terms_by_chance": terms.expected, "families_tested": of_family.n_tested, "families_a": of_family.n_first,
        "families_b": of_family.n_second, "families_shared": of_family.n_shared, "families_by_chance": of_family.expected,
        "by_chance_low": of_family.low, "by_chance_high": of_family.high, "p_value": of_family.p_value,
    }  # fmt: skip


def _common(first: RunTerms, second: RunTerms, both: pd.DataFrame) -> sparse.csr_matrix:
    """The terms of both runs, as sets of the genes that both could list: csr [genes, terms]."""
    genes = np.isin(first.genes.astype(str), second.genes.astype(str))
    return first.matrix[genes][:, both["index_a"].to_numpy()].tocsr()


def _found(run: RunTerms, keys: pd.MultiIndex) -> dict[str, npt.NDArray[np.bool_]]:
    """layer, or ANY -> bool [terms]."""
    by_layer = {
        str(layer): keys.isin(pd.MultiIndex.from_frame(run.found.loc[run.found["layer"] == layer, KEY]))
        for layer in run.layers
    }
    return {ANY: np.any(list(by_layer.values()), axis=0), **by_layer}


def _any(found: npt.NDArray[np.bool_], family: npt.NDArray[np.int64], n_families: int) -> npt.NDArray[np.bool_]:
    """Whether one of a family's terms is found: bool [families]."""
    return np.bincount(family, found, n_families) > 0
