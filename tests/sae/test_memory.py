"""The estimate of what training takes, and the number of layers that follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sae_genomics.config import SaeConfig
from sae_genomics.run import Run
from sae_genomics.sae import memory
from sae_genomics.sae.architectures import architecture_named
from sae_genomics.sae.dense_step import DenseStep
from sae_genomics.sae.memory import host_memory, layers_at_once, model_bytes, training_needs
from sae_genomics.sae.spec import Spec, make_spec
from sae_genomics.sae.state import initial_state
from sae_genomics.sae.torch_step import TorchStep

GIB = 1 << 30


def spec_of(d_in: int = 512, **settings: Any) -> Spec:
    return make_spec(SaeConfig(**settings), d_in, 10**9, 0)


@given(
    d_in=st.integers(8, 4096),
    d_sae=st.integers(64, 1 << 17),
    k=st.integers(1, 64),
    rows=st.integers(1, 1 << 15),
)
def test_more_of_anything_takes_more(d_in: int, d_sae: int, k: int, rows: int) -> None:
    spec = spec_of(d_in, d_sae=d_sae, k=k, batch_tokens=rows)
    needs = training_needs(spec, 2 * d_in)
    weights = 4 * (2 * d_sae * d_in + d_sae + d_in)
    assert needs.device > 6 * weights  # weights, moments, gradients, and temporaries as large as the weights
    assert needs.host > 3 * weights
    for larger in (
        replace(spec, d_in=2 * d_in),
        replace(spec, d_sae=2 * d_sae, widths=(2 * d_sae,)),
        replace(spec, batch_rows=2 * rows),
        replace(spec, k=2 * k),
        replace(spec, architecture="jumprelu"),
        replace(spec, compute_dtype="bfloat16"),
    ):
        assert training_needs(larger, 2 * d_in).device >= needs.device
    assert training_needs(spec, 4 * d_in).host >= needs.host


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that torch's allocator had given out during work() at any moment, beyond what it had before."""
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        work()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return int(np.cumsum([0, *changes]).max())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"compute_dtype": "bfloat16"},
        {"architecture": "batchtopk"},
        {"architecture": "matryoshka"},
        {"architecture": "jumprelu"},
        {"d_sae": 16384, "batch_tokens": 128},
    ],
)
def test_steps_take_no_more_than_estimated(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    """On a CPU, which the same operations run on: steps of the CUDA path, dead latents taking part."""
    monkeypatch.setattr(memory.triton_sparse, "GATHER_ELEMENTS", 1 << 20)
    monkeypatch.setattr(memory, "_CONTEXT_BYTES", 0)
    monkeypatch.setattr(memory.load, "HIDDEN_ELEMENTS", 0)  # no evaluation here
    spec = spec_of(96, **{"d_sae": 4096, "k": 32, "batch_tokens": 1024, "dead_after_tokens": 1500, **settings})
    state = initial_state(spec, torch.zeros(96), 0)
    architecture = architecture_named(spec.architecture)
    step = DenseStep(state, spec, architecture) if architecture.dense else TorchStep(state, spec, architecture)
    rows = torch.randn(spec.batch_rows, 96, generator=torch.Generator().manual_seed(0))
    dead = [step(rows, 1e-3).dead for _ in range(spec.dead_after_tokens // spec.batch_rows + 1)]
    held = sum(tensor.nbytes for tensor in state.tensors().values())
    taken = held + peak_bytes(lambda: dead.append(step(rows, 1e-3).dead))
    assert dead[-1] > 0 or spec.architecture == "jumprelu"
    estimate = training_needs(spec, 400).device
    assert taken <= estimate <= 3 * taken


class Cuda:
    """A GPU with so much free memory, as far as the estimate asks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: int, host: int = 1 << 50):
        monkeypatch.setattr(memory, "pick_device", lambda name: torch.device("cuda"))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
        monkeypatch.setattr(memory, "host_memory", lambda: host)


def test_as_many_as_fit(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(layers=tuple(range(8)), d_sae=4096, k=16, batch_tokens=512)
    needs = training_needs(make_spec(run.config.sae, 16, 512, 0), 16 * 4)
    for free, count in ((0, 1), (needs.device, 1), (3 * needs.device - 1, 2), (3 * needs.device, 3), (1 << 50, 8)):
        Cuda(monkeypatch, free)
        assert layers_at_once(run, 8) == count
    Cuda(monkeypatch, 1 << 50, host=3 * GIB + 2 * needs.host)
    assert layers_at_once(run, 8) == 2
    with_model = make_run(name="model", layers=(0, 1), d_sae=4096, k=16, batch_tokens=512, loss_recovered_cells=4)
    assert model_bytes(with_model) > model_bytes(run) == 0
    Cuda(monkeypatch, 2 * needs.device)
    assert layers_at_once(with_model, 2) == 1


def test_what_the_config_says_goes_first(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    assert layers_at_once(make_run(layers=(0, 1, 2)), 3) == 1  # a CPU
    run = make_run(layers=(0, 1, 2), layers_at_once=2)
    assert layers_at_once(run, 3) == 2
    Cuda(monkeypatch, 0)
    assert layers_at_once(run, 3) == 2


def test_settings_that_do_not_fit_are_left_to_the_task(make_run: Callable[..., Run]) -> None:
    assert layers_at_once(make_run(d_sae=None, expansion=0.1, k=4), 2) == 1
    if not torch.cuda.is_available():
        assert layers_at_once(make_run(device="cuda"), 2) == 1


def test_memory_that_slurm_allots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "2048")
    assert host_memory() == 2 * GIB
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "0")
    whole = host_memory()
    monkeypatch.delenv("SLURM_MEM_PER_NODE")
    assert host_memory() == whole > GIB // 4
