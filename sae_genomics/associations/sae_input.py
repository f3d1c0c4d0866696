"""Rows as an SAE reads them. Features, neurons and components all read these: every row of the stage comes through here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sae_genomics.sae.load import Encoder


def sae_input(encoder: Encoder, x: npt.NDArray[np.float32], slot: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """float32 [T, d_model] as stored -> as the encoder was trained on.

    slot: int32 [T], each row's gene; -1 for rows that never count.
    """
    del encoder, slot  # SAEs are trained on activations as they are stored
    return x
