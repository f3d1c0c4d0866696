"""Attention in bfloat16 on CPUs that multiply it (AVX-512 BF16), one head of one cell at a time.

torch has no product that takes bfloat16 and gives float32, and scores must not be rounded to eight bits: made of its
products, scores cost what they cost in float32, and each step writes to memory what the next one reads. Here six
queries at a time go through all steps, and their scores stay in the first cache:

    scores [6, keys] = queries [6, d_head] x keys^T         bfloat16, summed in float32
    shares [6, keys] = 2^(scores factor - the largest)      float32, and so is their sum; then rounded to bfloat16
    mixed [6, d_head] = shares x values / the shares' sum   bfloat16, summed in float32

Both products are `_multiply`. Its instruction takes words of two bfloat16: each of 16 lanes adds a0 b0 + a1 b1 to its
float32. Six rows by 64 columns are 24 registers of sums, which leaves eight to load into. A word of the left matrix
goes to all lanes as it lies in memory; the right matrix is packed, once a head, so that the words of 64 columns lie
side by side:

    keys    int32 [length / 64, d_head / 2, 64]     word i of a key: its dimensions 2 i and 2 i + 1
    values  int32 [d_head / 64, length / 2, 64]     word i of a column: that of tokens 2 i and 2 i + 1
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from llvmlite import binding, ir
from numba import extending, types
from numba.core import cgutils
from torch import Tensor

from sae_genomics.compiled import each_range, exact_kernel, inner

MIN_WIDTH = 16  # of a head; values are padded to 64 columns, and yet it is faster than torch's attention here
_ROWS, _LANES, _COLUMNS = 6, 16, 64
_RANGE_PRODUCTS = 1 << 24  # of queries with keys, a thread takes at a time: a fraction of a millisecond

# 2^x for x of -0.5 to 0.5, the highest power first; within 2e-7 of it
_EXP2 = (1.32186722e-3, 9.67169832e-3, 5.55089302e-2, 2.4022238e-1, 6.93146884e-1, 1.0)


def takes(d_head: int) -> bool:
    """Whether `attend` computes heads of this width, on this CPU."""
    return d_head % 2 == 0 and d_head >= MIN_WIDTH and _available()


def attend(qkv: Tensor, cell_ptr: npt.NDArray[np.int64], n_heads: int, kv_n_heads: int) -> Tensor:
    """softmax(q k^T / sqrt(d_head)) v within each cell, without a gradient.

    qkv: bfloat16 [T, (n_heads + 2 kv_n_heads) d_head], contiguous. cell_ptr: int64 [cells + 1].
    Returns bfloat16 [T, n_heads d_head].
    """
    d_head = qkv.shape[1] // (n_heads + 2 * kv_n_heads)
    mixed = qkv.new_empty(qkv.shape[0], n_heads * d_head)
    words = qkv.detach().view(torch.int32).numpy()
    out = mixed.view(torch.int32).numpy()
    lengths = np.diff(cell_ptr)
    cells = np.argsort(-lengths, kind="stable")  # the short ones last, so that threads end together
    units = len(cells) * n_heads
    products = float(np.square(lengths, dtype=np.float64).sum()) * d_head * n_heads
    each_range(
        units,
        int(max(1, _RANGE_PRODUCTS * units // max(products, 1))),
        lambda start, stop: _attend(words, cell_ptr, cells, n_heads, kv_n_heads, start, stop, out),
    )
    return mixed


@cache
def _available() -> bool:
    """Whether this CPU has the instructions, numba compiles for it, and the result is right."""
    if numba.config.CPU_NAME or numba.config.CPU_FEATURES or numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return False
    try:
        if not binding.get_host_cpu_features().get("avx512bf16"):
            return False
    except RuntimeError:  # LLVM does not know
        return False
    # a token of zeros sees both values alike; one of ones has scores 0 and 64 / 8
    rows = torch.zeros(2, 192, dtype=torch.bfloat16)
    rows[1] = 1
    try:
        found = attend(rows, np.array([0, 2]), 1, 1)
    except (numba.core.errors.NumbaError, RuntimeError, TypeError, ValueError):  # another LLVM has other names
        return False
    expected = torch.tensor([0.5, 1 / (1 + math.exp(-8))]).bfloat16()
    return torch.equal(found, expected[:, None].expand_as(found))


@exact_kernel
def _attend(words, cell_ptr, cells, n_heads, kv_n_heads, start, stop, out):  # type: ignore[no-untyped-def]
    """Heads start to stop, counted through the heads of all cells.

    words: int32 [T, (n_heads + 2 kv_n_heads) d_head / 2], two bfloat16 each. out: int32 [T, n_heads d_head / 2], written.
    """
    pairs = out.shape[1] // n_heads
    for unit in range(start, stop):
        head = unit % n_heads
        kv_head = n_heads + head // (n_heads // kv_n_heads)
        cell = cells[unit // n_heads]
        first, last = cell_ptr[cell], cell_ptr[cell + 1]
        _attend_head(
            words[first:last, head * pairs : (head + 1) * pairs],
            _packed_keys(words[first:last, kv_head * pairs : (kv_head + 1) * pairs]),
            _packed_values(words[first:last, (kv_head + kv_n_heads) * pairs : (kv_head + kv_n_heads + 1) * pairs]),
            out[first:last, head * pairs : (head + 1) * pairs],
        )


@inner
def _attend_head(q, keys, values, out):  # type: ignore[no-untyped-def]
    """q: int32 [length, d_head / 2]; keys and values: packed; out: as q, written."""
    length, pairs = q.shape
    factor = np.float32(1.4426950408889634 / np.sqrt(2 * pairs))  # log2(e) / sqrt(d_head)
    seen = -(-length // _LANES) * _LANES
    queries = np.zeros((_ROWS, pairs), np.int32)
    scores = _aligned((_ROWS, len(keys), _COLUMNS)).view(np.float32).reshape(_ROWS, -1)
    shares = _aligned((_ROWS, seen // 32 + 1, 16)).reshape(_ROWS, -1)
    mixed = np.empty((_ROWS, len(values) * _COLUMNS), np.float32)
    totals = np.empty(_ROWS, np.float32)
    rounded = np.empty(mixed.shape[1] // 2, np.int32)
    for query in range(0, length, _ROWS):
        rows = min(_ROWS, length - query)
        for row in range(rows):
            for pair in range(pairs):
                queries[row, pair] = q[query + row, pair]
        for block in range(len(keys)):
            _multiply(queries, keys[block], scores[:, block * _COLUMNS : (block + 1) * _COLUMNS])
        for row in range(rows):
            scores[row, length:seen] = -np.inf
            totals[row] = _exponentials(scores[row, :seen], factor, shares[row])
        for block in range(len(values)):
            _multiply(shares, values[block], mixed[:, block * _COLUMNS : (block + 1) * _COLUMNS])
        for row in range(rows):
            _round(mixed[row], totals[row], rounded)
            for pair in range(pairs):
                out[query + row, pair] = rounded[pair]


@inner
def _packed_keys(k):  # type: ignore[no-untyped-def]
    """int32 [length, d_head / 2] to [length / 64, d_head / 2, 64]."""
    length, pairs = k.shape
    packed = _aligned((-(-length // _COLUMNS), pairs, _COLUMNS))
    for key in range(length):
        for pair in range(pairs):
            packed[key // _COLUMNS, pair, key % _COLUMNS] = k[key, pair]
    return packed


@inner
def _packed_values(v):  # type: ignore[no-untyped-def]
    """int32 [length, d_head / 2] to [d_head / 64, length / 2, 64]."""
    length, pairs = v.shape
    half = _COLUMNS // 2
    packed = _aligned((-(-pairs // half), -(-length // 2), _COLUMNS))
    low = np.int32(0xFFFF)
    for key in range(0, length, 2):
        for pair in range(pairs):
            even = v[key, pair]
            odd = v[key + 1, pair] if key + 1 < length else np.int32(0)
            words = packed[pair // half, key // 2]
            words[pair % half * 2] = (even & low) | (odd << np.int32(16))
            words[pair % half * 2 + 1] = ((even >> np.int32(16)) & low) | (odd & ~low)
    return packed


@inner
def _aligned(shape):  # type: ignore[no-untyped-def]
    """Zeros, int32, three dimensions, that begin with a cache line: a vector across two lines is loaded twice."""
    words = shape[0] * shape[1] * shape[2]
    raw = np.zeros(words + _LANES, np.int32)
    start = -(raw.ctypes.data // 4) % _LANES
    return raw[start : start + words].reshape(shape)


# --- what has to be said in LLVM's own terms ---


_intrinsic: Any = extending.intrinsic  # whose types leave out that it takes the first argument away


class _BFloat(ir.Type):
    """LLVM's type, which llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_BYTES, _WORD, _FLOAT = ir.IntType(8).as_pointer(), ir.IntType(32), ir.FloatType()
