"""Sparse counts to tokens, a few cells at a time: from the entries of a csr matrix to the arrays of their tokens.

A cell's counts are ordered apart from their genes: only the edges of its bins need the order, and those are few. A search
among the edges then bins each different count. Positive float32 are ordered as the integers their bits make.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba.extending import intrinsic

from sae_genomics.kernels.choice import instead_of
from sae_genomics.kernels.compiled import each_range, exact_kernel, inner
from sae_genomics.kernels.plain import tokenise as plain
from sae_genomics.kernels.plain.tokenise import OUTSIDE, UNSORTED, Columns, Counts, Float32, Int64, Rules

_CELLS = 16  # a thread takes so many at a time
_CODES = 1024  # of different counts in a cell, where they are counted and not sorted


@instead_of(plain.count_expressed)
def count_expressed(counts: Counts) -> tuple[Int64, npt.NDArray[np.uint8]]:
    """How many genes of each cell become tokens, int64 [cells], and what is wrong with a cell, uint8 [cells].

    That is OUTSIDE where a column is not there, else UNSORTED where columns do not ascend, else 0. A cell with a fault has no tokens.
    """
    n_cells = len(counts.indptr) - 1
    lengths, faults = np.zeros(n_cells, dtype=np.int64), np.zeros(n_cells, dtype=np.uint8)
    has_gene = bool((counts.gene_ids >= 0).all())  # then no entry need be looked up
    each_range(n_cells, _CELLS, lambda start, stop: _count_expressed(counts, has_gene, start, stop, lengths, faults))
    return lengths, faults


@instead_of(plain.write_tokens)
def write_tokens(counts: Counts, given: Float32, rows: Int64, lengths: Int64, rules: Rules) -> tuple[Int64, Columns]:
    """The special tokens of each cell, then its expressed genes in column order; the rules stand in the plain version.

    given: float32 [n], the values where not `binning`. rows: int64 [cells], items. lengths: int64 [cells], as counted.
    Returns where the tokens of each cell begin, int64 [cells + 1], and the tokens.
    """
    item_ptr = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(np.minimum(lengths, rules.limit) + len(rules.special_ids), out=item_ptr[1:])
    dtypes = (np.int64, np.int32, np.int32, np.int32, np.float32, np.bool_, np.float32)
    columns = Columns(*(np.empty(item_ptr[-1], dtype) for dtype in dtypes))
    each_range(
        len(lengths),
        _CELLS,
        lambda start, stop: _write_cells(counts, given, rows, lengths, item_ptr, start, stop, rules, columns),
    )
    return item_ptr, columns


@exact_kernel
def _count_expressed(counts, has_gene, start, stop, lengths, faults):  # type: ignore[no-untyped-def]
    """Of the cells start to stop. has_gene: whether every column has one. lengths, faults: [cells], all 0 before, written."""
    data, columns, indptr, gene_ids = counts
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
        if has_gene:
            for i in range(len(where)):
                n += count[i] > 0
        else:
            for i in range(len(where)):
                n += (count[i] > 0) & (gene_ids[where[i]] >= 0)
        lengths[cell] = n


@exact_kernel
def _write_cells(counts, given, rows, lengths, pointers, start, stop, rules, columns):  # type: ignore[no-untyped-def]
    """Write the tokens of the cells start to stop.

    counts: in range, and ascending in each cell. pointers: int64 [cells + 1], where tokens go. columns: written.
    """
    data, entry_columns, indptr, gene_ids = counts
    special_ids, pad_value, n_raw, limit, sampling, seed, binning, levels, right = rules
    item, token, unit, position, weight, special, values = columns
    longest = 0
    for cell in range(start, stop):
        longest = max(longest, lengths[cell])
    work, spare, tally = np.empty(longest, np.uint32), np.empty(longest, np.uint32), np.empty(2 * _CODES, np.int32)
    table = np.empty(_CODES, np.float32)
    half = 1
    while 2 * half <= len(levels):
        half *= 2
    edges = np.full(2 * half, np.inf, np.float32)
    longest = longest if longest > limit else 0
    numbers, all_genes = np.empty(longest, np.uint32), np.empty(longest, np.int32)
    all_units = np.empty(longest, np.int32)
    all_weights, all_values = np.empty(longest, np.float32), np.empty(longest, np.float32)

    for cell in range(start, stop):
        n, low, high = lengths[cell], pointers[cell], pointers[cell + 1]
        item[low:high] = rows[cell]
        special[low:high] = False
        for i in range(low, high):
            position[i] = i - low
        for i in range(low, low + len(special_ids)):
            token[i], unit[i], weight[i], special[i], values[i] = special_ids[i - low], -1, 0, True, pad_value
        low += len(special_ids)
        cut = n > high - low
        if cut:
            gene, column, count, value = all_genes[:n], all_units[:n], all_weights[:n], all_values[:n]
        else:
            gene, column, count, value = token[low:high], unit[low:high], weight[low:high], values[low:high]
        first, last = indptr[cell], indptr[cell + 1]
        _gather(data[first:last], entry_columns[first:last], gene_ids, gene, column, count)
        if not binning:
            _gather_values(data[first:last], entry_columns[first:last], gene_ids, given[first:last], value)
        elif n > n_raw:
            value[:n_raw] = count[:n_raw]
            _bin(
                count[n_raw:],
                levels,
                edges,
                half,
                right,
                work[: n - n_raw],
                spare[: n - n_raw],
                tally,
                table,
                value[n_raw:],
            )
        else:
            value[:] = count
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
def _gather(data, columns, gene_ids, gene, column, count):  # type: ignore[no-untyped-def]
    """The expressed genes among a cell's entries: their ids and columns, int32 [n], and counts."""
    n = len(gene)
    if len(columns) == n:
        for i in range(n):
            gene[i] = gene_ids[columns[i]]
        count[:] = data
        column.view(np.uint32)[:] = columns
        return
    i, k = 0, 0
    while k < n:  # written each time, kept where expressed: no branch to mispredict
        gene[k], column[k], count[k] = gene_ids[columns[i]], columns[i], data[i]
        k += (count[k] > 0) & (gene[k] >= 0)
        i += 1


