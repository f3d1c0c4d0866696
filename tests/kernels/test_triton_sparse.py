"""The Triton kernels against plain PyTorch: on a GPU, or by Triton's interpreter with TRITON_INTERPRET=1."""

from __future__ import annotations

import os

import pytest
import torch

from sae_genomics.sae.torch_step import latent_gradients, spmm

pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")


@pytest.mark.parametrize(("tokens", "d_in", "d_sae", "n"), [(7, 5, 11, 40), (64, 100, 33, 500), (3, 128, 5, 0)])
def test_kernels_are_the_plain_ones(
    tokens: int, d_in: int, d_sae: int, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sae_genomics.kernels import triton_sparse

    monkeypatch.setenv("SAE_GENOMICS_TRITON", "0")
    generator = torch.Generator().manual_seed(n)
    token = torch.randint(tokens, (n,), generator=generator).sort().values.to(DEVICE)
    latent = torch.randint(d_sae, (n,), generator=generator).to(DEVICE)
    level = torch.randint(2, (n,), generator=generator).to(DEVICE)
    value = torch.randn(n, generator=generator).to(DEVICE)
    W_dec = torch.randn(d_sae, d_in, generator=generator).to(DEVICE)
    centred = torch.randn(tokens, d_in, generator=generator).to(DEVICE)
    gradient = torch.randn(2 * tokens, d_in, generator=generator).to(DEVICE)

    pointers = torch.searchsorted(token, torch.arange(tokens + 1, device=DEVICE))
    got = triton_sparse.sum_rows(pointers, latent, value, W_dec)
    torch.testing.assert_close(got, spmm(token, latent, value, tokens, W_dec), rtol=1e-5, atol=1e-5)

    wanted = latent_gradients(centred, gradient, W_dec, latent, token, level * tokens + token, value)
    ordered, order = latent.sort(stable=True)
    pointers = torch.searchsorted(ordered, torch.arange(d_sae + 1, device=DEVICE))
    rows = (level * tokens + token)[order]
    gradients = triton_sparse.latent_gradients(centred, gradient, W_dec, pointers, token[order], rows, value[order])
    for name in wanted:
        torch.testing.assert_close(gradients[name], wanted[name], rtol=1e-4, atol=1e-4)
