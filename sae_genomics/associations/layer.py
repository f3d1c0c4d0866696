"""What is known about a layer before the pass over it, and what several accumulators use of it."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics import artifacts
from sae_genomics.associations.accumulators import layer_tables
from sae_genomics.associations.cell_sample import CellSample
from sae_genomics.associations.cell_sums import FeatureTotals
from sae_genomics.associations.gene_sums import GeneSums
from sae_genomics.associations.gene_tokens import GeneTokens
from sae_genomics.associations.linear_baselines import FoundUnits, LinearBaseline
from sae_genomics.associations.triples import TokenBlock, Triples
from sae_genomics.data.units import Units
from sae_genomics.kernels.arrays import ItemRows
from sae_genomics.run import Run
from sae_genomics.sae.load import Encoder

if TYPE_CHECKING:
    from sae_genomics.associations.untrained import UntrainedFeatures


@dataclass
class Layer:
    """One layer of a run.

    number: of the layer. items: as `DataKind.read_items` gives them. spans: likewise; None where there are none. sample: items that are ranked.
    folder: for temporary files. stack: closes what the accumulators open.
    n_threads: for sums. untrained: the baseline of that name; None without it.
    found: linear units by name, found before the pass; linear: those of validation.baselines, whose sums grow with the pass.
    features_inference: what the statistics in features.parquet are about, once that is known.
    totals: of each feature, growing with the pass. unit_tokens: likewise, of each unit. unit_sums: of each pair of them; made by `units`.
    """

    run: Run
    number: int
    units: Units
    items: pd.DataFrame
    sample: CellSample
    encoder: Encoder
    folder: Path
    stack: ExitStack
    n_threads: int
    untrained: UntrainedFeatures | None = None
    spans: pd.DataFrame | None = None
    found: dict[str, FoundUnits] = field(default_factory=dict)
    linear: dict[str, LinearBaseline] = field(default_factory=dict)
    features_inference: artifacts.Inference | None = None
    unit_sums: GeneSums | None = None

    def __post_init__(self) -> None:
        self.heldout: npt.NDArray[np.bool_] = self.items["heldout"].to_numpy(bool)
        self.totals = FeatureTotals(self.encoder.d_sae)
        self.unit_tokens = GeneTokens(len(self.units))
        self.tables = layer_tables(self.run)

    @property
    def results(self) -> Path:
        """The folder of its tables."""
        return self.run.layer_results(self.number)

    def write(
        self, table: artifacts.Table, frame: pd.DataFrame, note: str | None = None,
        inference: artifacts.Inference | None = None,
    ) -> None:  # fmt: skip
        """Write one of the layer's tables, its columns called as the data kind calls them."""
        named = frame.rename(columns=self.tables.names) if self.tables.names else frame
        table.write(self.results / table.file, named, note=note, weights=self.encoder.weights, inference=inference)


@dataclass(frozen=True)
class EncodedBlock:
    """A block of whole items as every accumulator gets it.

    tokens: what the rows are. x: float32 [T, d_model], what the SAE reads. triples: the features that are active.
    item_rows: each item's maximum and mean of each feature, being made by another thread.
    """

    tokens: TokenBlock
    x: npt.NDArray[np.float32]
    triples: Triples
    item_rows: Future[ItemRows]