@inner
def _gather_values(data, columns, gene_ids, given, value):  # type: ignore[no-untyped-def]
    """The values given to the expressed genes among a cell's entries."""
    i, k = 0, 0
    while k < len(value):
        value[k] = given[i]
        k += (data[i] > 0) & (gene_ids[columns[i]] >= 0)
        i += 1


@inner
def _bin(count, levels, edges, half, right, work, spare, tally, table, value):  # type: ignore[no-untyped-def]
    """The bin of each count among these counts.

    count, value: float32 [n > 0]; work, spare: uint32 [n]; tally: int32 [2 _CODES]; table: float32 [_CODES]: their content does not matter.
    edges: float32 [2 half], infinite behind the levels; half: a power of two.
    """
    bits = count.view(np.uint32)
    least, zeros, possible = _codes(bits)
    if possible > _CODES:
        ordered = _radix_sorted(bits, work, spare, tally)
        _quantiles(ordered.view(np.float32), levels, edges)
        _bins(count, edges, half, right, spare, value)
        return
    _tally(bits, least, zeros, possible, tally)
    _expand(least, zeros, possible, tally, work)
    ordered = work.view(np.float32)
    _quantiles(ordered, levels, edges)
    first = 0
    for code in range(possible):  # the bin of each different count
        if tally[code] > 0:
            table[code] = _bin_of(ordered[first], edges, half, right)
            first += tally[code]
    for i in range(len(count)):
        value[i] = table[(bits[i] - least) >> zeros]


@inner
def _sorted(bits, work, spare, tally):  # type: ignore[no-untyped-def]
    """The integers, ascending, in one of the two arrays given.

    bits, work, spare: uint32 [n > 0]. tally: int32 [2 _CODES]; its content does not matter.
    """
    least, zeros, possible = _codes(bits)
    if possible > _CODES:
        return _radix_sorted(bits, work, spare, tally)
    _tally(bits, least, zeros, possible, tally)
    _expand(least, zeros, possible, tally, work)
    return work


@inner
def _codes(bits):  # type: ignore[no-untyped-def]
    """The least integer, the zeros that all differences end with, and how many different integers are possible given both.

    Few are possible with small counts: as float32, the last 16 bits of those below 256 are zero.
    """
    least, greatest, differing = bits[0], bits[0], np.uint32(0)
    for i in range(len(bits)):
        least, greatest = min(least, bits[i]), max(greatest, bits[i])
        differing |= bits[i] ^ bits[0]
    zeros = np.uint32(0)
    while zeros < np.uint32(31) and (differing >> zeros) & np.uint32(1) == 0:
        zeros += np.uint32(1)
    return least, zeros, np.int64((greatest - least) >> zeros) + 1


@inner
def _tally(bits, least, zeros, possible, tally):  # type: ignore[no-untyped-def]
    """How often each possible integer is there, written to the front of tally."""
    other = tally[_CODES:]  # equal neighbours, which are usual, would wait for one another
    tally[:possible] = 0
    other[:possible] = 0
    for i in range(0, len(bits) - 1, 2):
        tally[(bits[i] - least) >> zeros] += 1
        other[(bits[i + 1] - least) >> zeros] += 1
    if len(bits) % 2 == 1:
        tally[(bits[len(bits) - 1] - least) >> zeros] += 1
    for code in range(possible):
        tally[code] += other[code]


@inner
def _expand(least, zeros, possible, tally, work):  # type: ignore[no-untyped-def]
    k = 0
    for code in range(possible):
        for _ in range(tally[code]):
            work[k] = least + (np.uint32(code) << zeros)
            k += 1


@inner
def _radix_sorted(bits, work, spare, tally):  # type: ignore[no-untyped-def]
    """The integers, ascending, in one of the two arrays given: a radix sort from the lowest byte."""
    n = len(bits)
    by_byte = tally[:1024].reshape(4, 256)
    by_byte[:] = 0
    for i in range(n):
        number = bits[i]
        work[i] = number
        by_byte[0, number & np.uint32(255)] += 1
        by_byte[1, (number >> np.uint32(8)) & np.uint32(255)] += 1
        by_byte[2, (number >> np.uint32(16)) & np.uint32(255)] += 1
        by_byte[3, number >> np.uint32(24)] += 1
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
def _quantiles(ordered, levels, edges):  # type: ignore[no-untyped-def]
    """Quantiles of ordered, float32 [n > 0], at each level, written to the front of edges.

    Rounds as torch.quantile does: the rank is a float32 product, and the interpolation starts from the nearer
    neighbour and is a fused multiply-add.
    """
    last = len(ordered) - 1
    for i in range(len(levels)):
        rank = levels[i] * np.float32(last)
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
def _bin_of(count, edges, half, right):  # type: ignore[no-untyped-def]
    """The same for one count."""
    passed, step = 0, half
    while step > 0:
        edge = edges[passed + step - 1]
        passed += step * (edge <= count if right else edge < count)
        step >>= 1
    return np.float32(passed + (0 if right else 1))


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
