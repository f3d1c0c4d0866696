"""The loss recovered of a model that does not see which unit a hidden token is: the unit's mean must not tell it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from sae_genomics.config import ModelConfig
from sae_genomics.models import load_model
from sae_genomics.sae.loss_recovered import measure
from sae_genomics.sae.unit_means import UnitMeans
from tests.models.esm2_checkpoints import MASK, make, proteins


class Recorder:
    """An encoder that gives back what it reads, and notes the units that it was told."""

    def __init__(self) -> None:
        self.units: list[np.ndarray] = []

    def reconstruct(self, x: torch.Tensor, units: np.ndarray) -> torch.Tensor:
        self.units.append(units)
        return x


def test_hidden_residues_count_as_masks(tmp_path: Path) -> None:
    make(tmp_path)
    model = load_model(ModelConfig(family="esm2", path=tmp_path, device="cpu"))
    tokens = model.tokenise(proteins(1, [40, 70, 55]), 0)
    encoder: Any = Recorder()
    known = np.unique(tokens.token[~tokens.special]).astype(np.int64)
    shape = (len(known), model.info.d_model)
    means = UnitMeans(
        known, np.ones(shape, np.float32), np.zeros(shape[1], np.float32), np.ones(len(known), np.int64), 1.0
    )
    found = measure(model, tokens, 1, "resid_post", encoder, 0, 4096, means)
    units = np.concatenate(encoder.units)
    assert len(units) == int((~tokens.special).sum())
    assert int((units == MASK).sum()) == found.hidden_tokens > 10
    visible = units != MASK
    np.testing.assert_array_equal(np.sort(units[visible]), np.sort(units[np.isin(units, known)]))
