"""Compiled blocks against the plain ones: values, lengths, listeners, gradients, and machines that cannot compile."""

from __future__ import annotations

import dataclasses
import gc
import os
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from sae_genomics.activations.extraction.workers import Workers
from sae_genomics.config import ModelConfig
from sae_genomics.errors import UserError
from sae_genomics.items import CountItems
from sae_genomics.kernels.choice import plain_asked
from sae_genomics.models import load_model
from sae_genomics.models.base import HOOKS
from sae_genomics.models.cpu_products import use_kernels
from sae_genomics.models.tx1 import load_folder
from sae_genomics.models.tx1_compiled import compile_blocks
from sae_genomics.models.tx1_network import Layout, Tx1Network

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "tx1_parity"
NAMES = ("relu_70m_style", "gelu_chem_3b_style", "glu_post_norm")
CPU = torch.device("cpu")

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None or plain_asked("tx1_compiled"),
    reason="torch.compile needs a C++ compiler, and is left out where plain versions are asked for",
)


@pytest.fixture
def one_graph_a_part():
    """one_graph_a_part(n): that as many graphs were compiled in this test, whole ones."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # torch compiles for a number of threads

    def check(parts: int) -> None:
        assert counters["stats"]["unique_graphs"] == parts, "compiled again for another length, block or thread"
        assert not counters["graph_break"]
        assert not counters["unimplemented"]

    yield check
    torch.set_num_threads(threads)


def close(got: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    """1e-5 relative: to each element where it is not small, to the array's scale elsewhere."""
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()), msg=what)
    assert (got - expected).norm() <= 1e-5 * expected.norm(), what


def cells(model, lengths):
    counts = np.zeros((len(lengths), 120), np.float32)
    for row, length in enumerate(lengths):
        counts[row, :length] = (np.arange(length) * (row + 3)) % 7 + 1
    return model.tokenise(CountItems(np.arange(len(lengths)), csr_matrix(counts), np.arange(120)), 0)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("name", NAMES)
def test_a_loaded_model_gives_the_same(name, one_graph_a_part):
    """Every hook, batches of one token to hundreds, hidden values, functions that change a layer."""
    plain, compiled = load_folder(FIXTURES / name), load_folder(FIXTURES / name, compile=True)
    assert compiled.network.state_dict().keys() == plain.network.state_dict().keys()
    layers = range(plain.info.n_layers)
    d_model = plain.info.d_model
    for lengths in [(40, 3, 90, 1, 0, 60), (0,), (1,), (d_model - 1,), (120, 120, 120), (17,) * 9]:
        batch = cells(plain, lengths)
        masked = (np.arange(len(batch)) % 3 == 1) & (batch.token < 120)
        for hook in HOOKS:
            expected = plain.forward_layers(batch, layers, hook)
            for layer, rows in compiled.forward_layers(batch, layers, hook).items():
                close(rows, expected[layer], f"{hook} of layer {layer}, {lengths}")
            for change in (lambda x: x * 0.5, lambda x: x.mean(0).expand_as(x)):
                arguments = {"masked": masked, "hook": hook, "interventions": {1: change}}
                got, wanted = compiled.outputs(batch, **arguments), plain.outputs(batch, **arguments)
                close(got.expr_preds, wanted.expr_preds, f"predictions, {hook} changed, {lengths}")
                close(got.cell_emb, wanted.cell_emb, f"cell embeddings, {hook} changed, {lengths}")
    parts = 2 if name == "glu_post_norm" else 1
    one_graph_a_part(parts)
    torch.set_num_threads(2)  # as extraction has it
    with Workers(2) as workers:
        done = [workers.do(lambda: compiled.forward_layers(batch, layers, "resid_post")) for _ in range(4)]
    assert not any(future.exception() for future in done)
    one_graph_a_part(parts)


@pytest.fixture(scope="module")
def config():
    return load_folder(FIXTURES / "relu_70m_style").network.config


