"""The fast steps against the plain one that autograd differentiates, and all of them against SAELens' own trainer."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
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
from sae_genomics.sae.plain_step import PlainStep
from sae_genomics.sae.schedule import learning_rate
from sae_genomics.sae.spec import Spec, make_spec
from sae_genomics.sae.state import SaeState, initial_state
from sae_genomics.sae.step import auxk_size
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


def in_double(state: SaeState) -> SaeState:
    """A copy whose weights and moments are float64."""
    copies = {
        name: tensor.double() if tensor.is_floating_point() else tensor.clone()
        for name, tensor in state.tensors().items()
    }
    return SaeState.from_tensors(copies, state.batch_threshold, state.step, state.threshold_updates)


def choice_is_clear(state: SaeState, x: torch.Tensor, spec: Spec) -> bool:
    """Whether float32's rounding cannot change which latents are chosen, or which of them are active."""
    score = ((x - state.b_dec) @ state.W_enc.T + state.b_enc) * state.W_dec.norm(dim=1)
    dead = state.tokens_since_fired > spec.dead_after_tokens
    per_token = spec.architecture == "topk"
    choices = [
        (score if per_token else score.reshape(1, -1), spec.k if per_token else spec.k * len(x)),
        (score[:, dead], auxk_size(spec, int(dead.sum()))[0]),
    ]
    gaps = [score.abs().min()]
    for among, k in choices:
        if 0 < k < among.shape[1]:
            largest = among.topk(k + 1, dim=1).values
            gaps.append((largest[:, k - 1] - largest[:, k]).min())
    return float(torch.stack(gaps).min()) > 3e-6


@pytest.mark.parametrize("kind", [CpuStep, TorchStep])
@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka"])
@settings(max_examples=25, deadline=None)
@given(
    d_in=st.integers(2, 40), d_sae=st.integers(1, 700), tokens=st.integers(1, 70), k=st.integers(1, 40),
    dead_share=st.sampled_from([0.0, 0.3, 1.0]), lr=st.sampled_from([0.0, 1e-3]), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_a_step_is_the_plain_one(
    kind: Any, architecture: str, d_in: int, d_sae: int, tokens: int, k: int, dead_share: float, lr: float, seed: int
) -> None:
    """Every number that a step measures, gradient by gradient, the counters and the update, against float64."""
    spec = spec_of(
        d_in, architecture=architecture, d_sae=d_sae, k=min(k, d_sae), auxk_coefficient=0.5, dead_after_tokens=100
    )
    state = state_of(spec, seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, d_in, generator=generator)
    state.tokens_since_fired[torch.rand(d_sae, generator=generator) < dead_share] = 101
    wanted = in_double(state)
    assume(choice_is_clear(wanted, x.double(), spec))
    before = {name: tensor.clone() for name, tensor in state.parameters.items()}
    expected = step_of(PlainStep, wanted, spec)(x.double(), lr)
    result = step_of(kind, state, spec)(x, lr)
    for name, number in asdict(expected).items():
        assert getattr(result, name) == pytest.approx(number, rel=1e-5, abs=1e-6), name
    assert torch.equal(state.tokens_since_fired, wanted.tokens_since_fired)
    assert state.batch_threshold == pytest.approx(wanted.batch_threshold, rel=1e-5, abs=1e-7)
    assert (state.step, state.threshold_updates) == (wanted.step, wanted.threshold_updates)
    for name in before:  # after one step from zero moments, exp_avg = 0.1 x the clipped gradient
        gradient, clip = wanted.exp_avg[name], min(1.0, 1 / (expected.grad_norm + 1e-6))
        torch.testing.assert_close(
            state.exp_avg[name].double(), gradient, rtol=1e-5, atol=3e-5 * (float(gradient.abs().max()) + 1e-4 * clip)
        )
        moved = wanted.parameters[name] - before[name].double()
        # Adam divides by the gradient's size: where that is rounding alone, so is the direction
        sure = (gradient.abs() > 1e-3 * gradient.abs().max()) & (gradient.abs() > 1e-6)
        torch.testing.assert_close(
            state.parameters[name].double()[sure] - before[name].double()[sure], moved[sure], rtol=1e-2, atol=1e-6
        )
        if lr == 0:
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


@pytest.mark.parametrize("kind", [CpuStep, TorchStep, PlainStep])
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
