"""Sparse products against dense ones; the Triton programs on a GPU, or by Triton's interpreter with TRITON_INTERPRET=1."""

from __future__ import annotations

import importlib.util
import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sae_genomics import kernels
from sae_genomics.kernels import triton_sparse
from sae_genomics.kernels.choice import KERNELS

SIZES = pytest.mark.parametrize(("tokens", "d_in", "d_sae", "n"), [(7, 5, 11, 40), (64, 100, 33, 500), (3, 128, 5, 0)])
TRITON = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture(
    params=[
        "plain",
        pytest.param(
            "fast",
            marks=[pytest.mark.skipif(not TRITON, reason="needs Triton")] + ([] if INTERPRETED else [pytest.mark.gpu]),
        ),
    ]
)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def entries_of(tokens: int, d_in: int, d_sae: int, n: int, version: str) -> dict[str, torch.Tensor]:
    """Random entries on the device that the version runs on, tokens ascending."""
    device = "cuda" if version == "fast" and not INTERPRETED else "cpu"
    generator = torch.Generator().manual_seed(n)
    token = torch.randint(tokens, (n,), generator=generator).sort().values
    made = {
        "token": token,
        "latent": torch.randint(d_sae, (n,), generator=generator),
        "row": torch.randint(2, (n,), generator=generator) * tokens + token,
        "value": torch.randn(n, generator=generator),
        "W_dec": torch.randn(d_sae, d_in, generator=generator),
        "centred": torch.randn(tokens, d_in, generator=generator),
        "gradient": torch.randn(2 * tokens, d_in, generator=generator),
    }
    return {name: tensor.to(device) for name, tensor in made.items()}


@SIZES
def test_spmm_is_the_dense_product(tokens: int, d_in: int, d_sae: int, n: int, version: str) -> None:
    given = entries_of(tokens, d_in, d_sae, n, version)
    kernel: Any = getattr(KERNELS["triton_sparse.spmm"], version)
    got = kernel(given["token"], given["latent"], given["value"], tokens, given["W_dec"])
    dense = torch.zeros(tokens, d_sae, device=got.device)
    dense.index_put_((given["token"], given["latent"]), given["value"], accumulate=True)
    torch.testing.assert_close(got, dense @ given["W_dec"], rtol=1e-5, atol=1e-5)


@SIZES
def test_latent_gradients_are_the_dense_ones(tokens: int, d_in: int, d_sae: int, n: int, version: str) -> None:
    given = entries_of(tokens, d_in, d_sae, n, version)
    kernel: Any = getattr(KERNELS["triton_sparse.latent_gradients"], version)
    names = ("centred", "gradient", "W_dec", "latent", "token", "row", "value")
    got = kernel(*(given[name] for name in names))
    value, slope = torch.zeros(2 * tokens, d_sae), torch.zeros(tokens, d_sae)
    cpu = {name: tensor.cpu() for name, tensor in given.items()}
    value.index_put_((cpu["row"], cpu["latent"]), cpu["value"], accumulate=True)
    slopes = (cpu["gradient"] @ cpu["W_dec"].T)[cpu["row"], cpu["latent"]]
    slope.index_put_((cpu["token"], cpu["latent"]), slopes, accumulate=True)
    wanted = {"W_enc": slope.T @ cpu["centred"], "b_enc": slope.sum(dim=0), "W_dec": value.T @ cpu["gradient"]}
    assert got.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(got[name].cpu(), wanted[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "switch", ["SAE_GENOMICS_TRITON=0", "SAE_GENOMICS_PLAIN=1", "SAE_GENOMICS_PLAIN=triton_sparse"]
)
def test_either_switch_turns_triton_off(switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = entries_of(7, 5, 11, 40, "plain")
    monkeypatch.delenv("SAE_GENOMICS_PLAIN", raising=False)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(triton_sparse, "_installed", lambda: True)
    launches: list[tuple[Any, ...]] = []
    programs = SimpleNamespace(sum_rows={(7,): lambda *arguments: launches.append(arguments)})
    monkeypatch.setattr(kernels, "triton_programs", programs, raising=False)
    arguments = given["token"], given["latent"], given["value"], 7, given["W_dec"]
    triton_sparse.spmm(*arguments)
    assert len(launches) == 1
    monkeypatch.setenv(*switch.split("="))
    triton_sparse.spmm(*arguments)
    assert len(launches) == 1
