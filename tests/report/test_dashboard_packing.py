"""Arrays and texts as the page holds them: what comes back, and how far it is from what went in."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_genomics.report.dashboard_packing import (
    Coded,
    Logs,
    Steps,
    is_long,
    packed_array,
    packed_texts,
    unpacked_array,
    unpacked_texts,
)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int16", "int32", "float32"])
@pytest.mark.parametrize("n", [0, 1, 1000])
def test_arrays_come_back_as_they_were(dtype: str, n: int) -> None:
    values = (np.random.default_rng(0).normal(size=n) * 1e4).astype(dtype)
    back = unpacked_array(packed_array(values))
    assert back.dtype == values.dtype
    assert np.array_equal(back, values)


@given(st.lists(st.floats(0, 1e30, allow_subnormal=False), min_size=1))
def test_logs_keep_their_error(numbers: list[float]) -> None:
    values = np.array([value if value > 1e-30 else 0 for value in numbers])
    back = unpacked_array(packed_array(Coded(values, Logs(500))))
    assert np.allclose(back, values, rtol=1.16 / 500, atol=0)
    assert np.array_equal(back == 0, values == 0)


def test_logs_know_no_number() -> None:
    back = unpacked_array(packed_array(Coded(np.array([np.nan, 0.0, 1.0, np.inf]), Logs(500))))
    assert np.isnan(back[[0, 3]]).all()
    assert back[1:3].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("fdr", [0.05, 0.01, 0.1, 0.2])
def test_no_q_value_changes_sides_of_the_threshold(fdr: float) -> None:
    border = math.log10(fdr)
    values = np.concatenate([border + np.linspace(-0.03, 0.03, 2001), [border, -320.0, 0.0, np.nan]])
    back = unpacked_array(packed_array(Coded(values, Steps(0.01, border=border))))
    assert np.array_equal(back < border, values < border)
    assert np.nanmax(np.abs(back - values)) <= 0.0101
    assert np.isnan(back[-1])


def test_long_lists_of_texts_are_packed() -> None:
    texts = ["</script><b>", "ä", ""] * 400
    assert is_long(texts)
    assert not is_long(texts[:3])
    assert not is_long([1] * 4000)
    packed = packed_texts(texts)
    assert "<" not in packed["data"]
    assert unpacked_texts(packed) == texts
