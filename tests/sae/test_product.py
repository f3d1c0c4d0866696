"""The encoder's product in pieces is the product."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from sae_genomics.sae.product import MIN_ROWS, linear, pieces, rows_at_once


@given(rows=st.integers(0, 20_000), columns=st.integers(1, 1 << 17))
def test_pieces_are_all_rows_in_order_and_of_few_sizes(rows, columns):
    cut = list(pieces(rows, columns))
    assert [row for piece in cut for row in (piece.start, piece.stop)][1:-1:2] == [piece.start for piece in cut[1:]]
    assert sum(piece.stop - piece.start for piece in cut) == rows
    assert all(piece.start == 0 for piece in cut[:1])
    sizes = {piece.stop - piece.start for piece in cut[:-1]}
    assert all(size & (size - 1) == 0 and MIN_ROWS <= size <= rows_at_once(columns) for size in sizes)


def test_linear_in_pieces():
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=generator) for shape in ((1001, 24), (40_000, 24), (40_000,)))
    found = torch.cat([linear(x[piece], weight, bias) for piece in pieces(len(x), len(weight))])
    expected = x.double() @ weight.double().T + bias.double()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
