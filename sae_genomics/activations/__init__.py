"""Activations of a model's layers: extracting them, storing them, reading them back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def read_activations(path: str | Path, rows: slice | None = None) -> npt.NDArray[np.float32]:
    """Stored activations of one layer and shard as float32, whatever they are stored as.

    path: a file `checkpoints/<run>/activations/layer_LL/shard_NNNN.h5`: float32, float16 or bfloat16, compressed or not.
    rows: the rows to read, such as `slice(0, 1000)`; default: all of them. A row is a token, as in the tokens file of the
        same shard.

    Returns float32 [rows, d_model]. A row in which the model gave NaN or infinity is NaN throughout.
    Raises DamagedArtifact naming the file when it cannot be read, UserError when it is compressed and hdf5plugin is not
    installed.
    """
    # with torch, which printing a status does not need
    from sae_genomics.activations.format.store import open_activations

    with open_activations(Path(path)) as file:
        start, stop, step = (rows or slice(None)).indices(file.n_rows)
        if step < 1:
            raise ValueError(f"read_activations reads forwards; {rows} goes backwards")
        return file.rows(start, max(start, stop))[::step]


def read_units(path: str | Path, rows: slice | None = None) -> npt.NDArray[np.int32]:
    """The vocabulary id (of a gene, of a residue) of each stored token: int32 [rows], row by row those of `read_activations`.

    path: a file `checkpoints/<run>/activations/tokens/shard_NNNN.h5`. rows: as for `read_activations`.
    Raises DamagedArtifact naming the file when it cannot be read.
    """
    from sae_genomics.activations.format.token_store import read_tokens

    return read_tokens(Path(path)).token[rows or slice(None)]
