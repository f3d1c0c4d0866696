"""Loss recovered of any family: its own loss, special tokens anywhere, and long items read in windows."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from sae_genomics.models import FoundationModel, ModelInfo
from sae_genomics.run import Run
from sae_genomics.sae.loss_recovered import LossRecovered, loss_recovered, measure
from sae_genomics.tokens import Tokens

D_MODEL = 3


class Counting(FoundationModel):
    """Activations are (token, position, 1); the loss of a hidden token is the sum of what the next block would read of it."""

    reads = "proteins"
    hidden_share = 0.5
    loss_name = "what is left, in units"

    def __init__(self) -> None:
        self.info = ModelInfo("toy", "toy", 1, D_MODEL, 1, 64, 0, "toy")
        self.hidden: list[npt.NDArray[np.bool_]] = []

    def tokenise(self, items: Any, seed: int) -> Tokens:
        raise NotImplementedError

    def forward_layers(self, batch: Tokens, layers: Sequence[int], hook: str) -> dict[int, torch.Tensor]:
        raise NotImplementedError

    def masked_loss(
        self,
        batch: Tokens,
        hidden: npt.NDArray[np.bool_],
        hook: str,
        interventions: Mapping[int, Callable[[torch.Tensor], torch.Tensor]] | None = None,
    ) -> npt.NDArray[np.float64]:
        x = torch.from_numpy(np.stack([batch.token, batch.position, np.ones(len(batch))], axis=1)).float()
        for change in (interventions or {}).values():
            x = change(x)
        assert not hidden[batch.special].any()
        return np.where(hidden, x.sum(dim=1).numpy().astype(np.float64), 0.0)


class Stand:
    def __init__(self, replace: Callable[[torch.Tensor, npt.NDArray[np.int32]], torch.Tensor]):
        self.replace = replace

    def reconstruct(self, x: torch.Tensor, units: npt.NDArray[np.int32]) -> torch.Tensor:
        return self.replace(x, units)


def tokens() -> Tokens:
    """Items 4 and 9; item 4 is read in two windows of 5 residues that overlap by 2. <cls> and <eos> around each."""
    position = np.array([0, 1, 2, 3, 4, 5, 9, 0, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3], dtype=np.int32)
    ptr = np.array([0, 7, 14, 18])
    special = np.zeros(18, bool)
    special[[0, 6, 7, 13, 14, 17]] = True
    stored = np.ones(18, bool)
    stored[[5, 6, 7, 8]] = False  # residue 5, <eos> of the first window; <cls>, residue 4 of the second
    token = np.arange(20, 38, dtype=np.int32)
    item = np.repeat([4, 9], [14, 4])
    return Tokens(item, token, token, position, np.ones(18, np.float32), special, ptr, stored=stored)


def measured(replace: Any, seed: int, batch_tokens: int) -> LossRecovered:
    return measure(Counting(), tokens(), 0, "resid_post", Stand(replace), seed, batch_tokens)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_tokens", [1, 12, 1000])
def test_each_residue_counts_once_for_its_item(batch_tokens: int) -> None:
    batch = tokens()
    hidden_ever = np.zeros(18, bool)
    for seed in range(20):
        units: list[int] = []
        found = measured(lambda x, given, units=units: units.extend(given.tolist()) or 2 * x, seed, batch_tokens)
        assert sorted(units) == sorted(batch.token[~batch.special].tolist()), "special tokens are left as they are"
        drawn = np.random.default_rng([seed, zlib.crc32(b"sae.hidden")]).random(18)
        counted = ~batch.special & batch.stored & (drawn < 0.5)
        hidden_ever |= counted
        assert found.cells == 2
        assert found.hidden.tolist() == [counted[:14].sum(), counted[14:].sum()]
        of_token = (batch.token + batch.position + 1.0) * counted
        np.testing.assert_allclose(found.unchanged, [of_token[:14].sum(), of_token[14:].sum()])
        np.testing.assert_allclose(found.reconstructed, 2 * found.unchanged)
    assert hidden_ever.sum() == 10
    assert found.loss_name == "what is left, in units"


def test_a_checkpoint_without_its_head_leaves_the_measure_out(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Headless(Counting):
        why_no_loss = "toy has no head"

    monkeypatch.setattr("sae_genomics.sae.loss_recovered.loaded_model", lambda run, may_compile: Headless())
    assert loss_recovered(make_run(), 1, Stand(lambda x, units: x), 5) is None  # type: ignore[arg-type]
    assert "train layer 1: the loss recovered is left out: toy has no head" in capsys.readouterr().err
