"""What a processor is said to compute fast, on processors that are not this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sae_genomics import cpu
from sae_genomics.kernels import onednn, simd
from sae_genomics.kernels.choice import SWITCH

ROOT = Path(__file__).parents[2]
ZEN_2 = "flags\t\t: fpu avx avx2 fma f16c bmi1 bmi2 clwb"
ZEN_4 = f"{ZEN_2} avx512f avx512dq avx512bw avx512vl avx512_bf16"
# What makes a better processor work like one with AVX2
LESSER = dict(
    line.split("=", 1) for line in (ROOT / "scripts/avx2.env").read_text().splitlines() if not line.startswith("#")
)


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"):
        monkeypatch.delenv(name, raising=False)
    yield
    monkeypatch.undo()
    for remembered in (cpu.multiplies, cpu.say_replaced, onednn.works):
        remembered.cache_clear()


@pytest.fixture
def processor(monkeypatch, tmp_path):
    """processor(machine, line of /proc/cpuinfo): what this process takes its processor for."""

    def call(machine, line):
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: some\n{line}\n\nprocessor\t: 1\n{line}\n")
        monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "cpuinfo")
        monkeypatch.setattr(cpu.platform, "machine", lambda: machine)
        for remembered in (cpu.multiplies, onednn.works):
            remembered.cache_clear()

    return call


def environment(**settings):
    left_out = {*LESSER, SWITCH}  # plain versions ask for no instructions
    return {**{name: value for name, value in os.environ.items() if name not in left_out}, **settings}


@pytest.mark.parametrize(
    ("machine", "line", "yes"),
    [
        ("x86_64", ZEN_2, False),
        ("x86_64", ZEN_4, True),
        ("AMD64", ZEN_4, True),
        ("x86_64", f"{ZEN_2} avx512f avx512dq avx512_vnni", False),  # oneDNN would compute it there, slowly
        ("x86_64", f"{ZEN_2} avx_ne_convert avx_vnni_int8", False),  # converts, and does not multiply
        ("x86_64", f"{ZEN_2} amx_bf16", True),
        ("x86_64", ZEN_4.replace("avx512_bf16", "avx512_bf16_"), False),
        ("aarch64", "Features\t: fp asimd asimdhp i8mm bf16", True),
        ("aarch64", "Features\t: fp asimd asimdhp", False),
        ("arm64", "", False),
        ("x86_64", "", False),
        ("riscv64", "isa\t: rv64imafdc", False),
    ],
)
def test_only_processors_with_the_instructions_multiply_bfloat16(processor, monkeypatch, machine, line, yes):
    processor(machine, line)
    monkeypatch.setattr(cpu, "_works", lambda dtype, timed: True)
    assert cpu.multiplies("bfloat16") is yes
    assert cpu.compute_dtype("bfloat16", "cpu") == ("bfloat16" if yes else "float32")
    assert cpu.compute_dtype("bfloat16", "cuda") == "bfloat16"
    assert cpu.compute_dtype("float32", "cpu") == "float32"
    if not yes:
        assert not onednn.works(torch.bfloat16)


def test_no_list_of_features_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "none")
    assert cpu.features() == frozenset()
    assert cpu.compute_dtype("float16", "cpu") == "float32"


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({}, {"avx512f", "avx512bf16", "avx512_bf16", "amx_bf16"}),
        ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, set()),
        ({"ONEDNN_MAX_CPU_ISA": "avx2_vnni_2"}, set()),
        ({"DNNL_MAX_CPU_ISA": "AVX"}, set()),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, {"avx512f"}),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, {"avx512f", "avx512bf16", "avx512_bf16"}),
        ({"ONEDNN_MAX_CPU_ISA": "ALL"}, {"avx512f", "avx512bf16", "avx512_bf16", "amx_bf16"}),
        ({"ATEN_CPU_CAPABILITY": "avx2"}, set()),
        ({"ATEN_CPU_CAPABILITY": "default"}, set()),
        ({"ATEN_CPU_CAPABILITY": "avx512"}, {"avx512f", "avx512bf16", "avx512_bf16", "amx_bf16"}),
    ],
)
def test_limits_of_the_libraries_are_ours(processor, monkeypatch, settings, left):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert {name for name in ("avx512f", "avx512bf16", "avx512_bf16", "amx_bf16") if cpu.allowed(name)} == left
    assert cpu.allowed("avx2") is (settings not in ({"DNNL_MAX_CPU_ISA": "AVX"}, {"ATEN_CPU_CAPABILITY": "default"}))
    assert cpu.allowed("sse41")
    monkeypatch.setattr(cpu, "_works", lambda dtype, timed: True)
    processor("x86_64", ZEN_4)
    assert cpu.multiplies("bfloat16") is ("avx512bf16" in left)
    monkeypatch.setattr(simd.numba.config, "CPU_NAME", None)
    monkeypatch.setattr(simd.numba.config, "CPU_FEATURES", None)
    monkeypatch.setattr(simd.binding, "get_host_cpu_features", lambda: {"avx512f": True, "avx512bf16": True})
    assert simd.there("avx512f") is ("avx512f" in left)
    assert simd.there("avx512bf16") is ("avx512bf16" in left)


@pytest.mark.parametrize(
    ("machine", "trouble"), [("x86_64", "fails"), ("x86_64", "wrong"), ("aarch64", "fails"), ("aarch64", "slow")]
)
def test_a_product_that_does_not_serve_is_not_used(processor, monkeypatch, machine, trouble):
    """Whatever the processor's list says."""
    linear, clock = torch.nn.functional.linear, [0.0]

    def product(x, weight):
        low = x.dtype != torch.float32
        if trouble == "fails" and low:
            raise RuntimeError("could not create a primitive descriptor for the inner product primitive")
        clock[0] += 6.0 if trouble == "slow" and low else 1.0
        return linear(x, weight) * (1.1 if trouble == "wrong" and low else 1)

    processor(machine, ZEN_4 if machine == "x86_64" else "Features\t: asimd bf16")
    monkeypatch.setattr(torch.nn.functional, "linear", product)
    monkeypatch.setattr(cpu.time, "perf_counter", lambda: clock[0])
    assert not cpu.multiplies("bfloat16")
    trouble = None
    cpu.multiplies.cache_clear()
    assert cpu.multiplies("bfloat16")


