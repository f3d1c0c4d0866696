"""oneDNN's product against torch's own, of plain and of packed weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.kernels import onednn
from sae_genomics.kernels.choice import KERNELS

PRODUCT = KERNELS["onednn.product"]
ROUNDING = {torch.float32: 2e-6, torch.bfloat16: 2**-7}
dtypes = st.sampled_from([dtype for dtype in ROUNDING if onednn.works(dtype)] or [torch.float32])


@pytest.mark.skipif(not onednn.works(torch.float32), reason="this torch has no oneDNN product")
@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 300), n_in=st.integers(1, 130), n_out=st.integers(1, 130), has_bias=st.booleans(),
    is_packed=st.booleans(), dtype=dtypes, seed=st.integers(0, 1000),
)  # fmt: skip
def test_both_products_are_the_product(rows, n_in, n_out, has_bias, is_packed, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    x, weight, bias = (
        torch.randn(shape, generator=generator).to(dtype) for shape in ((rows, n_in), (n_out, n_in), n_out)
    )
    bias = bias if has_bias else None
    expected = x.double() @ weight.double().T + (bias.double() if has_bias else 0)
    plain = PRODUCT.plain(x, weight, bias)
    fast = PRODUCT.fast(x, onednn.packed(weight, rows) if is_packed and rows else weight, bias)
    for got in (plain, fast):
        assert got.dtype == dtype
        size = x.double().abs() @ weight.double().abs().T + 1  # a bias may be added after rounding
        near = ROUNDING[dtype] * (size + (bias.double().abs() if has_bias else 0))
        assert bool(((got.double() - expected).abs() <= near).all())


def test_the_switch_turns_it_off(monkeypatch):
    for value in ("1", "onednn"):
        monkeypatch.setenv("SAE_GENOMICS_PLAIN", value)
        assert not onednn.available(torch.float32)
