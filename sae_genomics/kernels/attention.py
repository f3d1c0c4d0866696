"""Attention on x86-64 CPUs, in float32 and, where AVX-512 multiplies it, in bfloat16: one head of one sequence at a time.

torch's attention reaches half of the rate that its matrix products have here, and it has no product that takes bfloat16
and gives float32, although scores must not be rounded to eight bits. Here six queries at a time go through all steps,
and their scores stay in the first cache:

    scores [6, keys] = queries [6, d_head] x keys^T         summed in float32
    shares [6, keys] = 2^(scores factor - the largest)      float32, and so is their sum; then rounded to the dtype
    mixed [6, d_head] = shares x values / the shares' sum   summed in float32, then rounded to the dtype

Both products are `simd.multiply`, whose right matrix is packed, once a head, so that what C columns need at a time
lies side by side; C is 64 with AVX-512 and 16 with AVX2. An element is one float32, or two bfloat16 as int32:

    keys    [length / C, elements of a head, C]     element i of a key: dimension i, or 2 i and 2 i + 1
    values  [d_head / C, elements of a column, C]   element i of a column: that of token i, or of 2 i and 2 i + 1
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from numba import extending, types
from torch import Tensor

from sae_genomics.kernels import simd
from sae_genomics.kernels.choice import KERNELS, instead_of, plain_asked
from sae_genomics.kernels.compiled import each_range, exact_kernel, inner
from sae_genomics.kernels.plain import attention as plain
from sae_genomics.kernels.simd import (
    COLUMNS,
    ROWS,
    VECTOR_WIDTH,
    divide,
    exponentials,
    interleave,
    multiply,
    multiply_narrow,
    prefetch,
)

MIN_WIDTH = 16  # of a head; values are padded to whole columns, and yet it is faster than torch's attention here
_WIDE = ("avx512f", "avx512dq")
_FEATURES = (
    {torch.float32: _WIDE, torch.bfloat16: (*_WIDE, "avx512bf16")}
    if VECTOR_WIDTH == 16
    else {torch.float32: ("avx2", "fma")}
)
_AHEAD = 8  # rows prefetched before they are packed
_RANGE_PRODUCTS = 1 << 24  # of queries with keys, a thread takes at a time: a fraction of a millisecond


def takes(dtype: torch.dtype, d_head: int) -> bool:
    """Whether the fast `attend` is asked for, and computes heads of this width in this dtype, on this CPU."""
    return not plain_asked("attention") and d_head % 2 == 0 and d_head >= MIN_WIDTH and _available(dtype)


@instead_of(plain.attend)
def attend(qkv: Tensor, ptr: npt.NDArray[np.int64], n_heads: int, kv_n_heads: int) -> Tensor:
    """softmax(q k^T / sqrt(d_head)) v within each sequence, without a gradient.

    qkv: float32 or bfloat16 [T, (n_heads + 2 kv_n_heads) d_head], contiguous. ptr: int64 [sequences + 1].
    Returns [T, n_heads d_head] of the same dtype.
    """
    d_head = qkv.shape[1] // (n_heads + 2 * kv_n_heads)
    mixed = qkv.new_empty(qkv.shape[0], n_heads * d_head)
    elements, out = (
        rows.numpy() if rows.dtype == torch.float32 else rows.view(torch.int32).numpy()
        for rows in (qkv.detach(), mixed)
    )
    factor = np.float32(math.log2(math.e) / math.sqrt(d_head))
    lengths = np.diff(ptr)
    order = np.argsort(-lengths, kind="stable")  # the short ones last, so that threads end together
    units = len(order) * n_heads
    products = float(np.square(lengths, dtype=np.float64).sum()) * d_head * n_heads
    each_range(
        units,
        int(max(1, _RANGE_PRODUCTS * units // max(products, 1))),
        lambda start, stop: _attend(elements, ptr, order, n_heads, kv_n_heads, d_head, factor, start, stop, out),
    )
    return mixed


@cache
def _available(dtype: torch.dtype) -> bool:
    """Whether this CPU has the instructions, numba compiles for it, and the result is right."""
    if dtype not in _FEATURES or not all(map(simd.there, _FEATURES[dtype])):
        return False
    # a token of zeros sees both values alike; one of ones has scores 0 and 64 / 8
    rows = torch.zeros(2, 192, dtype=dtype)
    rows[1] = 1
    try:
        found = KERNELS["attention.attend"].fast(rows, np.array([0, 2]), 1, 1)
    except (numba.core.errors.NumbaError, RuntimeError, TypeError, ValueError):  # another LLVM has other names
        return False
    expected = torch.tensor([0.5, 1 / (1 + math.exp(-8))]).to(dtype)
    return torch.allclose(found, expected[:, None].expand_as(found), rtol=1e-6, atol=0)


def _attend(elements, ptr, order, n_heads, kv_n_heads, d_head, factor, start, stop, out):  # type: ignore[no-untyped-def]
    """Heads start to stop, counted through the heads of all sequences in this order.

    elements: [T, (n_heads + 2 kv_n_heads) elements of a head]. factor: float32, of the scores. out: [T, n_heads elements], written.
    """
    width = out.shape[1] // n_heads
    for unit in range(start, stop):
        head = unit % n_heads
        kv_head = n_heads + head // (n_heads // kv_n_heads)
        sequence = order[unit // n_heads]
        first, last = ptr[sequence], ptr[sequence + 1]
        q = elements[first:last, head * width : (head + 1) * width]
        keys = _packed_keys(elements[first:last, kv_head * width : (kv_head + 1) * width])
        values = _packed_values(
            elements[first:last, (kv_head + kv_n_heads) * width : (kv_head + kv_n_heads + 1) * width]
        )
        mixed = out[first:last, head * width : (head + 1) * width]
        if 0 < len(q) < ROWS:
            few = np.zeros((2 * ROWS, width), q.dtype)
            few[: len(q)] = q
            _attend_head(few[:ROWS, 0:width], keys, values, len(q), d_head, factor, few[ROWS:, 0:width])
            mixed[:] = few[ROWS : ROWS + len(q)]
        else:
            _attend_head(q, keys, values, len(q), d_head, factor, mixed)


_attend.__qualname__ += (
    f"_{VECTOR_WIDTH}"  # numba keeps machine code by this name, and both widths may be asked for on one CPU
)
_attend = exact_kernel(_attend)


@inner
def _attend_head(q, keys, values, length, d_head, factor, out):  # type: ignore[no-untyped-def]
    """q: [none or >= 6 queries, elements of a head]; keys and values: packed, of `length` tokens; out: as q, written."""
    seen = -(-length // VECTOR_WIDTH) * VECTOR_WIDTH
    in_blocks = seen // COLUMNS * COLUMNS
    scores = _aligned((ROWS, len(keys), COLUMNS), np.float32).reshape(ROWS, -1)
    shares = scores.view(q.dtype)  # each an element or half of one, written where scores were read before
    mixed = np.empty((ROWS, len(values) * COLUMNS), np.float32)
    totals = np.empty(ROWS, np.float32)
    rounded = np.empty(-(-q.shape[1] // VECTOR_WIDTH) * VECTOR_WIDTH, q.dtype)
    for start in range(0, len(q), ROWS):
        query = min(start, len(q) - ROWS)  # the last six may have some of those before them
        for row in range(query, query + ROWS):
            prefetch(q, row + ROWS)
            prefetch(out, row)
        queries = q[query : query + ROWS]
        for first in range(0, in_blocks, COLUMNS):
            multiply(queries, keys[first // COLUMNS], scores[:, first : first + COLUMNS])
        for first in range(in_blocks, seen, VECTOR_WIDTH):
            column = first % COLUMNS
            multiply_narrow(
                queries, keys[len(keys) - 1, :, column : column + VECTOR_WIDTH], scores[:, first : first + VECTOR_WIDTH]
            )
        for row in range(ROWS):
            scores[row, length:seen] = -np.inf
            totals[row] = exponentials(scores[row, :seen], factor, shares[row])
        for block in range(len(values)):
            first = block * COLUMNS
            if d_head - first > COLUMNS // 2:
                multiply(shares, values[block], mixed[:, first : first + COLUMNS])
            else:  # the columns behind a narrow head's are not worth computing
                for column in range(0, d_head - first, VECTOR_WIDTH):
                    part = values[block, :, column : column + VECTOR_WIDTH]
                    multiply_narrow(shares, part, mixed[:, first + column : first + column + VECTOR_WIDTH])
        for row in range(ROWS):
            if divide(mixed[row], totals[row], out[query + row]):
                continue
            divide(mixed[row], totals[row], rounded)
            for i in range(q.shape[1]):
                out[query + row, i] = rounded[i]


@inner
def _packed_keys(k):  # type: ignore[no-untyped-def]
    """[length, elements] to [length / COLUMNS, elements, COLUMNS]."""
    length, width = k.shape
    packed = _aligned((-(-length // COLUMNS), width, COLUMNS), k.dtype)
    for key in range(length):
        prefetch(k, key + _AHEAD)
        for i in range(width):
            packed[key // COLUMNS, i, key % COLUMNS] = k[key, i]
    return packed


def _packed_values(v: Any) -> Any:
    """Compiled kernels only. [length, elements of a head] to [d_head / COLUMNS, elements of a column, COLUMNS]."""
    raise NotImplementedError


@extending.overload(_packed_values)
def _(v):  # type: ignore[no-untyped-def]
    if v.dtype == types.float32:

        def packed_numbers(v):  # type: ignore[no-untyped-def]
            length, width = v.shape
            packed = _aligned((-(-width // COLUMNS), length, COLUMNS), v.dtype)
            for key in range(length):
                prefetch(v, key + _AHEAD)
                for i in range(width):
                    packed[i // COLUMNS, key, i % COLUMNS] = v[key, i]
            return packed

        return packed_numbers

    def packed_pairs(v):  # type: ignore[no-untyped-def]
        length, width = v.shape
        half = COLUMNS // 2
        packed = _aligned((-(-width // half), -(-length // 2), COLUMNS), v.dtype)
        nothing = np.zeros((1, width), v.dtype)
        for key in range(0, length, 2):
            prefetch(v, key + _AHEAD)
            prefetch(v, key + _AHEAD + 1)
            even, odd = v[key], v[key + 1] if key + 1 < length else nothing[0, 0:width]
            for first in range(0, width, half):
                last = min(first + half, width)
                interleave(even[first:last], odd[first:last], packed[first // half, key // 2])
        return packed

    return packed_pairs


@inner
def _aligned(shape, dtype):  # type: ignore[no-untyped-def]
    """Room for numbers of four bytes that begins with a cache line: a vector across two lines is loaded twice.

    What is not written is never part of a result: neither scores nor values of keys behind the last are looked at.
    """
    size = shape[0] * shape[1] * shape[2]
    raw = np.empty(size + VECTOR_WIDTH, dtype)
    start = -(raw.ctypes.data // 4) % VECTOR_WIDTH
    return raw[start : start + size].reshape(shape)
