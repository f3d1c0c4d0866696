"""Parts of compiled kernels that have to be said in LLVM's own terms: AVX-512 in float32 and in bfloat16, AVX2 in float32.

An element has four bytes: one float32, or two bfloat16 that are passed as one int32. In bfloat16 the instruction for products
adds a0 b0 + a1 b1 to each float32 of a vector.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import binding, ir
from numba import extending, types
from numba.core import cgutils

from sae_genomics import cpu

# Polynomials for 2^x from 0 to 1, the highest power first: of least relative error (Remez' algorithm), which is 7.5e-8, and
# 7.5e-5 where the result is rounded to eight bits, to within 2e-3
_EXP2 = (1.87757668e-3, 8.98934009e-3, 5.58263181e-2, 2.40153617e-1, 6.93153073e-1, 9.99999925e-1)
_EXP2_BF16 = (7.80245226e-2, 2.26067155e-1, 6.9583354e-1, 9.99925219e-1)


def there(feature: str) -> bool:
    """Whether this CPU has a feature, such as avx2, avx512f or avx512bf16, it may be used, and numba compiles for it."""
    settings: Any = numba.config
    if not cpu.allowed(feature) or settings.DISABLE_JIT:
        return False
    try:
        if not binding.get_host_cpu_features().get(feature):
            return False
    except RuntimeError:  # LLVM does not know
        return False
    if settings.CPU_FEATURES is None:
        return not settings.CPU_NAME
    return f"+{feature}" in settings.CPU_FEATURES.split(",")


def _wide() -> bool:
    return there("avx512f") and there("avx512dq")


# Of `multiply`. AVX-512 has 32 registers of 16 float32, AVX2 has 16 of 8: six rows of sums of two vectors leave four of these to load into.
VECTOR_WIDTH, COLUMNS = (16, 64) if _wide() else (8, 16)
ROWS = 6


_intrinsic: Any = extending.intrinsic  # whose types leave out that it takes the first argument away


class _BFloat(ir.Type):
    """LLVM's type, which llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_BYTES, _INT32, _FLOAT = ir.IntType(8).as_pointer(), ir.IntType(32), ir.FloatType()
_INTEGERS, _FLOATS = ir.VectorType(_INT32, VECTOR_WIDTH), ir.VectorType(_FLOAT, VECTOR_WIDTH)
_ALL = ir.IntType(16)(-1)  # numbers of a vector
_LEAST, _EXPONENT_BIAS, _MANTISSA_BITS = (
    -127.0,
    127,
    23,
)  # of float32: 2^-127 is 0 here, as numbers below 2^-126 would be slow
_BELOW, _ROUNDING_AS_SET = 0b1001, 4  # the instructions' own codes
_HALVES, _PAIRS = ir.VectorType(_BFloat(), VECTOR_WIDTH), ir.VectorType(_BFloat(), 2 * VECTOR_WIDTH)


def _call(builder: Any, name: str, result: Any, *operands: Any, **flags: Any) -> Any:
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), operands, **flags)


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return _call(builder, f"llvm.fma.v{VECTOR_WIDTH}f32", _FLOATS, a, b, c)


def _broadcast(builder: Any, scalar: Any) -> Any:
    unset = ir.Constant(ir.VectorType(scalar.type, VECTOR_WIDTH), ir.Undefined)
    first = builder.insert_element(unset, scalar, _INT32(0))
    return builder.shuffle_vector(first, unset, ir.Constant(_INTEGERS, None))


def _at(builder: Any, base: Any, offset: Any, kind: Any) -> Any:
    """Pointer to a value of this type, `offset` bytes behind `base`."""
    return builder.bitcast(builder.gep(builder.bitcast(base, _BYTES), [offset]), kind.as_pointer())


def _load(builder: Any, base: Any, offset: Any, kind: Any) -> Any:
    return builder.load(_at(builder, base, offset, kind), align=4)


def _store(builder: Any, value: Any, base: Any, offset: Any) -> None:
    builder.store(value, _at(builder, base, offset, value.type), align=4)