@pytest.mark.parametrize("fails_at", [4, 1024])
def test_a_onednn_that_fails_at_a_models_sizes_is_not_used(monkeypatch, fails_at):
    product = onednn._product

    def broken(x, weight, bias):
        if bias.shape[0] == fails_at:
            raise RuntimeError("could not create a primitive descriptor")
        return product(x, weight, bias)

    monkeypatch.setattr(onednn, "_product", broken)
    onednn.works.cache_clear()
    assert not onednn.works(torch.float32)


def test_it_is_said_once(capsys):
    for _ in range(3):
        cpu.say_replaced("model.compute_dtype", "bfloat16", "float32")
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "model.compute_dtype: bfloat16 is computed in float32: this CPU has no instructions for bfloat16 products"
    )


def test_a_lesser_processor_is_believed_everywhere():
    code = (
        "import torch\n"
        "from sae_genomics import cpu\n"
        "from sae_genomics.kernels import attention, onednn\n"
        "print(cpu.compute_dtype('bfloat16', 'cpu'), onednn.available(torch.bfloat16),"
        " *(attention.takes(dtype, 64) for dtype in (torch.float32, torch.bfloat16)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(**LESSER), cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["float32", "False", "True", "False"]


def test_machine_code_for_one_processor_is_not_run_on_another(tmp_path):
    """Cluster nodes of different kinds share a home directory, and with it numba's cache."""
    (tmp_path / "twice.py").write_text(
        "import numpy as np\nfrom sae_genomics.kernels.compiled import kernel\n\n\n"
        "@kernel\ndef twice(x):\n    for i in range(len(x)):\n        x[i] *= 2\n\n\n"
        "x = np.ones(100, np.float32)\ntwice(x)\nassert (x == 2).all()\n"
        "print(sum(twice._call.stats.cache_hits.values()))\n"
    )

    def hits(**settings):
        shared = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "twice.py"],
            env=environment(**shared, **settings), cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return int(done.stdout)

    assert [hits(), hits(), hits(**LESSER), hits(**LESSER), hits()] == [0, 1, 0, 1, 1]
