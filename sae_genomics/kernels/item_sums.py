"""Each item's maximum and mean of each feature, and each feature's sums over items, in one pass over the activations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sae_genomics.kernels.arrays import Active, FeatureSums, Ints, ItemRows
from sae_genomics.kernels.choice import instead_of
from sae_genomics.kernels.compiled import exact_kernel
from sae_genomics.kernels.plain import item_sums as plain


@instead_of(plain.add_items)
def add_items(
    sums: FeatureSums, item_ptr: Ints, heldout: npt.NDArray[np.bool_], counted: npt.NDArray[np.bool_], active: Active
) -> ItemRows:
    most = len(active.unit)
    rows = ItemRows(
        np.zeros(len(item_ptr), np.int64), np.empty(most, np.int32), np.empty(most, np.float32), np.empty(most, np.float32)
    )  # fmt: skip
    n = _add_items(sums, rows, item_ptr, heldout, counted, active)
    return ItemRows(rows.ptr, rows.feature[:n].copy(), rows.maximum[:n].copy(), rows.mean[:n].copy())


@exact_kernel
def _add_items(sums, rows, item_ptr, heldout, counted, active):  # type: ignore[no-untyped-def]
    """Returns how many entries the rows have."""
    ptr, feature, activation = active.ptr, active.unit, active.activation
    out_feature, out_maximum, out_mean = rows.feature, rows.maximum, rows.mean
    of_item = np.zeros((len(sums.n_active), 3))  # one item's count, maximum and sum of each feature; zero between items
    n = 0
    for item in range(len(item_ptr) - 1):
        first, n_tokens = n, 0
        for t in range(item_ptr[item], item_ptr[item + 1]):
            if not counted[t]:
                continue
            n_tokens += 1
            for i in range(np.uint64(ptr[t]), np.uint64(ptr[t + 1])):  # unsigned: see pair_sums
                f, a = np.uint64(feature[i]), np.float64(activation[i])
                out_feature[n] = feature[i]
                n += (
                    of_item[f, np.uint64(0)] == 0.0
                )  # stays when it is the item's first; a branch would be mispredicted
                of_item[f, np.uint64(0)] += 1.0
                of_item[f, np.uint64(1)] = max(of_item[f, np.uint64(1)], a)
                of_item[f, np.uint64(2)] += a
        if n - first > len(of_item) // 16:
            n = first  # most features are here: going through all of them is faster than sorting
            for f in range(len(of_item)):
                if of_item[f, 0] != 0.0:
                    out_feature[n] = f
                    n += 1
        else:
            out_feature[first:n].sort()
        for j in range(first, n):
            f = out_feature[j]
            count = np.int64(of_item[f, 0])
            out_maximum[j] = of_item[f, 1]
            out_mean[j] = of_item[f, 2] / n_tokens
            sums.n_active[f] += count
            if heldout[item]:
                sums.heldout_active[f] += count
            sums.n_items[f] += 1
            sums.activation[f] += of_item[f, 2]
            sums.maximum[f] = max(sums.maximum[f], out_maximum[j])
            of_item[f, 0] = 0.0
            of_item[f, 1] = 0.0
            of_item[f, 2] = 0.0
        rows.ptr[item + 1] = n
    return n
