"""The short name of each feature beside its number: of feature_names.parquet, with the source and the sources that agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sae_genomics.artifacts.names import UNNAMED
from sae_genomics.report.dashboard_arrays import Names, empty, log10
from sae_genomics.report.dashboard_packing import Array

_EMPTY = empty(("q_matched",), ("name", "collection", "term", "term_id", "sources"))


class FeatureNames:
    """Columns of the names, one value per feature; -1 without a name."""

    def __init__(self) -> None:
        self._names, self._agreeing = Names(), Names()

    def columns(self, table: pd.DataFrame | None, features: pd.Series, terms: Names) -> dict[str, Array]:
        """Of one layer. table: feature_names.parquet. terms: numbers the texts of `term_key`."""
        named = _EMPTY if table is None else table
        named = named[named["name"].ne(UNNAMED) & named["name"].notna()].set_index("feature")
        return {
            "name": self._names.codes(features.map(named["name"])),
            "name_term": terms.codes(features.map(term_key(named))),
            "name_sources": self._agreeing.codes(features.map(named["sources"])),
            "name_log10q": log10(features.map(named["q_matched"])),
        }

    def meta(self) -> dict[str, Any]:
        """The texts."""
        return {"names": self._names.texts, "name_sources": self._agreeing.texts}


def term_key(terms: pd.DataFrame) -> pd.Series:
    """Source, id and name as one text: two sources may hold terms of the same name. The id at the end of a name is left out."""
    term, key = terms["term"].astype(str), terms["term_id"].astype(str)
    short = [name.removesuffix(f" ({own})") for name, own in zip(term, key, strict=True)]
    parts = (terms["collection"].astype(str), key, pd.Series(short, index=terms.index, dtype=object))
    clean = [np.asarray(part.astype(str).str.replace("\t", " ", regex=False), dtype=object) for part in parts]
    return pd.Series(clean[0] + "\t" + clean[1] + "\t" + clean[2], index=terms.index, dtype=object)
