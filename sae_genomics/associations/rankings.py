"""Accumulator `rankings`: what ranks every gene of every unit, for a test that reads the whole ranking.

By specificity, a unit's genes with a specificity above zero have a value: their activation is more than it would be if it had
nothing to do with the gene. By score, those with a score above zero. All other genes are tied, so they need no row. It is
written block by block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

import pandas as pd

from sae_genomics.artifacts import RANKINGS
from sae_genomics.associations.accumulators import Accumulator
from sae_genomics.associations.gene_values import gene_values
from sae_genomics.associations.layer import EncodedBlock, Layer
from sae_genomics.progress import stop_point


class Rankings(Accumulator):
    """One table per kind of units."""

    def __init__(self, layer: Layer):
        self.layer = layer

    def add(self, block: EncodedBlock, threads: Executor) -> Iterable[Future[Any]]:
        return ()

    def finish(self, features: pd.DataFrame) -> pd.DataFrame:
        layer, config = self.layer, self.layer.run.config
        rank_by, least = config.validation.rank_by, config.associations.min_gene_tokens
        found: dict[str, Iterable[pd.DataFrame]] = {}
        if layer.unit_sums is not None:
            found["features"] = gene_values(layer.unit_sums.by_feature(), layer.unit_sums.tokens, rank_by, least)
        for name, baseline in layer.linear.items():
            found[name] = gene_values(baseline.sums.by_unit(), layer.unit_tokens.tokens, rank_by, least)
        if layer.untrained is not None:
            found["untrained"] = layer.untrained.rankings
        for name, table in RANKINGS.items():
            if name in found:
                table.write_blocks(layer.results / table.file, _stoppable(found[name]), layer.encoder.weights)
            else:
                (layer.results / table.file).unlink(missing_ok=True)  # of other settings
        return features


def _stoppable(blocks: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    for block in blocks:
        stop_point()
        yield block
