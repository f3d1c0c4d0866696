"""annotation_nulls.parquet of one layer, side by side: features and baselines, each with its two nulls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sae_genomics.report.markdown import is_number
from sae_genomics.validation.nulls import ALL, MATCHED, SHUFFLED

FEATURES = "features"
LABELS = {
    FEATURES: "SAE features",
    "neurons": "raw neurons",
    "pca": "principal components",
    "ica": "independent components",
    "untrained": "features on an untrained model",
}
NO_NUMBER = float("nan")
MOST_LAYERS = 6  # that a text names one by one


@dataclass(frozen=True)
class Null:
    """What the units give with gene names shuffled: one entry per repeat.

    n_annotated: units with a gene set. n_terms: different gene sets.
    """

    n_units: int
    n_annotated: tuple[int, ...]
    n_terms: tuple[int, ...]

    @property
    def share(self) -> tuple[float, ...]:
        return tuple(n / self.n_units for n in self.n_annotated) if self.n_units else ()

    @property
    def terms_per_100(self) -> tuple[float, ...]:
        return tuple(100 * n / self.n_units for n in self.n_terms) if self.n_units else ()


@dataclass(frozen=True)
class Source:
    """One kind of units: the SAE's features, or a baseline.

    n_units: units with at least one gene to test. n_annotated: those with a gene set. n_terms: different gene sets found.
    shuffled: names shuffled among all genes. matched: among genes of the same detection and expression.
    """

    units: str
    n_units: int
    n_annotated: int
    n_terms: int
    shuffled: Null
    matched: Null

    @property
    def label(self) -> str:
        return LABELS.get(self.units, self.units)

    @property
    def share(self) -> float:
        return self.n_annotated / self.n_units if self.n_units else NO_NUMBER

    @property
    def terms_per_100(self) -> float:
        return 100 * self.n_terms / self.n_units if self.n_units else NO_NUMBER

    @property
    def above_chance(self) -> bool:
        """Whether more units are annotated than in every shuffle among genes of the same expression."""
        return bool(self.matched.n_annotated) and self.n_annotated > max(self.matched.n_annotated)


@dataclass(frozen=True)
class Annotation:
    """A layer's features, and the baselines that stand beside them in the order of the table."""

    features: Source
    baselines: tuple[Source, ...]

    @property
    def sources(self) -> tuple[Source, ...]:
        return (self.features, *self.baselines)

    @property
    def n_shuffles(self) -> int:
        return len(self.features.matched.n_annotated)

    @property
    def facts(self) -> list[dict[str, Any]]:
        """What the dashboard says of each source, as JSON."""
        return [_facts(source) for source in self.sources]


def annotation(nulls: pd.DataFrame, collection: str = ALL) -> Annotation | None:
    """From annotation_nulls.parquet, of all gene sets or of one collection's; None when the features' own row is not there."""
    rows = nulls[nulls["collection"] == collection]
    found = [_source(str(units), part) for units, part in rows.groupby("units", sort=False)]
    sources = {source.units: source for source in found if source is not None}
    features = sources.pop(FEATURES, None)
    return Annotation(features, tuple(sources.values())) if features is not None else None


def by_collection(nulls: pd.DataFrame) -> dict[str, Annotation]:
    """The same for each collection alone, in the order of the table."""
    names = [str(name) for name in nulls["collection"].unique() if name != ALL]
    found = {name: annotation(nulls, name) for name in names}
    return {name: each for name, each in found.items() if each is not None}


def _source(units: str, rows: pd.DataFrame) -> Source | None:
    own = rows[rows["source"] == units]
    if own.empty:
        return None
    n_units, n_annotated, n_terms = (int(own[name].iloc[0]) for name in ("n_units", "n_annotated", "n_terms"))
    shuffled, matched = (_null(n_units, rows[rows["source"] == name]) for name in (SHUFFLED, MATCHED))
    return Source(units, n_units, n_annotated, n_terms, shuffled, matched)


def _null(n_units: int, rows: pd.DataFrame) -> Null:
    return Null(n_units, *(tuple(rows[name].astype(int)) for name in ("n_annotated", "n_terms")))


def mean(values: tuple[float, ...] | tuple[int, ...]) -> float:
    return float(np.mean(values)) if values else NO_NUMBER


def _facts(source: Source) -> dict[str, Any]:
    return {
        "units": source.units,
        "label": source.label,
        "n_units": source.n_units,
        "n_annotated": source.n_annotated,
        "share": known(source.share),
        "n_terms": source.n_terms,
        "terms_per_100": known(source.terms_per_100),
        **{
            name: {
                "n_annotated": known(mean(null.n_annotated)),
                "n_annotated_max": max(null.n_annotated, default=None),
                "share": known(mean(null.share)),
                "n_terms": known(mean(null.n_terms)),
                "n_terms_max": max(null.n_terms, default=None),
                "terms_per_100": known(mean(null.terms_per_100)),
            }
            for name, null in (("matched", source.matched), ("shuffled", source.shuffled))
        },
    }


def known(value: Any) -> float | None:
    """A number for JSON, which has no NaN."""
    return float(value) if is_number(value) else None
