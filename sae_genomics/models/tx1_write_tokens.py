"""The compiled part of `tokenise`: a few cells at a time, from the entries of a csr matrix to the arrays of their tokens.

A cell's counts are ordered apart from their genes: only the edges of its bins need the order, and those are few. A search
among the edges then bins each count where it stands. Positive float32 are ordered as the integers their bits make.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba.extending import intrinsic

from sae_genomics.kernels.compiled import exact_kernel, inner

UNSORTED, OUTSIDE = 1, 2


@exact_kernel
def count_expressed(data, columns, indptr, gene_ids, start, stop, lengths, faults):  # type: ignore[no-untyped-def]
    """Genes that become tokens, of the cells start to stop.

    data: float32 [n]. columns: uint32 [n]. indptr: int64 [cells + 1]. gene_ids: int32 [columns].
    lengths: int64 [cells], written.
    faults: uint8 [cells], UNSORTED or OUTSIDE written where a cell's columns are not ascending or beyond the last.
    """
    for cell in range(start, stop):
        where, count = columns[indptr[cell] : indptr[cell + 1]], data[indptr[cell] : indptr[cell + 1]]
        last, falls = np.uint32(0), 0
        for i in range(len(where)):
            last = max(last, where[i])
        if last >= np.uint32(len(gene_ids)) and len(where) > 0:
            faults[cell] = OUTSIDE
            continue
        for i in range(1, len(where)):
            falls += where[i] < where[i - 1]
        if falls > 0:
            faults[cell] = UNSORTED
            continue
        n = 0
        for i in range(len(where)):
            n += (count[i] > 0) & (gene_ids[where[i]] >= 0)
        lengths[cell] = n


@exact_kernel
def write_cells(  # type: ignore[no-untyped-def]
    data, columns, indptr, gene_ids, given, rows, lengths, pointers, start, stop,
    special_ids, pad_value, n_raw, limit, sampling, seed, binning, grades, right,
    item, token, unit, position, weight, special, values,
):  # fmt: skip
    """Write the tokens of the cells start to stop.

    data, columns, indptr, gene_ids: as above, columns ascending and in range. given: float32 [n], the values where not
    `binning`. rows: int64 [cells]. lengths: int64 [cells], as counted. pointers: int64 [cells + 1], where tokens go.
    special_ids: int32 [special tokens]. n_raw: first genes of a cell that keep their count and stay.
    limit: genes of a cell that fit. seed: uint64. grades: float32 [edges], levels of the quantiles.
    item: int64 [tokens], token, unit, position: int32, weight: float32, special: bool (all false before) and
    values: float32, written.
    """
    longest = 0
    for cell in range(start, stop):
        longest = max(longest, lengths[cell])
    work, spare, tally = np.empty(longest, np.uint32), np.empty(longest, np.uint32), np.empty(1024, np.int32)
    half = 1
    while 2 * half <= len(grades):
        half *= 2
    edges = np.full(2 * half, np.inf, np.float32)
    ramp = np.arange(len(special_ids) + min(longest, limit)).astype(np.int32)
    longest = longest if longest > limit else 0
    numbers, all_genes = np.empty(longest, np.uint32), np.empty(longest, np.int32)
    all_units = np.empty(longest, np.int32)
    all_weights, all_values = np.empty(longest, np.float32), np.empty(longest, np.float32)

    for cell in range(start, stop):
        n, low, high = lengths[cell], pointers[cell], pointers[cell + 1]
        item[low:high] = rows[cell]
        position[low:high] = ramp[: high - low]
        for i in range(low, low + len(special_ids)):
            token[i], unit[i], weight[i], special[i], values[i] = special_ids[i - low], -1, 0, True, pad_value
        low += len(special_ids)
        cut = n > high - low
        if cut:
            gene, column, count, value = all_genes[:n], all_units[:n], all_weights[:n], all_values[:n]
        else:
            gene, column, count, value = token[low:high], unit[low:high], weight[low:high], values[low:high]
        _gather(data, columns, gene_ids, given, indptr[cell], indptr[cell + 1], gene, column, count, value)
        if binning and n > n_raw:
            binned, space = count[n_raw:], spare[: n - n_raw]
            ordered = _sorted(binned.view(np.uint32), work[: n - n_raw], space, tally)
            _quantiles(ordered.view(np.float32), grades, edges)
            _bins(binned, edges, half, right, space, value[n_raw:])
        if cut and high > low:
            state = _mix(_mix(seed) ^ np.uint64(rows[cell]))
            for i in range(n):
                number = np.uint64(0)
                if sampling and i >= n_raw:
                    number = max(_mix(state ^ np.uint64(gene[i])) >> np.uint64(33), np.uint64(1))
                numbers[i] = number
            ordered = _sorted(numbers[:n], work[:n], spare[:n], tally)
            bound = ordered[high - low - 1]
            ties = 1
            while ties < high - low and ordered[high - low - 1 - ties] == bound:
                ties += 1
            for i in range(n):
                if numbers[i] < bound or (numbers[i] == bound and ties > 0):
                    ties -= numbers[i] == bound
                    token[low], unit[low], weight[low], values[low] = gene[i], column[i], count[i], value[i]
                    low += 1


@inner
def _gather(data, columns, gene_ids, given, first, last, gene, column, count, value):  # type: ignore[no-untyped-def]
    """The expressed genes among the entries first to last: their ids, columns (both int32 [n]) and numbers."""
    n = len(gene)
    where, source, ready = columns[first:last], data[first:last], given[first:last]
    if len(where) == n:
        for i in range(n):
            gene[i], count[i], value[i] = gene_ids[where[i]], source[i], ready[i]
        column.view(np.uint32)[:] = where  # apart, where it is a plain copy
        return
    i, k = 0, 0
    while k < n:  # written each time, kept where expressed: no branch to mispredict
        gene[k], column[k], count[k], value[k] = gene_ids[where[i]], where[i], source[i], ready[i]
        k += (count[k] > 0) & (gene[k] >= 0)
        i += 1


@inner
def _sorted(bits, work, spare, tally):  # type: ignore[no-untyped-def]
    """The integers, ascending, in one of the two arrays given.

    They are counted where few different ones are possible between the least and the greatest, given the zeros that all
    differences end with (so with small counts: as float32, the last 16 bits of those below 256 are zero). Otherwise a
    radix sort from the lowest byte.

    bits, work, spare: uint32 [n > 0]. tally: int32 [1024]; its content does not matter.
    """
    n = len(bits)
    least, greatest, differing = bits[0], bits[0], np.uint32(0)
    for i in range(n):
        least, greatest = min(least, bits[i]), max(greatest, bits[i])
        differing |= bits[i] ^ bits[0]
    zeros = np.uint32(0)
    while zeros < np.uint32(31) and (differing >> zeros) & np.uint32(1) == 0:
        zeros += np.uint32(1)
    possible = np.int64((greatest - least) >> zeros) + 1
    tally[:] = 0
    if possible <= len(tally):
        for i in range(n):
            tally[(bits[i] - least) >> zeros] += 1
        place = 0
        for code in range(possible):
            word = least + (np.uint32(code) << zeros)
            for _ in range(tally[code]):
                work[place] = word
                place += 1
        return work
    by_byte = tally.reshape(4, 256)
    for i in range(n):
        word = bits[i]
        work[i] = word
        by_byte[0, word & np.uint32(255)] += 1
        by_byte[1, (word >> np.uint32(8)) & np.uint32(255)] += 1
        by_byte[2, (word >> np.uint32(16)) & np.uint32(255)] += 1
        by_byte[3, word >> np.uint32(24)] += 1
    for byte in range(4):
        shift = np.uint32(8 * byte)
        free = by_byte[byte]
        if free[(bits[0] >> shift) & np.uint32(255)] == n:
            continue
        total = np.int32(0)
        for digit in range(256):
            total, free[digit] = total + free[digit], total
        for i in range(n):
            digit = (work[i] >> shift) & np.uint32(255)
            spare[free[digit]] = work[i]
            free[digit] += 1
        work, spare = spare, work
    return work


@inner
def _quantiles(ordered, grades, edges):  # type: ignore[no-untyped-def]
    """Quantiles of ordered, float32 [n > 0], at each level, written to the front of edges.

    Rounds as torch.quantile does: the rank is a float32 product, and the interpolation starts from the nearer
    neighbour and is a fused multiply-add.
    """
    last = len(ordered) - 1
    for i in range(len(grades)):
        rank = grades[i] * np.float32(last)
        below = np.int64(rank)
        weight = rank - np.float32(below)
        low, high = ordered[min(below, last)], ordered[min(below + (weight > 0), last)]
        if weight < np.float32(0.5):
            edges[i] = _fused_multiply_add(weight, high - low, low)
        else:
            edges[i] = _fused_multiply_add(weight - np.float32(1), high - low, high)


@inner
def _bins(count, edges, half, right, passed, value):  # type: ignore[no-untyped-def]
    """Left-sided: 1 + the number of edges below the count; right-sided: the number of edges not above it.

    A binary search of all counts at once, because one after the other the compiler makes it jump, and it jumps wrong.

    edges: float32 [2 half], ascending, infinite behind the last; half: a power of two. passed: uint32 [n], work space.
    """
    passed[:] = 0
    step = half
    while step > 0:
        ahead = edges[step - 1 :]
        if right:
            for i in range(len(count)):
                passed[i] += step * (ahead[passed[i]] <= count[i])
        else:
            for i in range(len(count)):
                passed[i] += step * (ahead[passed[i]] < count[i])
        step >>= 1
    first = 0 if right else 1
    for i in range(len(count)):
        value[i] = passed[i] + first


@inner
def _mix(x):  # type: ignore[no-untyped-def]
    """splitmix64 (Steele, Lea and Flood, 2014): add the golden gamma, then Stafford's mix 13."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _generate_fused_multiply_add(typing_context, a, b, c):  # type: ignore[no-untyped-def]
    """a * b + c of three float32, rounded once; on CPUs without the instruction, the C library's function."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.fma(*arguments)

    return numba.float32(numba.float32, numba.float32, numba.float32), generate


_fused_multiply_add: Any = intrinsic(_generate_fused_multiply_add)