@_intrinsic
def multiply(typing, a, b, c):  # type: ignore[no-untyped-def]
    """c = a b, summed in float32. a: [6, >= n]; b: [n, COLUMNS], contiguous; c: float32 [6, COLUMNS], written.

    a and b are both float32 or both int32. With AVX-512 six rows by 64 columns are 24 registers of sums, which
    leaves eight to load into; an element of a goes to all of a vector as it lies in memory.
    """
    return types.void(a, b, c), _multiply(COLUMNS)


@_intrinsic
def multiply_narrow(typing, a, b, c):  # type: ignore[no-untyped-def]
    """The same for one vector of columns: b [n, VECTOR_WIDTH], of rows that lie COLUMNS apart; c [6, VECTOR_WIDTH]."""
    return types.void(a, b, c), _multiply(VECTOR_WIDTH)


def _multiply(columns: int) -> Any:
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
        name = f"sae_genomics_multiply_{columns}_{'float32' if single else 'bfloat16'}"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        if function.is_declaration:
            _define_multiply(function, single, columns)
        builder.call(function, given)
        return context.get_dummy_value()

    return generate


def _define_multiply(function: Any, single: bool, columns: int) -> None:
    """A function that stays one: inlined, its loop would wait for addresses that no register was left for."""
    function.linkage = "internal"
    function.attributes.add("noinline")
    a, b, c, a_stride, c_stride, n = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    rows, vectors = range(ROWS), range(columns // VECTOR_WIDTH)
    size = n.type
    a_rows = [builder.mul(a_stride, size(row)) for row in rows]
    sums = [[cgutils.alloca_once_value(builder, ir.Constant(_FLOATS, None)) for _ in vectors] for _ in rows]
    with cgutils.for_range(builder, n) as loop:
        line = builder.mul(loop.index, size(4 * COLUMNS))
        kind = _FLOATS if single else _PAIRS
        right = [_load(builder, b, builder.add(line, size(4 * VECTOR_WIDTH * i)), kind) for i in vectors]
        for row in rows:
            offset = builder.add(a_rows[row], builder.mul(loop.index, size(4)))
            left = _broadcast(builder, _load(builder, a, offset, _FLOAT if single else _INT32))
            for i in vectors:
                before = builder.load(sums[row][i])
                if single:
                    after = _fma(builder, left, right[i], before)
                else:
                    pairs = builder.bitcast(left, _PAIRS)
                    after = _call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", _FLOATS, before, pairs, right[i])
                builder.store(after, sums[row][i])
    for row in rows:
        for i in vectors:
            offset = builder.add(builder.mul(c_stride, size(row)), size(4 * VECTOR_WIDTH * i))
            _store(builder, builder.load(sums[row][i]), c, offset)
    builder.ret_void()


def _every(number: float) -> Any:
    return ir.Constant(_FLOATS, [number] * VECTOR_WIDTH)


def _vector(builder: Any, base: Any, number: Any) -> Any:
    """The vector at position `number` behind `base`."""
    return _load(builder, base, builder.mul(number, number.type(4 * VECTOR_WIDTH)), _FLOATS)


def _largest(builder: Any, base: Any, n: Any) -> Any:
    """The largest of n > 0 vectors' floats, NaN passed over."""
    size = n.type
    # one running maximum would wait for itself
    tops = [cgutils.alloca_once_value(builder, _every(float("-inf"))) for _ in range(4)]

    def raise_to(top: Any, x: Any) -> None:
        before = builder.load(top)
        builder.store(builder.select(builder.fcmp_ordered(">", x, before), x, before), top)

    together = builder.and_(n, size(-len(tops)))
    with cgutils.for_range_slice(builder, size(0), together, size(len(tops))) as (first, _):
        for i, top in enumerate(tops):
            raise_to(top, _vector(builder, base, builder.add(first, size(i))))
    with cgutils.for_range_slice(builder, together, n, size(1)) as (number, _):
        raise_to(tops[0], _vector(builder, base, number))
    for top in tops[1:]:
        raise_to(tops[0], builder.load(top))
    return _call(
        builder, f"llvm.vector.reduce.fmax.v{VECTOR_WIDTH}f32", _FLOAT, builder.load(tops[0]), fastmath=("nnan",)
    )


def _power(builder: Any, fraction: Any, coefficients: tuple[float, ...]) -> Any:
    """2^fraction, 0 to 1."""
    first, *others = coefficients
    power = _every(first)
    for coefficient in others:
        power = _fma(builder, power, fraction, _every(coefficient))
    return power


def _exp2(builder: Any, x: Any, coefficients: tuple[float, ...]) -> Any:
    """2^x of x <= 0."""
    # x less the whole number below it, 0 for minus infinity
    fraction = _call(
        builder, "llvm.x86.avx512.mask.reduce.ps.512", _FLOATS,
        x, _INT32(_BELOW), _every(0), _ALL, _INT32(_ROUNDING_AS_SET),
    )  # fmt: skip
    power = _power(builder, fraction, coefficients)
    # power 2^(the whole number below x)
    return _call(
        builder, "llvm.x86.avx512.mask.scalef.ps.512", _FLOATS,
        power, x, _every(0), _ALL, _INT32(_ROUNDING_AS_SET),
    )  # fmt: skip


def _exp2_avx2(builder: Any, x: Any, coefficients: tuple[float, ...]) -> Any:
    """The same without instructions for it: the whole number becomes the exponent of a float32. NaN stays NaN."""
    least = _every(_LEAST)
    x = builder.select(builder.fcmp_ordered("<", x, least), least, x)
    whole = _call(builder, f"llvm.floor.v{VECTOR_WIDTH}f32", _FLOATS, x)
    power = _power(builder, builder.fsub(x, whole), coefficients)
    # LLVM's own conversion promises nothing for NaN
    exponent = _call(builder, "llvm.x86.avx.cvt.ps2dq.256", _INTEGERS, whole)
    biased = builder.add(exponent, ir.Constant(_INTEGERS, [_EXPONENT_BIAS] * VECTOR_WIDTH))
    scale = builder.shl(biased, ir.Constant(_INTEGERS, [_MANTISSA_BITS] * VECTOR_WIDTH))
    return builder.fmul(power, builder.bitcast(scale, _FLOATS))


def _rounded(builder: Any, numbers: Any, single: bool) -> Any:
    return numbers if single else builder.fptrunc(numbers, _HALVES)


@_intrinsic
def exponentials(typing, scores, factor, shares):  # type: ignore[no-untyped-def]
    """Write 2^(factor score - the largest) and return the sum of what was not yet rounded.

    scores: float32 [n VECTOR_WIDTH], contiguous. factor: float32, positive. shares: contiguous, written: float32 [>= n VECTOR_WIDTH], may be
    `scores` itself; or int32 [>= n VECTOR_WIDTH / 2], two bfloat16 each.
    """
    signature = types.float32(scores, types.float32, shares)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        scores, shares = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 2))
        single = signature.args[2].dtype == types.float32
        size = context.get_value_type(types.intp)
        n = builder.udiv(builder.extract_value(scores.shape, 0), size(VECTOR_WIDTH))
        factor = _broadcast(builder, arguments[1])

        largest = _largest(builder, scores.data, n)
        shift = _broadcast(builder, builder.fneg(builder.fmul(largest, arguments[1])))

        total = cgutils.alloca_once_value(builder, _every(0))
        with cgutils.for_range(builder, n) as loop:
            x = _fma(builder, _vector(builder, scores.data, loop.index), factor, shift)
            share = (_exp2 if VECTOR_WIDTH == 16 else _exp2_avx2)(builder, x, _EXP2 if single else _EXP2_BF16)
            builder.store(builder.fadd(builder.load(total), share), total)
            offset = builder.mul(loop.index, size((4 if single else 2) * VECTOR_WIDTH))
            _store(builder, _rounded(builder, share, single), shares.data, offset)
        return _call(
            builder,
            f"llvm.vector.reduce.fadd.v{VECTOR_WIDTH}f32",
            _FLOAT,
            _FLOAT(0),
            builder.load(total),
            fastmath=("reassoc",),
        )

    return signature, generate


