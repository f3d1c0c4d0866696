"""The pass over a layer's activations: each block is encoded once, and every accumulator adds it up."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from sae_genomics.associations.accumulators import Accumulator
from sae_genomics.associations.layer import EncodedBlock, Layer
from sae_genomics.associations.stream import layer_blocks, tokens_of
from sae_genomics.associations.triples import TokenBlock, Triples
from sae_genomics.progress import Progress, stop_point
from sae_genomics.sae.load import Encoder


class LayerPass:
    """One pass for all accumulators of a layer."""

    def __init__(self, layer: Layer, accumulators: Sequence[Accumulator]):
        self.layer, self.accumulators = layer, accumulators

    def stream(self, progress: Progress) -> None:
        """Encode every block and add it up; a block is added up while the next one is encoded."""
        layer, settings = self.layer, self.layer.run.config.associations
        blocks = layer_blocks(layer.run, layer.number, layer.units, layer.heldout, settings.batch_tokens)
        with (
            ThreadPoolExecutor(1, "associate") as consumer,
            ThreadPoolExecutor(layer.n_threads + 2, "sums") as threads,
        ):
            pending: Future[None] | None = None
            for block, x in blocks:
                stop_point()
                x = layer.encoder.input(x, tokens_of(layer.units, block.unit))  # what follows reads what the SAE reads
                triples = encode_block(layer.encoder, x)
                if pending is not None:
                    pending.result()
                pending = consumer.submit(self._add, block, x, triples, threads)
                progress.advance(len(block))
            if pending is not None:
                pending.result()

    def _add(
        self, block: TokenBlock, x: npt.NDArray[np.float32], triples: Triples, threads: ThreadPoolExecutor
    ) -> None:
        layer = self.layer
        encoded = EncodedBlock(block, x, triples, threads.submit(layer.totals.add, block, triples))
        started = [threads.submit(baseline.add, block, x, self._sampled(block)) for baseline in layer.linear.values()]
        layer.unit_tokens.add(block)
        for accumulator in self.accumulators:
            started += accumulator.add(encoded, threads)
        for future in started:
            future.result()

    def _sampled(self, block: TokenBlock) -> npt.NDArray[np.int64]:
        return self.layer.sample.row[block.first_item : block.first_item + block.n_items]


def encode_block(encoder: Encoder, x: npt.NDArray[np.float32]) -> Triples:
    """A block's triples. The encoder bounds its own memory, so a long item does no harm."""
    return Triples.ordered(*encoder.encode_sparse(x))