_WORDS, _FLOATS = ir.VectorType(_WORD, _LANES), ir.VectorType(_FLOAT, _LANES)
_HALVES, _PAIRS = ir.VectorType(_BFloat(), _LANES), ir.VectorType(_BFloat(), 2 * _LANES)


def _call(builder: Any, name: str, result: Any, *operands: Any, **flags: Any) -> Any:
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), operands, **flags)


def _in_every_lane(builder: Any, scalar: Any) -> Any:
    unset = ir.Constant(ir.VectorType(scalar.type, _LANES), ir.Undefined)
    first = builder.insert_element(unset, scalar, _WORD(0))
    return builder.shuffle_vector(first, unset, ir.Constant(_WORDS, None))


def _at(builder: Any, base: Any, offset: Any, kind: Any) -> Any:
    """Pointer to a value of this type, `offset` bytes behind `base`."""
    return builder.bitcast(builder.gep(builder.bitcast(base, _BYTES), [offset]), kind.as_pointer())


def _load(builder: Any, base: Any, offset: Any, kind: Any) -> Any:
    return builder.load(_at(builder, base, offset, kind), align=4)


def _store(builder: Any, value: Any, base: Any, offset: Any) -> None:
    builder.store(value, _at(builder, base, offset, value.type), align=4)