@_intrinsic
def divide(typing, numbers, divisor, out):  # type: ignore[no-untyped-def]
    """Write numbers / divisor, unless out is not of whole vectors: then write nothing and return False.

    numbers: float32, as many as out takes. out: contiguous, float32 [n VECTOR_WIDTH], or int32 [n VECTOR_WIDTH / 2], two bfloat16 each.
    """
    signature = types.boolean(numbers, types.float32, out)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        numbers, out = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 2))
        single = signature.args[2].dtype == types.float32
        size = context.get_value_type(types.intp)
        divisor = _broadcast(builder, arguments[1])
        elements, at_once = builder.extract_value(out.shape, 0), size(VECTOR_WIDTH if single else VECTOR_WIDTH // 2)
        whole = builder.icmp_unsigned("==", builder.urem(elements, at_once), size(0))
        with builder.if_then(whole), cgutils.for_range(builder, builder.udiv(elements, at_once)) as loop:
            number = _vector(builder, numbers.data, loop.index)
            offset = builder.mul(loop.index, builder.mul(at_once, size(4)))
            _store(builder, _rounded(builder, builder.fdiv(number, divisor), single), out.data, offset)
        return whole

    return signature, generate


@_intrinsic
def interleave(typing, even, odd, out):  # type: ignore[no-untyped-def]
    """Pairs of bfloat16, one of even and one of odd: out[2 i] of both elements' first numbers, out[2 i + 1] of their second.

    even, odd: int32 [n], contiguous. out: int32 [>= 2 n], contiguous.
    """
    signature = types.void(even, odd, out)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        even, odd, out = (
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args, arguments, strict=True)
        )
        size = context.get_value_type(types.intp)

        def some(first: Any, count: int) -> None:
            """Elements first to first + count."""
            numbers = ir.VectorType(ir.IntType(16), 2 * count)
            offset = builder.mul(first, size(4))
            sources = [_load(builder, row.data, offset, numbers) for row in (even, odd)]
            order = [i // 2 + i % 2 * 2 * count for i in range(4 * count)]
            mixed = builder.shuffle_vector(*sources, ir.Constant(ir.VectorType(_INT32, 4 * count), order))
            _store(builder, mixed, out.data, builder.mul(first, size(8)))

        n = builder.extract_value(even.shape, 0)
        whole = builder.and_(n, size(-VECTOR_WIDTH))
        with cgutils.for_range_slice(builder, size(0), whole, size(VECTOR_WIDTH)) as (first, _):
            some(first, VECTOR_WIDTH)
        with cgutils.for_range_slice(builder, whole, n, size(1)) as (first, _):
            some(first, 1)
        return context.get_dummy_value()

    return signature, generate


@_intrinsic
def prefetch(typing, rows, row):  # type: ignore[no-untyped-def]
    """Ask for a row that will be needed: rows far apart are out of sight of the CPU's own prefetching.

    rows: [n, elements], each row contiguous. row: int64; one that is not there is not asked for.
    """
    signature = types.void(rows, types.int64)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        rows = context.make_array(signature.args[0])(context, builder, arguments[0])
        size = context.get_value_type(types.intp)
        (n, width), (stride, _) = (cgutils.unpack_tuple(builder, pair, 2) for pair in (rows.shape, rows.strides))
        with builder.if_then(builder.icmp_signed("<", arguments[1], n)):
            start = builder.mul(arguments[1], stride)
            with cgutils.for_range_slice(builder, size(0), builder.mul(width, size(4)), size(64)) as (offset, _):
                line = _at(builder, rows.data, builder.add(start, offset), ir.IntType(8))
                _call(builder, "llvm.prefetch.p0", ir.VoidType(), line, _INT32(0), _INT32(3), _INT32(1))
        return context.get_dummy_value()

    return signature, generate
