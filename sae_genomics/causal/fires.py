"""What a layer's features fire on in a sample of items: sums per feature and unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from sae_genomics.causal.samples import Sample, paused_batches, read_sample, rows32

if TYPE_CHECKING:
    from sae_genomics.models.base import FoundationModel
    from sae_genomics.run import Run
    from sae_genomics.sae.load import Encoder

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Fires:
    """Counts of a sample. Tokens without a unit are left out."""

    sample: Sample
    n_tokens: Int64
    """[units], tokens of each unit"""
    counts: csr_matrix
    """float64 [d_sae, units], tokens of each unit on which a feature fires"""
    activation: csr_matrix
    """float64 [d_sae, units], sum of its activation there"""
    inputs: Float32
    """[tokens with a unit, d_model], what the SAE reads of them"""
    unit: Int64
    """[tokens with a unit]"""


def read_fires(run: Run, model: FoundationModel, encoder: Encoder, layer: int, rows: Int64, n_units: int) -> Fires:
    """One pass over some items. rows: of `read_items`, ascending."""
    sample = read_sample(run, model, rows)
    usual = sample.usual & (sample.tokens.unit >= 0)
    shape = (encoder.d_sae, n_units)
    counts, sums = csr_matrix(shape), csr_matrix(shape)
    inputs, units = [], []
    for _, at, paused in paused_batches(
        model, sample, layer, run.config.model.hook, run.config.activations.batch_tokens
    ):
        kept = usual[at]
        x = encoder.input(rows32(paused.activations)[kept], paused.batch.token[kept])
        unit = paused.batch.unit[kept].astype(np.int64)
        token, feature, activation = encoder.encode_sparse(x)
        where = (feature, unit[token])
        counts = counts + csr_matrix((np.ones(len(token)), where), shape=shape)
        sums = sums + csr_matrix((activation.astype(np.float64), where), shape=shape)
        inputs.append(x)
        units.append(unit)
    unit = np.concatenate(units)
    return Fires(sample, np.bincount(unit, minlength=n_units), counts, sums, np.concatenate(inputs), unit)
