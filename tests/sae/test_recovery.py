"""A dictionary that is known: training finds its directions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sae_genomics.progress import Progress
from sae_genomics.sae.compare import RECOVERED_COSINE, match
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
    found = match(directions, encoder.W_dec)
    measured = evaluate(encoder, [rows[36_000:]])
    assert measured is not None
    # Matryoshka's first latents must reconstruct everything alone, so they mix directions of a dictionary without levels.
    assert found.share(RECOVERED_COSINE) >= (0.75 if architecture == "matryoshka" else 0.95)
    assert measured.fvu < 0.15
    assert 2 < measured.l0 < 4.5


def test_matching() -> None:
    """Cosines, not lengths, and signs count."""
    generator = torch.Generator().manual_seed(0)
    known, found = torch.randn(5000, 8, generator=generator), torch.randn(4500, 8, generator=generator)
    found[17] = 3 * known[4200]
    found[18] = -known[0]
    result = match(known, found)
    cosine = torch.nn.functional.cosine_similarity(known[::100, None], found[None], dim=2)
    torch.testing.assert_close(result.best[::100], cosine.amax(dim=1))
    assert float(result.best[4200]) == pytest.approx(1.0, abs=1e-6)
    assert float(result.best[0]) < 0.9999
    assert result.share(-1.0) == 1.0
    assert result.mmcs == pytest.approx(float(result.best.mean()), rel=1e-5)