def random_network(config, **changes) -> Tx1Network:
    torch.manual_seed(0)
    network = Tx1Network(dataclasses.replace(config, **changes)).eval().requires_grad_(False)
    for name, tensor in network.named_parameters():
        if "norm" in name:
            tensor.add_(0.3 * torch.randn_like(tensor))
    return network


VARIANTS = [
    {"pre_norm": True, "use_glu": True, "activation": "quick_gelu", "kv_n_heads": 2},
    {"pre_norm": True, "use_glu": False, "activation": "silu", "rms_norm": True},
    {"pre_norm": False, "use_glu": False, "activation": "relu", "rms_norm": True},
]


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("products", ["torch", "onednn"])
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: "-".join(map(str, variant.values())))
def test_other_architectures_and_any_lengths(config, variant, products, one_graph_a_part):
    plain, compiled = random_network(config, **variant), random_network(config, **variant)
    if products == "onednn" and not use_kernels(compiled, CPU, torch.float32):
        pytest.skip("this torch has no oneDNN product")
    compile_blocks(compiled, CPU)

    @settings(max_examples=30, deadline=None)
    @given(lengths=st.lists(st.integers(1, 70), min_size=1, max_size=6), grouped=st.booleans())
    def same(lengths, grouped):
        layout = Layout(torch.tensor([0, *np.cumsum(lengths)]), CPU, grouped=grouped)
        x = torch.randn(layout.n_tokens, config.d_model)
        found: list[dict] = []
        for network in (plain, compiled):
            found.append({})

            def listen(hook, layer, rows):
                found[-1][hook, layer] = rows
                return rows

            with torch.inference_mode():
                network.encode(x.clone(), layout, None, config.n_layers, listen)
        assert found[1].keys() == found[0].keys()
        for at, rows in found[1].items():
            close(rows, found[0][at], f"{at}, {lengths}")

    same()
    one_graph_a_part(1 if variant["pre_norm"] else 2)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("name", ["relu_70m_style", "glu_post_norm"])
def test_bfloat16_is_as_near(name):
    exact = load_folder(FIXTURES / name)
    plain, compiled = (load_folder(FIXTURES / name, dtype="bfloat16", compile=each) for each in (False, True))
    batch = cells(plain, (40, 3, 90, 1, 60))
    last = exact.info.n_layers - 1
    expected, *got = (each.forward_layers(batch, [last], "resid_post")[last] for each in (exact, plain, compiled))
    errors = [float((rows.float() - expected).norm() / expected.norm()) for rows in got]
    assert got[1].dtype == torch.bfloat16
    assert errors[1] < 1.5 * errors[0]


@pytest.mark.slow
@needs_compiler
def test_gradients_flow(config):
    plain, compiled = (random_network(config, use_glu=True, pre_norm=False).requires_grad_(True) for _ in range(2))
    compile_blocks(compiled, CPU)
    layout = Layout(torch.tensor([0, 5, 20]), CPU, grouped=True)
    x = torch.randn(20, config.d_model)
    for network in (plain, compiled):
        network.encode(x, layout, None, config.n_layers).square().sum().backward()
    for (name, got), expected in zip(compiled.named_parameters(), plain.parameters(), strict=True):
        assert (got.grad is None) == (expected.grad is None)
        if got.grad is not None:
            close(got.grad, expected.grad, name)


@pytest.mark.slow
@needs_compiler
def test_the_weights_are_let_go():
    """A model must leave a GPU's memory when it is dropped, without waiting for the garbage collector."""
    model = load_folder(FIXTURES / "relu_70m_style", compile=True)
    model.forward_layers(cells(model, (40, 3)), [0, 2], "resid_post")
    weight = weakref.ref(model.network.transformer_encoder.layers[0].up_proj.weight)
    gc.disable()
    try:
        del model
        assert weight() is None
    finally:
        gc.enable()


COMPILE = """
import sys, numpy as np, torch
from scipy.sparse import csr_matrix
from sae_genomics.models.tx1 import load_folder
model = load_folder(sys.argv[1], compile=True)
counts = np.arange(1, 3 * 120 + 1, dtype=np.float32).reshape(3, 120) % 7
from sae_genomics.items import CountItems
items = CountItems(np.arange(3), csr_matrix(counts), np.arange(120))
rows = model.forward_layers(model.tokenise(items, 0), [2], "resid_post")[2]
print(torch.backends.cpu.get_cpu_capability(), float(rows.double().square().sum()))
"""


