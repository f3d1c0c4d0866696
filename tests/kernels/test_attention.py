"""Both versions of attention against attention in float64 of the same numbers."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.kernels import attention as kernel
from sae_genomics.kernels import compiled, simd
from sae_genomics.kernels.choice import KERNELS, plain_asked
from sae_genomics.models.cpu_products import DotProductAttention, use_kernels
from sae_genomics.models.tx1_config import read_release
from sae_genomics.models.tx1_network import Attention, Layout

FIXTURES = Path(__file__).parents[1] / "fixtures" / "tx1_parity"
CPU = torch.device("cpu")

ATTEND = KERNELS["attention.attend"]
fast, plain = ATTEND.fast, ATTEND.plain
DTYPES = [
    pytest.param(
        dtype, marks=pytest.mark.skipif(not kernel._available(dtype), reason=f"no kernel for {dtype} on this CPU")
    )
    for dtype in (torch.float32, torch.bfloat16)
]
# shares and the result are rounded in bfloat16, scores are not
ROUNDING = {torch.float32: 2e-6, torch.bfloat16: 2**-8}
in_each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def split(qkv, n_heads, kv_n_heads):
    """One cell's q, k, v: [n_heads, length, d_head]."""
    heads = qkv.unflatten(1, (n_heads + 2 * kv_n_heads, -1)).transpose(0, 1)
    q, k, v = heads.split([n_heads, kv_n_heads, kv_n_heads])
    shared = n_heads // kv_n_heads
    return q, k.repeat_interleave(shared, 0), v.repeat_interleave(shared, 0)


def exact(qkv, ptr, n_heads, kv_n_heads):
    """Float64, and so are the scores: [heads of a cell, length, length] a cell."""
    mixed, scores = [], []
    for first, last in pairwise(ptr):
        q, k, v = split(qkv[first:last].double(), n_heads, kv_n_heads)
        scores.append(q @ k.mT / q.shape[-1] ** 0.5)
        mixed.append((scores[-1].softmax(-1) @ v).transpose(0, 1).flatten(1))
    return torch.cat(mixed), scores


def relative(got, expected):
    assert got.shape == expected.shape
    return float((got.double() - expected).norm() / expected.norm())


@in_each_dtype
@settings(max_examples=80, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 300), min_size=1, max_size=4).filter(any),
    heads=st.sampled_from([(1, 1), (3, 3), (4, 2), (3, 1)]), d_head=st.sampled_from([16, 18, 64, 80, 128]),
    largest=st.sampled_from([0.0, 0.1, 1.0, 10.0, 50.0]), seed=st.integers(0, 1000),
)  # fmt: skip
def test_it_is_attention(dtype, lengths, heads, d_head, largest, seed):
    torch.manual_seed(seed)
    n_heads, kv_n_heads = heads
    ptr = np.concatenate([[0], np.cumsum(lengths)])
    qkv = torch.randn(ptr[-1], n_heads + 2 * kv_n_heads, d_head)
    scores = exact(qkv.flatten(1), ptr, n_heads, kv_n_heads)[1]
    qkv[:, :n_heads] *= largest / max(float(score.abs().max()) for score in scores if score.numel())
    qkv = qkv.flatten(1).to(dtype)
    expected, _ = exact(qkv, ptr, n_heads, kv_n_heads)
    for attend, times in ((fast, 1), (plain, 2)):  # torch rounds more in bfloat16
        got = attend(qkv, ptr, n_heads, kv_n_heads)
        assert got.dtype == dtype
        assert relative(got, expected) < times * ROUNDING[dtype] * max(1, largest / 10)


@in_each_dtype
@pytest.mark.parametrize("length", [1, 5, 6, 7, 15, 16, 17, 63, 64, 65, 130])
def test_every_query_sees_every_key_of_its_cell_and_no_other(dtype, length):
    """Values are the key's own unit vector, so that the result is the shares."""
    torch.manual_seed(length)
    d_head = 130
    rows = torch.zeros(3 * length, 3, d_head)
    rows[:, 0] = torch.randn(3 * length, d_head)
    rows[:, 1] = torch.randn(3 * length, d_head)
    rows[torch.arange(3 * length), 2, torch.arange(length).repeat(3)] = 1
    qkv = rows.flatten(1).to(dtype)
    ptr = np.array([0, length, 2 * length, 3 * length])
    got = fast(qkv, ptr, 1, 1)
    torch.testing.assert_close(got.double(), exact(qkv, ptr, 1, 1)[0], rtol=2 * ROUNDING[dtype], atol=1e-7)


@in_each_dtype
def test_exponentials_keep_their_precision_far_from_the_largest(dtype):
    """Two keys whose scores are apart by up to 80: the smaller one's share, of the value 2^60."""
    qkv = torch.zeros(2, 3, 64)
    for apart in torch.linspace(0, 80, 400):
        qkv[0, 0, 0], qkv[1, 1, 0], qkv[1, 2, 0] = 8.0, -float(apart), 2.0**60
        rows = qkv.flatten(1).to(dtype)
        got = fast(rows, np.array([0, 2]), 1, 1)[0, 0]
        assert float(got) == pytest.approx(float(exact(rows, [0, 2], 1, 1)[0][0, 0]), rel=10 * ROUNDING[dtype])


