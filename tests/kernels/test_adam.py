"""Adam over rows: both versions, against torch's optimiser."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sae_genomics.kernels.adam import adam_vector
from sae_genomics.kernels.choice import KERNELS

ADAM = KERNELS["adam.adam_rows"]


@pytest.mark.parametrize("version", ["fast", "plain"])
@pytest.mark.parametrize("shape", [(0, 20), (1, 1), (300, 20)])
def test_adam_rows_is_torch_adam(version: str, shape: tuple[int, int]) -> None:
    """Rows without a gradient too: their moments fade and still move the weights, and what stands in `gradient` there is not read."""
    generator = torch.Generator().manual_seed(0)
    theirs = torch.randn(*shape, generator=generator).requires_grad_()
    rows = theirs.detach().clone().numpy()
    exp_avg, exp_avg_sq = np.zeros_like(rows), np.zeros_like(rows)
    optimizer = torch.optim.Adam([theirs], lr=3e-3)
    for step in range(1, 30):
        gradient = torch.randn(*shape, generator=generator)
        touched = torch.rand(shape[0], generator=generator) < 0.5
        indptr = np.concatenate([[0], np.cumsum(touched.numpy())])
        given = gradient.masked_fill(~touched[:, None], torch.nan).numpy()
        getattr(ADAM, version)(rows, given, exp_avg, exp_avg_sq, indptr, 0.5, 3e-3, step)
        theirs.grad = gradient.masked_fill(~touched[:, None], 0) * 0.5
        optimizer.step()
    np.testing.assert_allclose(rows, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_adam_vector_is_a_row() -> None:
    generator = np.random.default_rng(0)
    vector, gradient = (generator.standard_normal(37, dtype=np.float32) for _ in range(2))
    row, moments = vector[None].copy(), [np.zeros((1, 37), np.float32) for _ in range(4)]
    adam_vector(vector, gradient, moments[0][0], moments[1][0], 0.5, 1e-2, 1)
    ADAM.plain(row, gradient[None], *moments[2:], np.array([0, 1]), 0.5, 1e-2, 1)
    np.testing.assert_allclose(vector, row[0], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(moments[1], moments[3], rtol=1e-6)
