"""Accumulator `units`: each feature's sums per unit (gene, amino acid), and the units that it goes with."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
import pandas as pd

from sae_genomics.associations.accumulators import Accumulator
from sae_genomics.associations.gene_ranking import rank_genes
from sae_genomics.associations.gene_sums import GeneSums
from sae_genomics.associations.layer import EncodedBlock, Layer
from sae_genomics.associations.stream import unit_token_counts


class Units(Accumulator):
    """Top units of each feature; adds `top_gene` and `specificity` to features.parquet."""

    def __init__(self, layer: Layer):
        self.layer = layer
        n_units = len(layer.units)
        expected = unit_token_counts(layer.run, layer.units)
        self.sums = layer.unit_sums = GeneSums(layer.encoder.d_sae, n_units, expected)

    def add(self, block: EncodedBlock, threads: Executor) -> Iterable[Future[Any]]:
        self.sums.add(block.tokens, block.triples)
        return ()

    def finish(self, features: pd.DataFrame) -> pd.DataFrame:
        layer, settings, units = self.layer, self.layer.run.config.associations, self.layer.units
        ranked = rank_genes(
            self.sums.by_feature(), self.sums.tokens, units.unit_id, units.unit_name,
            settings.top_genes, settings.min_gene_tokens,
        )  # fmt: skip
        layer.write(layer.tables.feature_units, ranked.table)
        if layer.tables.unit_tokens is not None:
            untrained = None if layer.untrained is None else layer.untrained.tokens
            layer.write(layer.tables.unit_tokens, layer.unit_tokens.table(units, untrained))
        top = pd.Series(units.unit_name[ranked.top_unit], dtype=object).where(ranked.top_unit >= 0, None)
        return features.assign(top_gene=top, specificity=np.asarray(ranked.specificity))