@pytest.mark.slow
@needs_compiler
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512", reason="needs two instruction sets to choose from"
)
def test_kinds_of_cpu_may_share_a_folder_of_compiled_code(tmp_path: Path) -> None:
    """Code laid out for AVX2 and run with AVX-512 ends in a corrupted heap."""
    found = []
    for limit in ("avx2", "avx512", "avx2"):
        environment = os.environ | {
            "ATEN_CPU_CAPABILITY": limit,
            "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
            "MALLOC_CHECK_": "3",
        }
        command = [sys.executable, "-c", COMPILE, str(FIXTURES / "relu_70m_style")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, f"{limit}: exit code {done.returncode}: {done.stderr[-2000:]}"
        found.append(done.stdout.split())
    assert [capability for capability, _ in found] == ["AVX2", "AVX512", "AVX2"]
    totals = [float(total) for _, total in found]
    assert totals[0] == pytest.approx(totals[1], rel=1e-5)
    assert totals[0] == totals[2]


# --- what is refused ---


def raising(error):
    def compiled(*arguments):
        raise error

    return lambda part, **options: compiled


@pytest.mark.parametrize(
    ("device", "error", "fragments"),
    [
        ("cuda", RuntimeError("Cannot find a working triton installation.\nMore at https://x"), ("Triton", "gcc")),
        ("cpu", RuntimeError("No working C++ compiler found\n\nSet TORCHDYNAMO_VERBOSE=1"), ("g++", "CXX")),
        ("cpu", RuntimeError(""), ("RuntimeError",)),
    ],
)
def test_a_machine_that_cannot_compile_is_told_in_one_line(config, monkeypatch, device, error, fragments):
    network = random_network(config)
    monkeypatch.setattr(torch, "compile", raising(error))
    with pytest.raises(UserError) as caught:
        compile_blocks(network, torch.device(device))
    message = str(caught.value)
    assert "\n" not in message
    assert "VERBOSE" not in message
    for fragment in (*fragments, "--set model.compile=false", str(error).split("\n")[0]):
        assert fragment in message


def test_lack_of_memory_is_not_taken_for_lack_of_a_compiler(config, monkeypatch):
    monkeypatch.setattr(torch, "compile", raising(torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(torch.OutOfMemoryError):
        compile_blocks(random_network(config), CPU)


def test_nothing_is_compiled_unasked(monkeypatch):
    monkeypatch.setattr(torch, "compile", raising(AssertionError("compiled")))
    model = load_model(ModelConfig(path=FIXTURES / "relu_70m_style", device="cpu"))
    assert model.forward_layers(cells(model, (3, 5)), [0], "resid_post")[0].shape == (10, 48)


@pytest.mark.slow
def test_the_stage_without_a_compiler(tmp_path):
    """The whole command: one line, exit code 2."""
    command = [sys.executable, "-m", "sae_genomics.cli"]
    options = ["--config", str(ROOT / "configs" / "demo.yaml")]
    for override in (
        f"paths.checkpoints={tmp_path / 'c'}", f"paths.results={tmp_path / 'r'}", f"paths.logs={tmp_path / 'l'}",
        "data.max_cells=20", "model.device=cpu", "model.compile=true",
    ):  # fmt: skip
        options += ["--set", override]
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    environment |= {"PATH": str(tmp_path), "CXX": "no-such-compiler", "SAE_GENOMICS_PLAIN": "0"}
    codes = []
    for stage in ("prepare", "extract"):
        done = subprocess.run(
            [*command, "stage", stage, *options],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        codes.append(done.returncode)
    assert codes == [0, 2], done.stderr
    assert "Traceback" not in done.stderr
    line = next(line for line in done.stderr.splitlines() if "model.compile" in line)
    assert "C++ compiler" in line
    assert "no-such-compiler" in line
    assert "--set model.compile=false" in line
