"""What this processor computes fast, as far as the user's own limits leave it to us.

Numbers of 16 bits are worth computing with only where the processor multiplies them itself. Elsewhere libraries convert
every number on the way, at a sixth of float32's rate, or fail in the middle of a model.

Settings that hold a library back hold us back too, so that a lesser processor can be tried on a better one:
ONEDNN_MAX_CPU_ISA, ATEN_CPU_CAPABILITY, and numba's own (`sae_genomics.kernels.simd`).
"""

from __future__ import annotations

import os
import platform
import time
from functools import cache
from pathlib import Path

from sae_genomics.progress import say

CPUINFO = Path("/proc/cpuinfo")
# Instructions that multiply numbers of 16 bits, by the names that Linux has for them. avx_ne_convert only converts.
_PRODUCTS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {"bfloat16": ("avx512_bf16", "amx_bf16"), "float16": ("avx512_fp16", "amx_fp16")},
    "aarch64": {"bfloat16": ("bf16",), "float16": ("asimdhp",)},
}
# Values of ONEDNN_MAX_CPU_ISA, the least first, and the first of them that allows an instruction set
_LIMITS = (
    "SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI", "AVX512_CORE_BF16",
    "AVX512_CORE_FP16", "AVX512_CORE_AMX", "AVX512_CORE_AMX_FP16",
)  # fmt: skip
_ALLOWED_FROM = {
    "avx2": "AVX2", "fma": "AVX2",
    "avx512bf16": "AVX512_CORE_BF16", "avx512fp16": "AVX512_CORE_FP16", "amxbf16": "AVX512_CORE_AMX",
    "amxfp16": "AVX512_CORE_AMX_FP16",
}  # fmt: skip
# On other processors than x86-64 a torch may leave such instructions unused, and is timed. A product may take so many times
# as long as float32's: with the instructions it takes half as long, without them six times as long or more.
_SLOWER = 2.0


def allowed(feature: str) -> bool:
    """Whether the environment's limits leave us an instruction set, for example avx2, avx512_bf16 or amx_bf16."""
    feature = feature.replace("_", "")
    wide = feature.startswith(("avx512", "amx"))
    if not wide and feature not in _ALLOWED_FROM:
        return True
    if os.environ.get("ATEN_CPU_CAPABILITY", "").lower() in (("default", "avx2") if wide else ("default",)):
        return False
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "")).upper()
    needed = _ALLOWED_FROM.get(feature, "AVX512_CORE")
    return limit not in _LIMITS or _LIMITS.index(limit) >= _LIMITS.index(needed)


def features() -> frozenset[str]:
    """Linux' names of what this processor has; empty where there is no such list (macOS)."""
    try:
        lines = CPUINFO.read_text(errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


@cache
def multiplies(dtype: str) -> bool:
    """Whether this processor multiplies float16 or bfloat16 itself, and torch's product of them is right and fast."""
    machine = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    wanted = _PRODUCTS.get(machine, {}).get(dtype, ())
    there = features()
    return any(name in there and allowed(name) for name in wanted) and _works(dtype, machine != "x86_64")


def _works(dtype: str, timed: bool) -> bool:
    """Try a product of a model's size beside the same in float32, and where asked to, time it."""
    import torch

    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, 512, generator=generator) for n in (256, 1024))
    low = getattr(torch, dtype)
    seconds = {low: float("inf"), torch.float32: float("inf")}
    results = {}
    try:
        with torch.inference_mode():
            for _ in range(5):
                for kind in seconds:
                    given = x.to(kind), weight.to(kind)
                    start = time.perf_counter()
                    results[kind] = torch.nn.functional.linear(*given)
                    seconds[kind] = min(seconds[kind], time.perf_counter() - start)
    except RuntimeError:  # "could not create a primitive descriptor"
        return False
    error = (results[low].float() - results[torch.float32]).norm() / results[torch.float32].norm()
    return float(error) < 2e-2 and (not timed or seconds[low] <= _SLOWER * seconds[torch.float32])


def compute_dtype(asked: str, device: str) -> str:
    """The dtype to compute in on a device (cpu, cuda, mps) where a setting asks for `asked`.

    On a CPU that does not multiply numbers of 16 bits itself, it is float32: faster, and more precise.
    """
    if device != "cpu" or asked == "float32" or multiplies(asked):
        return asked
    return "float32"


@cache
def say_replaced(setting: str, asked: str, used: str) -> None:
    """Tell, once a process, that a setting's dtype is not the one that is computed in."""
    say(f"{setting}: {asked} is computed in {used}: this CPU has no instructions for {asked} products")
