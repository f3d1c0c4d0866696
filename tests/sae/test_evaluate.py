"""Evaluation against sums written out, and Adam and the schedule against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import explained_variance_score

from sae_genomics.sae.adam import adam_tensor
from sae_genomics.sae.evaluate import evaluate, firing_rate_histogram, mean_abs_cosine
from sae_genomics.sae.load import Encoder
from sae_genomics.sae.schedule import learning_rate
from tests.sae.test_step import spec_of


def random_encoder(d_in: int, d_sae: int, k: int, seed: int) -> Encoder:
    generator = torch.Generator().manual_seed(seed)
    W_dec = torch.nn.functional.normalize(torch.randn(d_sae, d_in, generator=generator), dim=1)
    return Encoder("topk", W_dec.T.contiguous(), torch.zeros(d_sae), W_dec, torch.randn(d_in, generator=generator), k=k)


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.integers(2, 200), d_in=st.integers(2, 20), d_sae=st.integers(4, 60), block=st.integers(1, 70),
    offset=st.sampled_from([0.0, 100.0]), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_numbers_are_their_definitions(
    tokens: int, d_in: int, d_sae: int, block: int, offset: float, seed: int
) -> None:
    encoder = random_encoder(d_in, d_sae, 3, seed)
    x = torch.randn(tokens, d_in, generator=torch.Generator().manual_seed(seed)) + offset
    measured = evaluate(encoder, x.split(block))
    assert measured is not None
    hidden = (x - encoder.b_dec) @ encoder.W_enc
    features = torch.zeros_like(hidden).scatter_(1, hidden.topk(3, dim=1).indices, 1.0) * hidden.relu()
    reconstruction = (features @ encoder.W_dec + encoder.b_dec).double().numpy()
    rows = x.double().numpy()
    fvu = ((rows - reconstruction) ** 2).sum() / ((rows - rows.mean(axis=0)) ** 2).sum()
    assert measured.fvu == pytest.approx(fvu, rel=1e-4)
    explained = explained_variance_score(rows, reconstruction, multioutput="variance_weighted")
    assert measured.explained_variance == pytest.approx(explained, rel=1e-4, abs=1e-4)
    fired = (features > 0).double()
    assert measured.l0 == pytest.approx(float(fired.sum(dim=1).mean()))
    np.testing.assert_allclose(measured.firing_rate, fired.mean(dim=0).numpy())
    assert measured.dead_share == pytest.approx(float((fired.sum(dim=0) == 0).double().mean()))


def test_no_rows_and_rows_that_do_not_vary() -> None:
    encoder = random_encoder(4, 8, 2, 0)
    assert evaluate(encoder, []) is None
    measured = evaluate(encoder, [torch.ones(5, 4)])
    assert measured is not None
    assert np.isnan(measured.fvu)


@pytest.mark.parametrize("n", [1, 2, 50, 2500])
def test_decoder_cosines(n: int) -> None:
    W_dec = torch.randn(n, 6, generator=torch.Generator().manual_seed(0)) * 3
    mean, mean_max = mean_abs_cosine(W_dec)
    if n == 1:
        assert (mean, mean_max) == (0.0, 0.0)
        return
    unit = torch.nn.functional.normalize(W_dec.double(), dim=1)
    cosine = (unit @ unit.T).abs()
    above = torch.triu_indices(n, n, 1)
    assert mean == pytest.approx(float(cosine[above[0], above[1]].mean()), rel=1e-5)
    assert mean_max == pytest.approx(float(cosine.fill_diagonal_(0).amax(dim=1).mean()), rel=1e-5)


def test_every_latent_is_in_one_bin() -> None:
    histogram = firing_rate_histogram(np.array([0.0, 1e-9, 1e-3, 0.5, 1.0]))
    assert sum(histogram["counts"]) == 5
    assert histogram["counts"][0] == 2
    assert len(histogram["log10_edges"]) == len(histogram["counts"]) + 1


def test_adam_is_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    theirs = torch.randn(300, 20, generator=generator)
    tensor, exp_avg, exp_avg_sq = theirs.clone(), torch.zeros(300, 20), torch.zeros(300, 20)
    theirs.requires_grad_()
    optimizer = torch.optim.Adam([theirs], lr=3e-3)
    for step in range(1, 30):
        theirs.grad = torch.randn(300, 20, generator=generator)
        adam_tensor(tensor, theirs.grad, exp_avg, exp_avg_sq, 3e-3, step)
        optimizer.step()
    torch.testing.assert_close(tensor, theirs.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("decay", ["linear", "cosine", "none"])
def test_the_learning_rate(decay: str) -> None:
    spec = spec_of(8, d_sae=16, k=2, steps=1000, lr=1.0, lr_decay=decay, lr_warmup_steps=50, lr_decay_fraction=0.2)
    rates = [learning_rate(spec, step) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 50)
    assert rates[50:800] == [1.0] * 750
    assert np.all(np.diff(rates[:50]) > 0)
    if decay == "none":
        assert rates[-1] == 1.0
    else:
        assert np.all(np.diff(rates[800:]) < 0)
        assert 0 < rates[-1] < 0.01
        assert rates[899] == pytest.approx(0.5, abs=0.01)
