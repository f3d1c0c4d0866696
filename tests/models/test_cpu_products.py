"""The kernels of a loaded model against torch's own functions, and against float64."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from sae_genomics.items import CountItems
from sae_genomics.kernels import onednn
from sae_genomics.models import cpu_products, tx1
from sae_genomics.models.cpu_products import Linear, use_kernels
from sae_genomics.models.sequences import pieces_of
from sae_genomics.models.tx1 import load_folder

FIXTURES = Path(__file__).parents[1] / "fixtures" / "tx1_parity"
CPU = torch.device("cpu")
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1.5e-2}  # of the result's norm

needs_onednn = pytest.mark.skipif(not onednn.available(torch.float32), reason="this torch has no oneDNN product")
dtypes = st.sampled_from([dtype for dtype in TOLERANCE if onednn.available(dtype)] or [torch.float32])


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    assert got.shape == expected.shape
    return float((got.double() - expected).norm() / expected.norm())


@needs_onednn
@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 300), n_in=st.integers(16, 130), n_out=st.integers(16, 130), bias=st.booleans(),
    strided=st.booleans(), dtype=dtypes, seed=st.integers(0, 1000),
)  # fmt: skip
def test_linear_is_the_product(rows, n_in, n_out, bias, strided, dtype, seed):
    torch.manual_seed(seed)
    layer = Linear(n_in, n_out, bias=bias).to(dtype).eval().requires_grad_(False)
    x = torch.randn(n_in, rows).to(dtype).T if strided else torch.randn(rows, n_in).to(dtype)
    assert use_kernels(layer, CPU, dtype)
    assert layer.onednn
    expected = F.linear(x.double(), layer.weight.double(), layer.bias.double() if bias else None)
    got = layer(x)
    assert got.dtype == dtype
    assert relative(got, expected) < TOLERANCE[dtype]


@needs_onednn
def test_narrow_layers_are_left_to_torch():
    narrow = Linear(64, 1)
    use_kernels(narrow, CPU, torch.float32)
    assert not narrow.onednn


@needs_onednn
@pytest.mark.parametrize("rows", [1, 7, 600])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_weights_give_what_the_weights_give(dtype, rows, monkeypatch):
    if not onednn.available(dtype):
        pytest.skip("this torch has no oneDNN product")
    torch.manual_seed(rows)
    layers = [Linear(48, 40, bias=bias).requires_grad_(False).to(dtype) for bias in (True, False)]
    network = torch.nn.Sequential(*layers)
    x = torch.randn(rows, 48).to(dtype)
    expected = [
        F.linear(x.double(), layer.weight.double(), None if layer.bias is None else layer.bias.double())
        for layer in layers
    ]
    names = list(network.state_dict())
    for limit, packed in ((0, False), (1 << 20, True)):
        monkeypatch.setattr(cpu_products, "PACK_BYTES", limit)
        use_kernels(network, CPU, dtype)
        assert [layer.packed is not None for layer in layers] == [packed, packed]
        for layer, result in zip(layers, expected, strict=True):
            assert relative(layer(x), result) < TOLERANCE[dtype]
    assert list(network.state_dict()) == names


def test_gradients_flow_through_a_loaded_model():
    network = load_folder(FIXTURES / "relu_70m_style").network
    layer = network.transformer_encoder.layers[0].up_proj
    x = torch.randn(5, layer.in_features, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand_as(x))


def test_weights_made_trainable_again_get_gradients():
    network = load_folder(FIXTURES / "relu_70m_style").network.requires_grad_(True)
    layer = network.transformer_encoder.layers[0].up_proj
    layer(torch.ones(3, layer.in_features)).sum().backward()
    torch.testing.assert_close(layer.weight.grad, torch.full_like(layer.weight, 3))


def test_training_keeps_torchs_functions():
    loaded = load_folder(FIXTURES / "relu_70m_style").network
    network = tx1.Tx1Network(loaded.config)
    assert not any(getattr(module, "onednn", False) for module in network.modules())
    layer = network.transformer_encoder.layers[0].up_proj
    layer(torch.randn(3, layer.in_features)).sum().backward()
    assert layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("trouble", [AttributeError, RuntimeError, TypeError, "wrong"])
def test_without_the_operator_the_model_still_runs(trouble, monkeypatch):
    def broken(x, weight, bias):
        if trouble == "wrong":
            return F.linear(x, weight, bias) + 1
        raise trouble("not in this torch")

    with monkeypatch.context() as patch:
        patch.setattr(onednn, "_product", broken)
        onednn.works.cache_clear()
        assert not onednn.available(torch.float32)
        slow = load_folder(FIXTURES / "relu_70m_style")
        onednn.works.cache_clear()
        assert not any(getattr(module, "onednn", False) for module in slow.network.modules())
        batch = cells(slow)
        without = slow.forward_layers(batch, [2], "resid_post")[2]
    onednn.works.cache_clear()
    with_it = load_folder(FIXTURES / "relu_70m_style").forward_layers(batch, [2], "resid_post")[2]
    assert relative(with_it, without.double()) < 1e-5


def cells(model, lengths=(40, 3, 90, 1, 0, 60)):
    counts = np.zeros((len(lengths), 120), np.float32)
    for row, length in enumerate(lengths):
        counts[row, :length] = np.arange(length) % 7 + 1
    return model.tokenise(CountItems(np.arange(len(lengths)), csr_matrix(counts), np.arange(120)), 0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tokens", [1, 50, 120])
def test_a_batch_in_pieces_gives_what_it_gives_whole(dtype, tokens, monkeypatch):
    model = load_folder(FIXTURES / "relu_70m_style", dtype=dtype)
    batch = cells(model)
    whole = model.forward_layers(batch, [2, 0], "mlp_out")
    monkeypatch.setattr(tx1, "tokens_at_once", lambda widest: tokens)
    assert len(pieces_of(batch.item_ptr, tokens)) > 1
    pieces = model.forward_layers(batch, [2, 0], "mlp_out")
    assert list(pieces) == [2, 0]
    for layer, rows in pieces.items():
        assert rows.dtype == whole[layer].dtype
        assert relative(rows, whole[layer].double()) < (1e-5 if dtype == "float32" else 2e-2)


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(0, 80), min_size=1, max_size=12), tokens=st.integers(1, 200))
def test_pieces_are_the_batch_in_order(model, lengths, tokens):
    batch = cells(model, lengths)
    pieces = [batch.take(np.arange(*bounds)) for bounds in pieces_of(batch.item_ptr, tokens)]
    np.testing.assert_array_equal(np.concatenate([piece.token for piece in pieces]), batch.token)
    np.testing.assert_array_equal(np.concatenate([piece.lengths for piece in pieces]), batch.lengths)
    assert all(len(piece) <= tokens or piece.n_items == 1 for piece in pieces)
    assert all(len(a) + b.lengths[0] > tokens for a, b in pairwise(pieces)), "none cut needlessly"


@pytest.fixture(scope="module")
def model():
    return load_folder(FIXTURES / "relu_70m_style")
