"""What one pass over a layer adds up: one entry per accumulator. The stage and its files derive from this list.

To add one: write a class with the methods of `Accumulator`, and add its entry here. Importing this module is quick: an entry names
its class as text, and says by itself when it applies and which files it leaves.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sae_genomics import artifacts
from sae_genomics.validation.enrichment_tests import enrichment_test_named

if TYPE_CHECKING:
    import pandas as pd

    from sae_genomics.associations.layer import EncodedBlock, Layer
    from sae_genomics.run import Run


class Accumulator(ABC):
    """Takes a layer's blocks one after the other, then makes tables of what it added up.

    Its constructor takes the `Layer`: everything that is known before the pass.
    """

    @abstractmethod
    def add(self, block: EncodedBlock, threads: Executor) -> Iterable[Future[Any]]:
        """Add one block of whole items.

        Returns work that it has started on `threads` and not waited for. The pass waits for it before the next block is added.
        """

    @abstractmethod
    def finish(self, features: pd.DataFrame) -> pd.DataFrame:
        """Write the tables.

        features: the rows of features.parquet, one per feature, as far as they are made. Returns them with what this accumulator
        adds to them.
        """


@dataclass(frozen=True)
class Entry:
    """One accumulator.

    factory: `module:Class`, called with the `Layer`.
    applies: whether it has anything to do in this run.
    files: names of the files that it then leaves in the folder of the layer's results.
    settings: config keys, `section.key`, that these files depend on and the other accumulators' files do not.
    """

    name: str
    factory: str
    applies: Callable[[Run], bool]
    files: Callable[[Run], tuple[str, ...]]
    settings: tuple[str, ...] = ()

    def make(self, layer: Layer) -> Accumulator:
        module, name = self.factory.split(":")
        made: Accumulator = getattr(importlib.import_module(module), name)(layer)
        return made


def has_spans(run: Run) -> bool:
    """Whether prepare leaves spans."""
    return any(path.name == "spans.parquet" for path in run.kind.prepare_files(run))


def _has_genes(run: Run) -> bool:
    return run.kind.units_are_genes


def keeps_rankings(run: Run) -> bool:
    """Whether the test that `validate` makes reads whole rankings."""
    return _has_genes(run) and enrichment_test_named(run.config.validation.test).reads == "ranking"


def _no_genes(run: Run) -> bool:
    return not run.kind.units_are_genes


def layer_tables(run: Run) -> artifacts.LayerTables:
    """The tables about units and labels, under the names that the run's data kind gives them."""
    return artifacts.CELL_LAYER_TABLES if run.kind.units_are_genes else artifacts.ITEM_LAYER_TABLES


def _always(run: Run) -> bool:
    return True


def _baseline_files(run: Run) -> tuple[str, ...]:
    return tuple(artifacts.BASELINE_GENES[name].file for name in run.config.validation.baselines)


def _ranking_files(run: Run) -> tuple[str, ...]:
    return tuple(artifacts.RANKINGS[name].file for name in ("features", *run.config.validation.baselines))


def _unit_files(run: Run) -> tuple[str, ...]:
    tables = layer_tables(run)
    return (tables.feature_units.file, *([tables.unit_tokens.file] if tables.unit_tokens else []))


def _label_files(run: Run) -> tuple[str, ...]:
    tables = layer_tables(run)
    return tables.feature_labels.file, tables.label_baselines.file


_CONCEPT_FILES = tuple(
    table.file for table in (artifacts.FEATURE_CONCEPTS, artifacts.CONCEPT_BASELINES, artifacts.CONCEPT_COUNTS)
)

# In the order in which they finish: each may use the columns of features.parquet that those before it made.
ACCUMULATORS: list[Entry] = [
    Entry("units", "sae_genomics.associations.units:Units", _always, _unit_files),
    Entry("baselines", "sae_genomics.associations.baseline_units:BaselineUnits", _has_genes, _baseline_files),
    Entry(
        "rankings", "sae_genomics.associations.rankings:Rankings", keeps_rankings, _ranking_files,
        ("validation.rank_by",),
    ),
    Entry("labels", "sae_genomics.associations.labels:Labels", _always, _label_files),
    Entry(
        "spans", "sae_genomics.associations.spans.accumulate:Spans", has_spans, lambda run: _CONCEPT_FILES,
        ("associations.concept_f1", "associations.random_directions", "validation.fdr"),
    ),
    Entry(
        "examples", "sae_genomics.associations.examples:Examples", _no_genes,
        lambda run: (artifacts.FEATURE_EXAMPLES.file,), ("associations.top_examples",),
    ),
    Entry(
        "items", "sae_genomics.associations.item_matrix:ItemMatrix", _always,
        lambda run: (artifacts.FEATURES.file, "features.h5ad"),
    ),
]  # fmt: skip


def accumulators_of(run: Run) -> list[Entry]:
    """Those that apply to the run, in the order in which they finish."""
    return [entry for entry in ACCUMULATORS if entry.applies(run)]


# Keys of the section associations that only some accumulators read: a run without these accumulators does not depend on them.
VARYING_KEYS = tuple(
    sorted({key for entry in ACCUMULATORS for key in entry.settings if key.startswith("associations.")})
)
