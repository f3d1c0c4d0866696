"""The fast step against a dense one that autograd differentiates, and against SAELens' own trainer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
from sae_lens.saes.matryoshka_batchtopk_sae import (
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
)
from sae_lens.saes.sae import TrainStepInput

from sae_genomics import cpu
from sae_genomics.config import SaeConfig
from sae_genomics.sae import encode
from sae_genomics.sae.architectures import architecture_named
from sae_genomics.sae.architectures.jumprelu import BANDWIDTH, first_threshold
from sae_genomics.sae.cpu_step import CpuStep
from sae_genomics.sae.dense_step import DenseStep
from sae_genomics.sae.schedule import learning_rate
from sae_genomics.sae.spec import Spec, make_spec
from sae_genomics.sae.state import SaeState, initial_state
from sae_genomics.sae.torch_step import TorchStep
from tests.sae.conftest import planted_rows


def spec_of(d_in: int, **sae: Any) -> Spec:
    return make_spec(SaeConfig(**sae), d_in, 10**6, seed=1)


def step_of(kind: Any, state: SaeState, spec: Spec) -> Any:
    """One implementation of the step of the spec's architecture."""
    return kind(state, spec, architecture_named(spec.architecture))


def state_of(spec: Spec, seed: int) -> SaeState:
    """Weights as after some training: decoder norms differ, encoder and decoder too."""
    state = initial_state(spec, torch.randn(spec.d_in, generator=torch.Generator().manual_seed(seed)) * 0.3, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    state.W_dec.mul_(torch.rand(spec.d_sae, 1, generator=generator) + 0.5)
    state.W_enc.add_(torch.randn(spec.d_sae, spec.d_in, generator=generator), alpha=0.1)
    state.b_enc.add_(torch.randn(spec.d_sae, generator=generator), alpha=0.1)
    return state


def dense_loss(parameters: dict[str, torch.Tensor], x: torch.Tensor, spec: Spec, dead: torch.Tensor) -> torch.Tensor:
    """The loss as step.py states it, dense, for autograd."""
    h = (x - parameters["b_dec"]) @ parameters["W_enc"].T + parameters["b_enc"]
    score = (h * parameters["W_dec"].norm(dim=1)).detach()
    chosen = torch.zeros_like(h).scatter_(1, score.topk(spec.k, dim=1).indices, 1.0)
    reconstruction = (h.relu() * chosen) @ parameters["W_dec"] + parameters["b_dec"]
    loss = (x - reconstruction).square().sum(dim=1).mean()
    if dead.any() and spec.auxk_coefficient:
        k_aux = min(spec.d_in // 2, int(dead.sum()))
        score = score.masked_fill(~dead, -torch.inf)
        chosen = torch.zeros_like(h).scatter_(1, score.topk(k_aux, dim=1).indices, 1.0)
        weight = spec.auxk_coefficient * min(1.0, int(dead.sum()) / (spec.d_in // 2))
        residual = (x - reconstruction).detach()
        loss = loss + weight * ((h * chosen) @ parameters["W_dec"] - residual).square().sum(dim=1).mean()
    return loss


@pytest.mark.parametrize("kind", [CpuStep, TorchStep])
@settings(max_examples=40, deadline=None)
@given(
    d_in=st.integers(2, 40), d_sae=st.integers(1, 700), tokens=st.integers(1, 70), k=st.integers(1, 40),
    dead_share=st.sampled_from([0.0, 0.3, 1.0]), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_gradients_are_those_of_the_dense_loss(
    kind: Any, d_in: int, d_sae: int, tokens: int, k: int, dead_share: float, seed: int
) -> None:
    spec = spec_of(d_in, d_sae=d_sae, k=min(k, d_sae), auxk_coefficient=0.5, dead_after_tokens=100)
    state = state_of(spec, seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, d_in, generator=generator)
    dead = torch.rand(d_sae, generator=generator) < dead_share
    state.tokens_since_fired[dead] = 101
    wanted = {name: tensor.double().requires_grad_() for name, tensor in state.parameters.items()}
    loss = dense_loss(wanted, x.double(), spec, dead)
    loss.backward()
    before = {name: tensor.clone() for name, tensor in state.parameters.items()}
    result = step_of(kind, state, spec)(x, lr=0.0)
    assert result.loss == pytest.approx(float(loss.detach()), rel=1e-5, abs=1e-6)
    grad_norm = float(torch.stack([tensor.grad.norm() for tensor in wanted.values()]).norm())  # type: ignore[union-attr]
    assert result.grad_norm == pytest.approx(grad_norm, rel=1e-5, abs=1e-6)
    clip = min(1.0, 1 / (grad_norm + 1e-6))
    for name in before:  # after one step from zero moments, exp_avg = 0.1 x the clipped gradient
        gradient = wanted[name].grad
        assert gradient is not None
        got = state.exp_avg[name].double() / 0.1
        torch.testing.assert_close(
            got, gradient * clip, rtol=1e-5, atol=1e-5 * clip * float(gradient.abs().max() + 1e-3)
        )
        assert torch.equal(state.parameters[name], before[name])


def saelens_twin(spec: Spec, state: SaeState) -> Any:
    """SAELens' own training SAE with the same weights."""
    common: dict[str, Any] = {
        "d_in": spec.d_in, "d_sae": spec.d_sae, "k": spec.k, "aux_loss_coefficient": spec.auxk_coefficient,
    }  # fmt: skip
    sae: Any
    if spec.architecture == "topk":
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(**common))
    elif spec.architecture == "batchtopk":
        sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**common))
    else:
        config = MatryoshkaBatchTopKTrainingSAEConfig(**common, matryoshka_widths=list(spec.widths))
        sae = MatryoshkaBatchTopKTrainingSAE(config)
    with torch.no_grad():
        sae.W_enc.copy_(state.W_enc.T)
        sae.W_dec.copy_(state.W_dec)
        sae.b_enc.copy_(state.b_enc)
        sae.b_dec.copy_(state.b_dec)
    return sae


def saelens_losses(
    sae: Any, spec: Spec, batches: list[torch.Tensor], coefficients: dict[str, float] | None = None
) -> list[float]:
    """SAETrainer._train_step, its learning rate ours: loss, clipping to norm 1, Adam, counters of silence."""
    optimizer = torch.optim.Adam(sae.parameters(), lr=spec.lr, betas=(0.9, 0.999))
    silent = torch.zeros(spec.d_sae)
    losses = []
    for number, x in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(spec, number)
        dead = silent > spec.dead_after_tokens // len(x)
        output = sae.training_forward_pass(TrainStepInput(x, coefficients or {}, dead, number, False))
        fired = output.feature_acts.bool().any(dim=0)
        silent += 1
        silent[fired] = 0
        optimizer.zero_grad()
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        optimizer.step()
        losses.append(float(output.loss.detach()))
    return losses


@pytest.mark.parametrize("kind", [CpuStep, TorchStep])
@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka"])
@pytest.mark.parametrize("dead_after_tokens", [10**9, 256 * 5])
def test_the_loss_curve_is_saelens_own(kind: Any, architecture: str, dead_after_tokens: int) -> None:
    """100 steps from the same weights on the same batches, with and without latents dying on the way."""
    spec = spec_of(
        32, architecture=architecture, d_sae=512, k=8, steps=100, batch_tokens=256, lr=2e-3, lr_warmup_steps=10,
        dead_after_tokens=dead_after_tokens, auxk_coefficient=1 / 32,
    )  # fmt: skip
    rows, _ = planted_rows(256 * 100, 256, 32, 8, seed=5)
    batches = [batch * np.sqrt(32 / 20) for batch in rows.split(256)]
    state = initial_state(spec, batches[0].mean(dim=0), 3)
    state.b_enc[:100].sub_(2.0)  # these start silent
    sae = saelens_twin(spec, state)
    theirs = saelens_losses(sae, spec, batches)
    step = step_of(kind, state, spec)
    results = [step(batch, learning_rate(spec, number)) for number, batch in enumerate(batches)]
    ours = [result.loss for result in results]
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)
    assert ours[-1] < 0.7 * ours[0]
    assert (max(result.dead for result in results) > 0) == (dead_after_tokens < 10**9)
    torch.testing.assert_close(state.W_dec, sae.W_dec.detach(), rtol=1e-2, atol=2e-3)


def test_jumprelu_is_saelens_own() -> None:
    """The same with JumpReLU: quadratic loss about L0 = k, thresholds from where the first batch puts them."""
    spec = spec_of(
        32, architecture="jumprelu", d_sae=256, k=8, steps=100, batch_tokens=256, lr=2e-3, lr_warmup_steps=10
    )
    rows, _ = planted_rows(256 * 100, 256, 32, 8, seed=5)
    batches = [batch * np.sqrt(32 / 20) for batch in rows.split(256)]
    state = initial_state(spec, batches[0].mean(dim=0), 3)
    config = JumpReLUTrainingSAEConfig(
        d_in=32, d_sae=256, jumprelu_sparsity_loss_mode="quadratic", target_l0=8, jumprelu_bandwidth=BANDWIDTH
    )
    sae: Any = JumpReLUTrainingSAE(config)
    with torch.no_grad():
        for name in ("b_enc", "b_dec", "W_dec"):
            getattr(sae, name).copy_(state.parameters[name])
        sae.W_enc.copy_(state.W_enc.T)
        sae.threshold.copy_(first_threshold(state, batches[0], 8))
    theirs = saelens_losses(sae, spec, batches, {"l0": 1.0})
    step = step_of(DenseStep, state, spec)
    results = [step(batch, learning_rate(spec, number)) for number, batch in enumerate(batches)]
    np.testing.assert_allclose([result.loss for result in results], theirs, rtol=1e-3)
    assert results[-1].mse < 0.7 * results[0].mse


@pytest.mark.parametrize("kind", [CpuStep, TorchStep])
@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
def test_bfloat16_products_change_little(kind: Any, architecture: str) -> None:
    rows, _ = planted_rows(256 * 60, 256, 32, 8, seed=5)
    batches = list((rows * np.sqrt(32 / 20)).split(256))
    ends = {}
    for dtype in ("float32", "bfloat16"):
        spec = spec_of(
            32, architecture=architecture, d_sae=512, k=8, steps=60, batch_tokens=256, lr=2e-3, compute_dtype=dtype
        )
        step = step_of(kind, initial_state(spec, batches[0].mean(dim=0), 3), spec)
        ends[dtype] = np.mean(
            [step(batch, learning_rate(spec, number)).mse for number, batch in enumerate(batches)][-10:]
        )
    assert ends["bfloat16"] == pytest.approx(ends["float32"], rel=0.01)


@pytest.mark.parametrize("there", [True, False])
def test_a_cpu_without_bfloat16_products_takes_float32s_step(
    there: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cpu.say_replaced.cache_clear()
    monkeypatch.setattr(cpu, "multiplies", lambda dtype: there)
    multiplied, linear = set(), encode.linear
    monkeypatch.setattr(encode, "linear", lambda x, *given: multiplied.add(x.dtype) or linear(x, *given))
    x = torch.randn(200, 32, generator=torch.Generator().manual_seed(0))
    spec = spec_of(32, d_sae=256, k=8, batch_tokens=200, compute_dtype="bfloat16")
    for _ in range(2):
        step = step_of(CpuStep, initial_state(spec, x.mean(dim=0), 0), spec)
        step(x, 1e-3)
    assert multiplied == {torch.bfloat16 if there else torch.float32}
    line = "sae.compute_dtype: bfloat16 is computed in float32"
    assert capsys.readouterr().err.count(line) == (0 if there else 1)
