"""G of pairs of columns: items are bits, so that one instruction counts 64 of them, and logarithms are taken only where G can reach `least`.

The four cells differ from their expectation by the same amount, so that G = 2 sum O ln(O / E) <= 2 sum (O - E)^2 / E: ln x <= x - 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from sae_genomics.kernels.arrays import Pairs
from sae_genomics.kernels.choice import instead_of
from sae_genomics.kernels.compiled import each_range, exact_kernel, inner
from sae_genomics.kernels.plain import pair_g as plain
from sae_genomics.kernels.plain.pair_g import Float64, Int32, Words

ROWS_AT_ONCE = 16


@instead_of(plain.pair_g)
def pair_g(
    tables: tuple[Words, Words], pairs: Pairs, sums: tuple[Float64, Float64], n: int, least: float
) -> tuple[Int32, Float64]:
    both, g = np.empty(len(pairs.column), np.int32), np.empty(len(pairs.column))

    def some(start: int, stop: int) -> None:
        _rows(tables[0], tables[1], pairs, sums[0], sums[1], float(n), least, both, g, start, stop)

    each_range(len(pairs.ptr) - 1, ROWS_AT_ONCE, some)
    return both, g


def _generate_ones(typing: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


_ones: Any = intrinsic(_generate_ones)


@inner
def _term(seen, expected):  # type: ignore[no-untyped-def]
    seen = max(seen, 0.0)
    return seen * np.log(seen / max(expected, 1e-9)) if seen > 0.0 else 0.0


@exact_kernel
def _rows(left, right, pairs, first, second, n, least, both, g, start, stop):  # type: ignore[no-untyped-def]
    words = left.shape[1]
    subtracts = len(pairs.less) > 0
    for number in range(start, stop):
        i = pairs.row + number
        a = first[i]
        own = left[i]
        for k in range(pairs.ptr[number], pairs.ptr[number + 1]):
            j = pairs.column[k]
            other = right[j]
            count = np.uint64(0)
            for w in range(words):
                count += _ones(own[w] & other[w])
            seen = np.int64(count)
            if subtracts:
                seen -= pairs.less[k]
            both[k] = seen
        for k in range(pairs.ptr[number], pairs.ptr[number + 1]):
            b, e, o = second[pairs.column[k]], np.float64(pairs.expected[k]), np.float64(both[k])
            shift = o - e
            c, d, rest = a - e, b - e, n - a - b + e
            below = shift <= 0.0 and least > 0.0
            smallest = min(c, d, rest, e)
            if not below and smallest > 1e-6 and n - a - b + o >= 0.0:
                below = 8.0 * shift * shift < least * smallest  # no division
                if not below:
                    below = 2.0 * shift * shift * (1.0 / e + 1.0 / c + 1.0 / d + 1.0 / rest) < least
            if below:
                g[k] = -np.inf
                continue
            total = _term(o, max(o, 0.0) - shift) + _term(a - o, max(a - o, 0.0) + shift)
            total += _term(b - o, max(b - o, 0.0) + shift) + _term(n - a - b + o, max(n - a - b + o, 0.0) - shift)
            g[k] = np.sign(shift) * 2.0 * max(total, 0.0)
