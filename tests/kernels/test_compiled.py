"""Kernels run where nothing can be cached, and spread the same work over any number of threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from sae_genomics.config import SaeConfig
from sae_genomics.kernels import compiled
from sae_genomics.kernels.select import above, top_k
from sae_genomics.kernels.sparse import Entries, decode
from sae_genomics.sae.architectures import architecture_named
from sae_genomics.sae.cpu_step import CpuStep
from sae_genomics.sae.spec import make_spec
from sae_genomics.sae.state import initial_state

ROOT = Path(__file__).parents[2]


def double(values):  # type: ignore[no-untyped-def]
    for i in range(len(values)):
        values[i] *= 2


def test_a_full_disk_does_not_stop_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core import caching

    def no_space(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.FunctionCache, "_save_overload", no_space)
    values = np.ones(3)
    compiled.kernel(double)(values)
    assert values.tolist() == [2, 2, 2]


def test_no_folder_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core import caching

    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    values = np.ones(3)
    compiled.kernel(double)(values)
    assert values.tolist() == [2, 2, 2]


def test_a_changed_part_of_a_kernel_is_compiled_again(tmp_path: Path) -> None:
    """The kernel's own file stays as it is, and so does its machine code on disk, which is out of date."""
    (tmp_path / "whole.py").write_text(
        "from part import part\nfrom sae_genomics.kernels.compiled import inner, kernel\n\n\n"
        "@inner\ndef between(x):\n    return part(x)\n\n\n@kernel\ndef whole(x):\n    return between(x)\n"
    )
    found = []
    for added in (1, 10, None):
        if added is not None:
            (tmp_path / "part.py").write_text(
                f"from sae_genomics.kernels.compiled import inner\n\n\n@inner\ndef part(x):\n    return x + {added}\n"
            )
        done = subprocess.run(
            [sys.executable, "-c", "from whole import whole; print(whole(0), len(whole._call.stats.cache_hits))"],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        found.append(tuple(map(int, done.stdout.split())))
    assert found == [(1, 0), (10, 0), (10, 1)]


@pytest.mark.parametrize("threads", [1, 3])
def test_every_row_once(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "cpu_threads", lambda: threads)
    seen, lock = [], threading.Lock()

    def work(start: int, stop: int) -> None:
        with lock:
            seen.append((start, stop))

    compiled.each_range(25, 10, work)
    assert sorted(seen) == [(0, 10), (10, 20), (20, 25)]
    compiled.each_range(0, 10, work)
    assert len(seen) == 3

    def broken(start: int, stop: int) -> None:
        if start == 20:
            raise KeyError("here")

    with pytest.raises(KeyError):
        compiled.each_range(25, 10, broken)


def test_our_kernels_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the matrix product may, so it is held to one thread here."""
    torch.set_num_threads(1)
    spec = make_spec(SaeConfig(d_sae=600, k=8, auxk_coefficient=0.1, dead_after_tokens=100), 32, 10**6, 0)
    x = torch.randn(300, 32, generator=torch.Generator().manual_seed(0))
    ends = []
    for threads in (1, 3):
        monkeypatch.setattr(compiled, "cpu_threads", lambda threads=threads: threads)
        step = CpuStep(initial_state(spec, x.mean(dim=0), 0), spec, architecture_named(spec.architecture))
        results = [step(x, 1e-3) for _ in range(5)]
        ends.append((results, step.state.tensors()))
    assert ends[0][0] == ends[1][0]
    assert all(torch.equal(ends[0][1][name], ends[1][1][name]) for name in ends[0][1])


def test_results_do_not_depend_on_how_rows_are_cut(monkeypatch):
    rng = np.random.default_rng(4)
    hidden, weight = rng.standard_normal((200, 24), dtype=np.float32), np.ones(24, np.float32)
    decoder, bias = rng.standard_normal((24, 8), dtype=np.float32), np.zeros(8, np.float32)
    target = rng.standard_normal((200, 8), dtype=np.float32)

    def results():
        indices, values = np.empty((200, 3), np.int32), np.empty((200, 3), np.float32)
        top_k(hidden, weight, 3, indices, values)
        entries = Entries(np.arange(201) * 3, indices.ravel(), values.ravel())
        return [indices, values, *above(hidden, weight), *decode(target, bias, decoder, entries, np.array([24]))]

    whole = results()
    assert compiled.rows_at_once(24) > 200
    monkeypatch.setattr(compiled, "_RANGE_NUMBERS", 1)
    assert compiled.rows_at_once(24) == 16
    for one, other in zip(whole, results(), strict=True):
        np.testing.assert_array_equal(one, other)
