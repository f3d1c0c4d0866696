"""A dictionary that is known: training finds its directions."""

from __future__ import annotations

from pathlib import Path

import pytest

from sae_genomics.progress import Progress
from sae_genomics.sae.evaluate import evaluate
from sae_genomics.sae.export import fold
from sae_genomics.sae.train import fit
from tests.sae.conftest import MemoryBatches, planted_rows
from tests.sae.test_step import spec_of


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka", "jumprelu"])
def test_planted_directions_are_found(tmp_path: Path, architecture: str) -> None:
    """64 directions in 32 dimensions, 3 a row, k = 3: nearly all have a latent at cosine >= 0.9."""
    rows, directions = planted_rows(40_000, 64, 32, 3, seed=11)
    spec = spec_of(
        32, architecture=architecture, d_sae=128, k=3, steps=2500, batch_tokens=512, lr=2e-3, dead_after_tokens=20_000
    )
    trained = fit(
        spec, MemoryBatches(rows[:36_000], 512), layer=0, normalise=True, checkpoint=tmp_path / "c" / "c.safetensors",
        fingerprint="f", open_loggers=lambda step: [], progress=Progress("train", None, "tokens"),
    )  # fmt: skip
    encoder = fold(trained.state, spec, trained.scale)
    best = (directions @ encoder.W_dec.T).amax(dim=1)
    measured = evaluate(encoder, [rows[36_000:]])
    assert measured is not None
    # Matryoshka's first latents must reconstruct everything alone, so they mix directions of a dictionary without levels.
    assert float((best >= 0.9).double().mean()) >= (0.75 if architecture == "matryoshka" else 0.95)
    assert measured.fvu < 0.15
    assert 2 < measured.l0 < 4.5
