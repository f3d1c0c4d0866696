"""Accumulator `spans`: features, raw neurons, random directions and scores of the sequence alone, against annotated spans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.associations.accumulators import Accumulator
from sae_genomics.associations.layer import EncodedBlock, Layer
from sae_genomics.associations.linear_units import LinearUnits
from sae_genomics.associations.spans.counts import ConceptCounts
from sae_genomics.associations.spans.scores import ConceptSizes, score
from sae_genomics.associations.spans.segments import Concepts, SpanBlock, span_block
from sae_genomics.associations.spans.sequence_scores import SequenceFit, SequenceScores
from sae_genomics.associations.spans.tables import Kind, write_empty_tables, write_tables
from sae_genomics.associations.stream import token_blocks
from sae_genomics.associations.triples import Triples
from sae_genomics.kernels.arrays import Active
from sae_genomics.progress import stop_point

LINEAR_KINDS = {"neuron": "neurons", "random": "random"}  # kind -> name in Layer.found
_COLUMNS_AT_ONCE = 64


class Spans(Accumulator):
    """See `scores.py` for what is computed and `tables.py` for what is written."""

    def __init__(self, layer: Layer):
        self.layer = layer
        self.counts: dict[str, ConceptCounts] = {}
        self.has_spans = layer.spans is not None and len(layer.spans) > 0
        if layer.spans is None or not self.has_spans:
            return
        concepts = Concepts.of(layer.spans, layer.items["group"], len(layer.items), layer.run.config.run.seed)
        self.concepts, self.sizes = concepts, ConceptSizes(concepts)
        self.counts["feature"] = ConceptCounts(layer.encoder.d_sae, concepts)
        self.linear = {kind: layer.found[name].units for kind, name in LINEAR_KINDS.items()}
        for kind, units in self.linear.items():
            self.counts[kind] = ConceptCounts(units.n_units, concepts)
        for kind in ("composition", "position"):
            self.counts[kind] = ConceptCounts(len(concepts), concepts)
        self.sequence = fit_sequence(layer, concepts)

    def add(self, block: EncodedBlock, threads: Executor) -> Iterable[Future[Any]]:
        if not self.has_spans:
            return
        span_rows = span_block(block.tokens, self.concepts)
        self.sizes.add(span_rows)
        if not len(span_rows):
            return
        yield threads.submit(self._features, block, span_rows)
        for kind, units in self.linear.items():
            yield threads.submit(self._linear, kind, units, block, span_rows)
        yield threads.submit(self._sequence, block, span_rows)

    def _features(self, block: EncodedBlock, span_rows: SpanBlock) -> None:
        self.counts["feature"].add(span_rows, of_triples(block.triples, span_rows))

    def _linear(self, kind: str, units: LinearUnits, block: EncodedBlock, span_rows: SpanBlock) -> None:
        projections = units.project(block.x[span_rows.row])
        for values in signed_parts(units, projections):
            self.counts[kind].add(span_rows, values)

    def _sequence(self, block: EncodedBlock, span_rows: SpanBlock) -> None:
        unit = block.tokens.unit[span_rows.row]
        self.counts["composition"].add(span_rows, self.sequence.composition(unit, span_rows))
        self.counts["position"].add(span_rows, self.sequence.position(span_rows))

    def finish(self, features: pd.DataFrame) -> pd.DataFrame:
        if not self.has_spans:
            write_empty_tables(self.layer)
            return features
        kinds = []
        for name, counts in self.counts.items():
            stop_point()
            own_alone = name in ("composition", "position")
            kinds.append(Kind(name, score(counts, self.sizes, own_alone), self._names(name)))
        write_tables(self.layer, self.concepts, self.sizes, kinds)
        return features

    def _names(self, kind: str) -> npt.NDArray[np.object_]:
        if kind == "feature":
            return np.arange(self.layer.encoder.d_sae).astype(str).astype(object)
        return self.linear[kind].names if kind in self.linear else self.concepts.concept


def fit_sequence(layer: Layer, concepts: Concepts) -> SequenceScores:
    """The baselines without a model, from the stored tokens alone."""
    fit = SequenceFit(concepts, len(layer.units))
    batch_tokens = layer.run.config.associations.batch_tokens
    for block in token_blocks(layer.run, layer.units, layer.heldout, batch_tokens):
        stop_point()
        fit.add(block, span_block(block, concepts))
    return fit.finish()


def of_triples(triples: Triples, span_rows: SpanBlock) -> Active:
    """The features at the block's counted rows."""
    ptr = np.searchsorted(triples.token, np.append(span_rows.row, np.int64(1) << 62))
    start, length = ptr[:-1], np.searchsorted(triples.token, span_rows.row, side="right") - ptr[:-1]
    ends = np.cumsum(length)
    chosen = np.arange(ends[-1] if len(ends) else 0) + np.repeat(start - (ends - length), length)
    return Active(np.concatenate([[0], ends]).astype(np.int64), triples.feature[chosen], triples.activation[chosen])


def signed_parts(units: LinearUnits, projections: npt.NDArray[np.float32]) -> Iterator[Active]:
    """Both signs of standardised projections, some components at a time: unit 2i is the positive part, 2i + 1 the negative."""
    n = len(projections)
    for first in range(0, units.n_components, _COLUMNS_AT_ONCE):
        columns = slice(first, min(first + _COLUMNS_AT_ONCE, units.n_components))
        z = (projections[:, columns] - units.mean[columns]) * units.inverse_std[columns]
        width = z.shape[1]
        unit = (2 * np.arange(first, first + width, dtype=np.int32))[None, :] + (z < 0)
        yield Active(np.arange(n + 1, dtype=np.int64) * width, unit.astype(np.int32).ravel(), np.abs(z).ravel())
