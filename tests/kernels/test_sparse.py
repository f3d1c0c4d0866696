"""Decoding, sorting and gradients of active entries: both versions, and dense products."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_genomics.kernels.choice import KERNELS
from sae_genomics.kernels.sparse import Entries, LatentEntries, _decode_rows

DECODE, BY_LATENT, GRADIENTS = (KERNELS[f"sparse.{name}"] for name in ("decode", "by_latent", "latent_gradients"))
VERSIONS = pytest.mark.parametrize("version", ["fast", "plain"])


def random_entries(generator: np.random.Generator, tokens: int, d_sae: int, most: int) -> tuple[Entries, Any]:
    """Entries of up to `most` latents a token, values of both signs; and the same as a dense matrix."""
    counts = generator.integers(0, min(most, d_sae) + 1, tokens)
    chosen = [np.sort(generator.choice(d_sae, count, replace=False)) for count in counts]
    indices = np.concatenate([*chosen, np.empty(0, np.int64)]).astype(np.int32)
    values = generator.standard_normal(len(indices), dtype=np.float32)
    entries = Entries(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), indices, values)
    return entries, dense_of(entries, d_sae)


def dense_of(entries: Entries, d_sae: int) -> npt.NDArray[np.float32]:
    dense = np.zeros((len(entries.indptr) - 1, d_sae), np.float32)
    dense[np.repeat(np.arange(len(dense)), np.diff(entries.indptr)), entries.indices] = entries.values
    return dense


SIZES = {
    "tokens": st.integers(0, 50), "d_in": st.integers(1, 40), "d_sae": st.integers(1, 400), "most": st.integers(0, 20),
    "seed": st.integers(0, 10**6),
}  # fmt: skip


@VERSIONS
@settings(max_examples=40, deadline=None)
@given(**SIZES, levels=st.integers(1, 4))
def test_decode(version: str, tokens: int, d_in: int, d_sae: int, most: int, levels: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    entries, dense = random_entries(generator, tokens, d_sae, most)
    x, W_dec = (generator.standard_normal((n, d_in), dtype=np.float32) for n in (tokens, d_sae))
    bias = generator.standard_normal(d_in, dtype=np.float32)
    widths = np.sort(generator.integers(1, d_sae + 1, levels)).astype(np.int64)
    widths[-1] = d_sae
    error, squared = getattr(DECODE, version)(x, bias, W_dec, entries, widths)
    assert (error.dtype, error.shape, squared.shape) == (np.float32, (levels, tokens, d_in), (levels, tokens))
    for level, width in enumerate(widths):
        wanted = dense[:, :width] @ W_dec[:width] + bias - x
        np.testing.assert_allclose(error[level], wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(squared[level], np.square(wanted).sum(axis=1), rtol=1e-5, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(**SIZES, aux=st.booleans())
def test_by_latent(tokens: int, d_in: int, d_sae: int, most: int, aux: bool, seed: int) -> None:
    generator = np.random.default_rng(seed)
    entries, _ = random_entries(generator, tokens, d_sae, most)
    first_row = (generator.integers(0, 3, d_sae) * tokens).astype(np.int32)
    parts = [(entries, first_row, False)]
    if aux:
        parts.append((random_entries(generator, tokens, d_sae, most)[0], np.full(d_sae, 3 * tokens, np.int32), True))
    fast, plain = BY_LATENT.fast(parts, d_sae), BY_LATENT.plain(parts, d_sae)
    for name in LatentEntries._fields:
        got = getattr(fast, name)
        assert got.dtype == getattr(plain, name).dtype
        np.testing.assert_array_equal(got, getattr(plain, name))
    latent = np.repeat(np.arange(d_sae), np.diff(fast.indptr))
    kept = [signed | (part.values > 0) for part, _, signed in parts]
    assert len(latent) == sum(int(keep.sum()) for keep in kept)
    dense = dense_of(entries, d_sae)
    of_first = fast.rows < 3 * tokens
    np.testing.assert_array_equal(fast.values[of_first], dense[fast.tokens[of_first], latent[of_first]])
    np.testing.assert_array_equal(fast.rows[of_first], (first_row[latent] + fast.tokens)[of_first])


@VERSIONS
@settings(max_examples=40, deadline=None)
@given(**SIZES)
def test_latent_gradients(version: str, tokens: int, d_in: int, d_sae: int, most: int, seed: int) -> None:
    """Also: what stands in the rows of latents without an entry is not touched."""
    generator = np.random.default_rng(seed)
    entries, _ = random_entries(generator, tokens, d_sae, most)
    level = generator.integers(0, 2, d_sae).astype(np.int32)
    by_latent = BY_LATENT.plain([(entries, level * np.int32(tokens), True)], d_sae)
    centred = generator.standard_normal((tokens, d_in), dtype=np.float32)
    gradient = generator.standard_normal((2 * tokens, d_in), dtype=np.float32)
    W_enc, W_dec = (generator.standard_normal((d_sae, d_in), dtype=np.float32) for _ in range(2))
    grad_enc, grad_dec = np.full((d_sae, d_in), 7, np.float32), np.full((d_sae, d_in), 8, np.float32)
    grad_b_enc = np.full(d_sae, 9, np.float32)
    of_input, squared = getattr(GRADIENTS, version)(
        centred, gradient, W_enc, W_dec, by_latent, grad_enc, grad_dec, grad_b_enc
    )

    token = np.repeat(np.arange(tokens), np.diff(entries.indptr))
    row = level[entries.indices] * tokens + token
    value, slope = np.zeros((2 * tokens, d_sae)), np.zeros((tokens, d_sae))
    value[row, entries.indices] = entries.values
    slope[token, entries.indices] = (gradient @ W_dec.T.astype(np.float64))[row, entries.indices]
    used = np.diff(by_latent.indptr) > 0
    for got, wanted, before in ((grad_enc, slope.T @ centred, 7), (grad_dec, value.T @ gradient, 8)):
        np.testing.assert_allclose(got[used], wanted[used], rtol=1e-4, atol=1e-4)
        assert (got[~used] == before).all()
    np.testing.assert_allclose(grad_b_enc, slope.sum(axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(of_input, slope.sum(axis=0) @ W_enc, rtol=1e-3, atol=1e-3)
    wanted = sum(np.square(part[used].astype(np.float64)).sum() for part in (grad_enc, grad_dec, grad_b_enc))
    assert squared == pytest.approx(wanted, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("d_in", [24, 40])
def test_norms_do_not_depend_on_where_the_errors_lie(d_in: int) -> None:
    """The errors right behind the memory in which the kernel adds up a row: it takes the piece that was freed last."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t],
        [ctypes.c_void_p],
    )
    generator = np.random.default_rng(0)
    x, W_dec = (generator.standard_normal((n, d_in), dtype=np.float32) for n in (1, 200))
    entries = Entries(np.array([0, 2]), np.array([3, 90], np.int32), generator.standard_normal(2, dtype=np.float32))
    squared = np.empty((1, 1), np.float32)

    def norm(error: npt.NDArray[np.float32]) -> float:
        _decode_rows(x, np.zeros(d_in, np.float32), W_dec, entries, np.array([200]), 0, 1, error, squared)
        return float(squared[0, 0])

    wanted = norm(np.empty((1, 1, d_in), np.float32))
    for size in range(4 * d_in, 4 * d_in + 160, 16):
        pieces = [libc.malloc(size) for _ in range(64)]
        for i in range(40, 63):
            if 0 < pieces[i + 1] - pieces[i] < size + 32:
                memory = (ctypes.c_char * (4 * d_in)).from_address(pieces[i + 1])
                libc.free(pieces[i])
                found = norm(np.frombuffer(memoryview(memory), np.float32).reshape(1, 1, d_in))
                pieces[i] = libc.malloc(size)
                assert found == wanted
                break
        for piece in pieces:
            libc.free(piece)
