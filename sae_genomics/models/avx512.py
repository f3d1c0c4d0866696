"""Parts of compiled kernels that have to be said in LLVM's own terms: AVX-512, in float32 and in bfloat16.

In bfloat16 the instruction for products takes words of two numbers: each of 16 lanes adds a0 b0 + a1 b1 to its float32.
Such words are passed as int32.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import binding, ir
from numba import extending, types
from numba.core import cgutils

ROWS, LANES, COLUMNS = 6, 16, 64  # of `multiply`; lanes of a vector

# 2^x for x of -0.5 to 0.5, the highest power first; within 2e-7 of it
_EXP2 = (1.32186722e-3, 9.67169832e-3, 5.55089302e-2, 2.4022238e-1, 6.93146884e-1, 1.0)


def there(feature: str) -> bool:
    """Whether this CPU has a feature, such as avx512f or avx512bf16, and numba compiles for this CPU."""
    if numba.config.CPU_NAME or numba.config.CPU_FEATURES or numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return False
    try:
        return bool(binding.get_host_cpu_features().get(feature))
    except RuntimeError:  # LLVM does not know
        return False


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
_WORDS, _FLOATS = ir.VectorType(_WORD, LANES), ir.VectorType(_FLOAT, LANES)
_HALVES, _PAIRS = ir.VectorType(_BFloat(), LANES), ir.VectorType(_BFloat(), 2 * LANES)


def _call(builder: Any, name: str, result: Any, *operands: Any, **flags: Any) -> Any:
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), operands, **flags)


def _in_every_lane(builder: Any, scalar: Any) -> Any:
    unset = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
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
def multiply(typing, a, b, c):  # type: ignore[no-untyped-def]
    """c = a b, summed in float32. a: [6, >= n]; b: [n, 64], contiguous; c: float32 [6, 64], written.

    a and b are both float32 or both int32, words of two bfloat16. Six rows by 64 columns are 24 registers of sums, which
    leaves eight to load into; a number, or a word, of a goes to all lanes as it lies in memory.
    """
    signature = types.void(a, b, c)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        single = signature.args[0].dtype == types.float32
        a, b, c = (
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args, arguments, strict=True)
        )
        given = [
            *(builder.bitcast(array.data, _BYTES) for array in (a, b, c)),
            *(builder.extract_value(array, 0) for array in (a.strides, c.strides, b.shape)),
        ]
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in given])
        name = f"sae_genomics_multiply_{'float32' if single else 'bfloat16'}"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        if function.is_declaration:
            _define_multiply(function, single)
        builder.call(function, given)
        return context.get_dummy_value()

    return signature, generate


def _define_multiply(function: Any, single: bool) -> None:
    """A function that stays one: inlined, its loop would wait for addresses that no register was left for."""
    function.linkage = "internal"
    function.attributes.add("noinline")
    a, b, c, a_stride, c_stride, n = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    rows, vectors = range(ROWS), range(COLUMNS // LANES)
    size = n.type
    a_rows = [builder.mul(a_stride, size(row)) for row in rows]
    sums = [[cgutils.alloca_once_value(builder, ir.Constant(_FLOATS, None)) for _ in vectors] for _ in rows]
    with cgutils.for_range(builder, n) as loop:
        line = builder.mul(loop.index, size(4 * COLUMNS))
        kind = _FLOATS if single else _PAIRS
        right = [_load(builder, b, builder.add(line, size(4 * LANES * i)), kind) for i in vectors]
        for row in rows:
            place = builder.add(a_rows[row], builder.mul(loop.index, size(4)))
            left = _in_every_lane(builder, _load(builder, a, place, _FLOAT if single else _WORD))
            for i in vectors:
                before = builder.load(sums[row][i])
                if single:
                    after = _call(builder, "llvm.fma.v16f32", _FLOATS, left, right[i], before)
                else:
                    words = builder.bitcast(left, _PAIRS)
                    after = _call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", _FLOATS, before, words, right[i])
                builder.store(after, sums[row][i])
    for row in rows:
        for i in vectors:
            place = builder.add(builder.mul(c_stride, size(row)), size(4 * LANES * i))
            _store(builder, builder.load(sums[row][i]), c, place)
    builder.ret_void()


def _rounded(builder: Any, numbers: Any, single: bool) -> Any:
    return numbers if single else builder.fptrunc(numbers, _HALVES)


@_intrinsic
def exponentials(typing, scores, factor, shares):  # type: ignore[no-untyped-def]
    """Write 2^(factor score - the largest) and return the sum of what was not yet rounded.

    scores: float32 [16 n], contiguous. factor: float32, positive. shares: contiguous, written: float32 [>= 16 n], may be
    `scores` itself; or int32 [>= 8 n], words of two bfloat16.
    """
    signature = types.float32(scores, types.float32, shares)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        scores, shares = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 2))
        single = signature.args[2].dtype == types.float32
        size = context.get_value_type(types.intp)
        n = builder.udiv(builder.extract_value(scores.shape, 0), size(LANES))
        factor = _in_every_lane(builder, arguments[1])

        def every(number: float) -> Any:
            return ir.Constant(_FLOATS, [number] * LANES)

        def score(loop: Any) -> Any:
            return _load(builder, scores.data, builder.mul(loop.index, size(4 * LANES)), _FLOATS)

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
            place = builder.mul(loop.index, size((4 if single else 2) * LANES))
            _store(builder, _rounded(builder, share, single), shares.data, place)
        return _call(
            builder, "llvm.vector.reduce.fadd.v16f32", _FLOAT, _FLOAT(0), builder.load(total), fastmath=("reassoc",)
        )

    return signature, generate


@_intrinsic
def divide(typing, numbers, divisor, out):  # type: ignore[no-untyped-def]
    """Write numbers / divisor. numbers: float32 [16 n]; out: float32 [16 n], or int32 [8 n], words of two bfloat16; contiguous."""
    signature = types.void(numbers, types.float32, out)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        numbers, out = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 2))
        single = signature.args[2].dtype == types.float32
        size = context.get_value_type(types.intp)
        divisor = _in_every_lane(builder, arguments[1])
        with cgutils.for_range(builder, builder.udiv(builder.extract_value(numbers.shape, 0), size(LANES))) as loop:
            number = _load(builder, numbers.data, builder.mul(loop.index, size(4 * LANES)), _FLOATS)
            place = builder.mul(loop.index, size((4 if single else 2) * LANES))
            _store(builder, _rounded(builder, builder.fdiv(number, divisor), single), out.data, place)
        return context.get_dummy_value()

    return signature, generate


@_intrinsic
def prefetch(typing, rows, row):  # type: ignore[no-untyped-def]
    """Ask for a row that will be needed: rows far apart are out of sight of the CPU's own prefetching.

    rows: [n, words], each row contiguous. row: int64; one that is not there is not asked for.
    """
    signature = types.void(rows, types.int64)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        rows = context.make_array(signature.args[0])(context, builder, arguments[0])
        size = context.get_value_type(types.intp)
        (n, width), (stride, _) = (cgutils.unpack_tuple(builder, pair, 2) for pair in (rows.shape, rows.strides))
        with builder.if_then(builder.icmp_signed("<", arguments[1], n)):
            start = builder.mul(arguments[1], stride)
            with cgutils.for_range_slice(builder, size(0), builder.mul(width, size(4)), size(64)) as (place, _):
                line = _at(builder, rows.data, builder.add(start, place), ir.IntType(8))
                _call(builder, "llvm.prefetch.p0", ir.VoidType(), line, _WORD(0), _WORD(3), _WORD(1))
        return context.get_dummy_value()

    return signature, generate
