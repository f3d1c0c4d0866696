"""Each item's maximum and mean of each feature, and each feature's sums over items.

With a_tf the activation of feature f at token t, and T_i the counted tokens of item i:

    maximum_if = max over t in T_i of a_tf        mean_if = sum over t in T_i of a_tf / |T_i|
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.arrays import Active, FeatureSums, Ints, ItemRows


def add_items(
    sums: FeatureSums, item_ptr: Ints, heldout: npt.NDArray[np.bool_], counted: npt.NDArray[np.bool_], active: Active
) -> ItemRows:
    """Add a block of whole items to the features' sums, and return its rows.

    item_ptr: int64 [items + 1], the items' tokens. heldout: bool [items]. counted: bool [T], whether a token counts. active: of the T tokens, above 0.
    """
    n_items, d_sae = len(heldout), len(sums.n_active)
    token = np.repeat(np.arange(len(counted)), np.diff(active.ptr))
    some = np.flatnonzero(counted[token])
    item_of = np.repeat(np.arange(n_items), np.diff(item_ptr))
    pair, entry, n = np.unique(
        item_of[token[some]] * d_sae + active.unit[some], return_inverse=True, return_counts=True
    )
    item, feature = np.divmod(pair, d_sae)
    a = active.activation[some]
    total = np.bincount(entry, a, minlength=len(pair))
    maximum = np.zeros(len(pair), dtype=np.float32)
    np.maximum.at(maximum, entry, a)

    np.add.at(sums.n_active, feature, n)
    np.add.at(sums.heldout_active, feature, n * heldout[item])
    np.add.at(sums.n_items, feature, 1)
    np.add.at(sums.activation, feature, total)
    np.maximum.at(sums.maximum, feature, maximum)
    n_tokens = np.bincount(item_of[counted], minlength=n_items)
    ptr = np.searchsorted(item, np.arange(n_items + 1)).astype(np.int64)
    return ItemRows(ptr, feature.astype(np.int32), maximum, (total / n_tokens[item]).astype(np.float32))