@in_each_dtype
def test_what_is_not_finite_shows(dtype):
    torch.manual_seed(0)
    qkv = torch.randn(40, 3 * 64).to(dtype)
    ptr = np.array([0, 17, 40])
    clean = fast(qkv, ptr, 1, 1)
    for column, rows in ((0, [20]), (64, list(range(17, 40))), (128, list(range(17, 40)))):
        for value in (float("nan"), float("inf")):
            spoiled = qkv.clone()
            spoiled[20, column + 3] = value
            got = fast(spoiled, ptr, 1, 1)
            q, k, v = split(spoiled[17:].float(), 1, 1)
            torchs = F.scaled_dot_product_attention(q, k, v)[0]
            assert torch.equal(torch.isfinite(got[17:]), torch.isfinite(torchs))
            untouched = [row for row in range(40) if row not in rows]
            assert torch.equal(got[untouched], clean[untouched])


@in_each_dtype
def test_threads_and_ranges_do_not_change_the_result(dtype, monkeypatch):
    torch.manual_seed(1)
    lengths = np.random.default_rng(0).integers(0, 90, 30)
    ptr = np.concatenate([[0], np.cumsum(lengths)])
    qkv = torch.randn(ptr[-1], 4 * 32).to(dtype)
    monkeypatch.setattr(compiled, "cpu_threads", lambda: 1)
    alone = fast(qkv, ptr, 2, 1)
    monkeypatch.setattr(compiled, "cpu_threads", lambda: 4)
    monkeypatch.setattr(kernel, "_RANGE_PRODUCTS", 1)
    assert torch.equal(fast(qkv, ptr, 2, 1), alone)
    for attend in (fast, plain):
        assert attend(qkv[:0], np.array([0]), 2, 1).shape == (0, 64)


@pytest.mark.parametrize("there", [True, False])
@in_each_dtype
def test_the_network_takes_it_where_it_can(dtype, there, monkeypatch):
    """Without a mask and without gradients, on a CPU that has it; all else goes the other ways."""
    if plain_asked("attention"):
        pytest.skip("the plain version is asked for")
    monkeypatch.setattr(kernel, "_available", lambda dtype: there)
    taken = []
    attend = kernel.attend
    monkeypatch.setattr(kernel, "attend", lambda *given: taken.append(1) or attend(*given))
    torch.manual_seed(0)
    config = read_release(FIXTURES / "relu_70m_style", with_drugs=False).config
    attention = Attention(config).requires_grad_(False)
    lengths = [40, 40, 3, 170]
    layouts = [Layout(torch.tensor([0, *lengths]).cumsum(0), CPU, grouped=grouped) for grouped in (True, False)]
    x = torch.randn(sum(lengths), config.d_model)
    hidden = torch.zeros(len(x), dtype=torch.bool)
    expected = attention(x, layouts[0], None).double()
    near = 1e-5 if dtype == torch.float32 else 2e-2
    attention, x = attention.to(dtype), x.to(dtype)
    assert not taken
    use_kernels(attention, CPU, dtype)
    for layout in layouts:
        taken.clear()
        assert relative(attention(x, layout, hidden), expected) < near
        attention(x.clone().requires_grad_(), layout, None).float().sum().backward()
        assert not taken
        assert relative(attention(x, layout, None), expected) < near
        assert bool(taken) == (there and kernel.takes(dtype, attention.d_head))


@in_each_dtype
def test_heads_it_does_not_take_are_left_alone(dtype):
    assert not kernel.takes(dtype, 8)
    assert not kernel.takes(dtype, 33)
    assert not kernel.takes(torch.float16, 64)
    assert DotProductAttention().of_packed(torch.zeros(2, 192, dtype=dtype), np.array([0, 2]), 1, 1) is None


@pytest.mark.parametrize("trouble", ["features", "one feature", "setting", "wrong", "broken"])
@in_each_dtype
def test_it_is_not_there_where_it_cannot_be(dtype, trouble, monkeypatch):
    if trouble == "features":
        monkeypatch.setattr(simd.binding, "get_host_cpu_features", lambda: {"avx2": True})
    elif trouble == "one feature":
        monkeypatch.setattr(simd.binding, "get_host_cpu_features", lambda: {"avx512f": True, "avx512bf16": True})
    elif trouble == "setting":
        monkeypatch.setattr(simd.numba.config, "CPU_NAME", "generic")
        monkeypatch.setattr(simd.numba.config, "CPU_FEATURES", None)
    elif trouble == "wrong":
        monkeypatch.setattr(ATTEND, "fast", lambda qkv, *shape: qkv[:, :64] + 1)
    else:

        def attend(*given):
            raise RuntimeError("no such intrinsic")

        monkeypatch.setattr(ATTEND, "fast", attend)
    assert not kernel._available.__wrapped__(dtype)


def test_the_network_does_not_bring_the_compiler():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, sae_genomics.models.tx1_network; sys.exit('numba' in sys.modules)"]
    )
    assert done.returncode == 0