@_intrinsic
def _multiply(typing, a, b, c):  # type: ignore[no-untyped-def]
    """c = a b, of bfloat16. a: int32 [6, >= n]; b: int32 [n, 64], contiguous; c: float32 [6, 64], written."""
    signature = types.void(a, b, c)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        a, b, c = (
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args, arguments, strict=True)
        )
        given = [
            *(builder.bitcast(array.data, _BYTES) for array in (a, b, c)),
            *(builder.extract_value(array, 0) for array in (a.strides, c.strides, b.shape)),
        ]
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in given])
        function = cgutils.get_or_insert_function(builder.module, kind, "sae_genomics_multiply")
        if function.is_declaration:
            _define_multiply(function)
        builder.call(function, given)
        return context.get_dummy_value()

    return signature, generate


def _define_multiply(function: Any) -> None:
    """A function that stays one: inlined, its loop would wait for addresses that no register was left for."""
    function.linkage = "internal"
    function.attributes.add("noinline")
    a, b, c, a_stride, c_stride, n = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    rows, vectors = range(_ROWS), range(_COLUMNS // _LANES)
    size = n.type
    a_rows = [builder.mul(a_stride, size(row)) for row in rows]
    sums = [[cgutils.alloca_once_value(builder, ir.Constant(_FLOATS, None)) for _ in vectors] for _ in rows]
    with cgutils.for_range(builder, n) as loop:
        line = builder.mul(loop.index, size(4 * _COLUMNS))
        right = [_load(builder, b, builder.add(line, size(4 * _LANES * i)), _PAIRS) for i in vectors]
        for row in rows:
            word = _load(builder, a, builder.add(a_rows[row], builder.mul(loop.index, size(4))), _WORD)
            left = builder.bitcast(_in_every_lane(builder, word), _PAIRS)
            for i in vectors:
                before = builder.load(sums[row][i])
                after = _call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", _FLOATS, before, left, right[i])
                builder.store(after, sums[row][i])
    for row in rows:
        for i in vectors:
            place = builder.add(builder.mul(c_stride, size(row)), size(4 * _LANES * i))
            _store(builder, builder.load(sums[row][i]), c, place)
    builder.ret_void()


@_intrinsic
def _exponentials(typing, scores, factor, shares):  # type: ignore[no-untyped-def]
    """Write 2^(factor score - the largest) as bfloat16 and return the sum of what was not yet rounded.

    scores: float32 [16 n], contiguous. factor: float32, positive. shares: int32 [>= 8 n], contiguous, written.
    """
    signature = types.float32(scores, types.float32, shares)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        scores, shares = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 2))
        size = context.get_value_type(types.intp)
        n = builder.udiv(builder.extract_value(scores.shape, 0), size(_LANES))
        factor = _in_every_lane(builder, arguments[1])

        def every(number: float) -> Any:
            return ir.Constant(_FLOATS, [number] * _LANES)

        def score(loop: Any) -> Any:
            return _load(builder, scores.data, builder.mul(loop.index, size(4 * _LANES)), _FLOATS)

        top = cgutils.alloca_once_value(builder, every(float("-inf")))
        with cgutils.for_range(builder, n) as loop:
            x, before = score(loop), builder.load(top)
            builder.store(builder.select(builder.fcmp_ordered(">", x, before), x, before), top)
        largest = _call(builder, "llvm.vector.reduce.fmax.v16f32", _FLOAT, builder.load(top))
        shift = _in_every_lane(builder, builder.fneg(builder.fmul(largest, arguments[1])))

        total = cgutils.alloca_once_value(builder, every(0))
        with cgutils.for_range(builder, n) as loop:
            x = _call(builder, "llvm.fma.v16f32", _FLOATS, score(loop), factor, shift)
            lowest = every(-200)  # already no share at all; from minus infinity the fraction below would be NaN
            x = builder.select(builder.fcmp_ordered("<", x, lowest), lowest, x)
            whole = _call(builder, "llvm.rint.v16f32", _FLOATS, x)
            fraction = builder.fsub(x, whole)
            power = every(_EXP2[0])
            for coefficient in _EXP2[1:]:
                power = _call(builder, "llvm.fma.v16f32", _FLOATS, power, fraction, every(coefficient))
            share = _call(
                builder, "llvm.x86.avx512.mask.scalef.ps.512", _FLOATS,
                power, whole, every(0), ir.IntType(16)(-1), _WORD(4),
            )  # fmt: skip
            builder.store(builder.fadd(builder.load(total), share), total)
            _store(builder, builder.fptrunc(share, _HALVES), shares.data, builder.mul(loop.index, size(2 * _LANES)))
        return _call(
            builder, "llvm.vector.reduce.fadd.v16f32", _FLOAT, _FLOAT(0), builder.load(total), fastmath=("reassoc",)
        )

    return signature, generate


@_intrinsic
def _round(typing, numbers, divisor, out):  # type: ignore[no-untyped-def]
    """Write numbers / divisor as bfloat16. numbers: float32 [16 n], contiguous; out: int32 [8 n], contiguous."""
    signature = types.void(numbers, types.float32, out)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        numbers, out = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 2))
        size = context.get_value_type(types.intp)
        divisor = _in_every_lane(builder, arguments[1])
        with cgutils.for_range(builder, builder.udiv(builder.extract_value(numbers.shape, 0), size(_LANES))) as loop:
            number = _load(builder, numbers.data, builder.mul(loop.index, size(4 * _LANES)), _FLOATS)
            rounded = builder.fptrunc(builder.fdiv(number, divisor), _HALVES)
            _store(builder, rounded, out.data, builder.mul(loop.index, size(2 * _LANES)))
        return context.get_dummy_value()

    return signature, generate
