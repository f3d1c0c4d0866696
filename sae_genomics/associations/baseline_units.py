"""Accumulator `baselines`: the same sums per gene for raw neurons, components and the untrained model's features.

The sums of linear units grow in `Layer.linear`, because the labels use their maxima too. Here their tables are made.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor, Future
from typing import Any

import pandas as pd

from sae_genomics import artifacts
from sae_genomics.associations.accumulators import Accumulator
from sae_genomics.associations.gene_ranking import rank_genes
from sae_genomics.associations.layer import EncodedBlock, Layer
from sae_genomics.progress import stop_point


class BaselineUnits(Accumulator):
    """Top genes of every unit of validation.baselines."""

    def __init__(self, layer: Layer):
        self.layer = layer

    def add(self, block: EncodedBlock, threads: Executor) -> Iterable[Future[Any]]:
        return ()

    def finish(self, features: pd.DataFrame) -> pd.DataFrame:
        layer, settings = self.layer, self.layer.run.config.associations
        for name, baseline in layer.linear.items():
            stop_point()
            baseline.tell(f"associate layer {layer.number}")
            ranked = rank_genes(
                baseline.sums.by_unit(), layer.unit_tokens.tokens, layer.units.unit_id, layer.units.unit_name,
                settings.top_genes, settings.min_gene_tokens,
            )  # fmt: skip
            layer.write(artifacts.BASELINE_GENES[name], ranked.table, note=baseline.note)
        if layer.untrained is not None:
            layer.write(artifacts.BASELINE_GENES["untrained"], layer.untrained.genes)
        for name in set(artifacts.BASELINE_GENES) - set(layer.run.config.validation.baselines):
            (layer.results / artifacts.BASELINE_GENES[name].file).unlink(missing_ok=True)  # of other settings
        return features
