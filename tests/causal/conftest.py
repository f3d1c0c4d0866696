"""A toy model that can be stopped and go on, and in which the genes that each feature acts on are known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sae_genomics.models.base import FoundationModel
from sae_genomics.models.editing import Paused, Predictions
from sae_genomics.sae.load import Encoder
from sae_genomics.tokens import Tokens
from tests.associations.conftest import make_run  # noqa: F401  (a fixture)

N_FEATURES, N_PLANTED, D, N_UNITS = 12, 5, 64, 120


class Toy:
    """Feature j stands in the activations of the units reads[j]; if it is planted, it moves the predictions of the units writes[j].

    token of unit u = sum over planted j with u in writes[j] of (w_j . mean activation of the units reads[j]) + a little of everything.
    outcome `distribution`: the same number is the logit of the first id, the others' are 0.
    """

    mask_token = None
    piece_tokens = None
    why_no_loss = ""
    hidden_share = 0.3
    predicts_next = False
    info = SimpleNamespace(family="toy", name="toy", max_length=N_UNITS)

    predicted = FoundationModel.predicted

    def __init__(self, outcome: str = "value", seed: int = 0):
        self.outcome = outcome
        generator = np.random.default_rng(seed)
        order = generator.permutation(N_UNITS)
        self.reads = order[: 3 * N_FEATURES].reshape(N_FEATURES, 3)
        self.writes = generator.permutation(order[3 * N_FEATURES :])[: 6 * N_FEATURES].reshape(N_FEATURES, 6)
        basis = np.linalg.qr(generator.standard_normal((D, D)))[0]
        self.directions = basis[:N_FEATURES].astype(np.float32)
        self.noise = torch.from_numpy((0.03 * generator.standard_normal((N_UNITS, D))).astype(np.float32))
        self.reading = torch.zeros(N_FEATURES, N_UNITS)
        self.writing = torch.zeros(N_FEATURES, N_UNITS)
        for feature in range(N_FEATURES):
            self.reading[feature, self.reads[feature]] = 1
            if feature < N_PLANTED:
                self.writing[feature, self.writes[feature]] = 1

    def encoder(self) -> Encoder:
        w = torch.from_numpy(self.directions)
        return Encoder(
            "jumprelu",
            w.T.contiguous(),
            torch.zeros(N_FEATURES),
            w,
            torch.zeros(D),
            threshold=torch.full((N_FEATURES,), 0.2),
        )

    def own(self) -> np.ndarray:
        """Of planted features the units that they move, of the others as many that nothing moves: bool [features, units]."""
        own = np.zeros((N_FEATURES, N_UNITS), bool)
        for feature in range(N_FEATURES):
            own[feature, self.writes[feature]] = True
        return own

    def batch(self, n_items: int, seed: int) -> Tokens:
        generator = np.random.default_rng(seed)
        present = [np.flatnonzero(generator.random(N_UNITS) < 0.8).astype(np.int32) for _ in range(n_items)]
        unit, lengths = np.concatenate(present), np.array([len(each) for each in present])
        ptr = np.concatenate([[0], np.cumsum(lengths)])
        return Tokens(
            np.repeat(np.arange(n_items), lengths), unit, unit, np.arange(ptr[-1], dtype=np.int32) * 0,
            np.ones(ptr[-1], np.float32), np.zeros(ptr[-1], bool), ptr,
        )  # fmt: skip

    def pause(self, batch: Tokens, layer: int, hook: str, hidden=None) -> Paused:
        drawn = np.random.default_rng([7, int(batch.item[0])])
        x = 0.02 * drawn.standard_normal((len(batch), D))
        for feature in range(N_FEATURES):
            at = np.isin(batch.unit, self.reads[feature])
            x[at] += np.outer(drawn.uniform(1, 2, int(at.sum())), self.directions[feature])
        return Paused(batch, layer, hook, torch.from_numpy(x.astype(np.float32)), hidden)

    def resume(self, paused: Paused, activations=None, *, layers=(), predict=True) -> Predictions:
        x = paused.activations if activations is None else activations
        unit = torch.from_numpy(paused.batch.unit).long()
        lengths = torch.from_numpy(paused.batch.lengths)
        item = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        n = len(lengths)
        along = (x @ torch.from_numpy(self.directions).T) * self.reading[:, unit].T
        pooled = torch.zeros(n, N_FEATURES).index_add(0, item, along) / 3
        mean = torch.zeros(n, D).index_add(0, item, x) / lengths[:, None]
        value = (pooled[item] * self.writing[:, unit].T).sum(dim=1) + (mean[item] * self.noise[unit]).sum(dim=1)
        if self.outcome == "distribution":
            return Predictions(torch.nn.functional.pad(value[:, None], (0, N_UNITS - 1)), None, mean)
        return Predictions(value, None, mean)


@pytest.fixture(scope="package")
def toy() -> Toy:
    return Toy()
