"""Genes deleted and raised: a planted feature that reads a gene changes what deleting the gene changes; random genes do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from sae_genomics.artifacts.steering import CAUSAL_GENES
from sae_genomics.causal.knockout import nearest_values, write_knockout
from sae_genomics.causal.samples import Sample
from sae_genomics.errors import UserError
from sae_genomics.tokens import Tokens
from tests.causal.toy_run import ToyModel, encoder_of, tokens_of, toy_run

N_UNITS, D, N_ITEMS, GENE = 60, 80, 60, 7


class Wired(ToyModel):
    """Every gene has a direction of its own; each predicted value is a sum over the genes of the cell."""

    def __init__(self) -> None:
        super().__init__(D)
        generator = np.random.default_rng(3)
        self.directions = np.linalg.qr(generator.standard_normal((D, D)))[0][:N_UNITS].astype(np.float32)
        self.effect = generator.standard_normal((N_UNITS, N_UNITS)).astype(np.float32)

    def weigh(self, batch: Tokens) -> torch.Tensor:
        return torch.from_numpy(batch.per_token["value"][:, None] * self.directions[batch.unit])

    def predict(self, batch: Tokens, x: torch.Tensor) -> torch.Tensor:
        item = torch.repeat_interleave(torch.arange(batch.n_items), torch.from_numpy(batch.lengths))
        read = torch.zeros(batch.n_items, N_UNITS).index_add(0, item, x @ torch.from_numpy(self.directions).T)
        return (
            (read @ torch.from_numpy(self.effect))[item]
            * torch.nn.functional.one_hot(torch.from_numpy(batch.unit).long(), N_UNITS)
        ).sum(dim=1)


def cells() -> tuple[Tokens, pd.DataFrame]:
    generator = np.random.default_rng(4)
    units = [np.flatnonzero(generator.random(N_UNITS) < 0.8) for _ in range(N_ITEMS)]
    values = [generator.integers(1, 10, len(each)).astype(float) for each in units]
    items = pd.DataFrame({"label": "A", "heldout": np.arange(N_ITEMS) % 2 == 0, "group": None})
    return tokens_of(units, values), items


def edited(monkeypatch: pytest.MonkeyPatch, folder: Path, model: Any, **settings: Any) -> pd.DataFrame:
    tokens, items = cells()
    run = toy_run(monkeypatch, folder, tokens, items, N_UNITS, **settings)
    write_knockout(run, 0, model, encoder_of(Wired().directions[[GENE, 20]]))
    return CAUSAL_GENES.read(folder / CAUSAL_GENES.file)


def test_deleting_a_gene_changes_what_ablating_its_feature_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table = edited(monkeypatch, tmp_path, Wired(), knockout_genes=["G7"]).set_index("edit")
    deleted, raised = table.loc["knock_out"], table.loc["over_express"]
    assert (deleted["feature"], deleted["unit"], deleted["unit_name"]) == (0, GENE, "G7")
    assert deleted["share_on_unit"] == pytest.approx(1.0)
    assert deleted["correlation"] == pytest.approx(1.0, abs=1e-4)
    assert deleted["effect"] == pytest.approx(deleted["effect_feature"], rel=1e-3)
    assert deleted["p_correlation"] == pytest.approx(1 / 21)
    assert abs(deleted["correlation_random"]) < 0.3
    assert raised["correlation"] == pytest.approx(-1.0, abs=1e-4)  # more of it, not less
    assert raised["p_correlation"] == 1.0


def test_features_that_read_one_gene_are_taken_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = edited(monkeypatch, tmp_path, Wired(), knockout_features=2)
    assert set(zip(table["feature"], table["unit"], strict=True)) == {(0, GENE), (1, 20)}
    assert len(table) == 4


def test_an_unknown_gene_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"causal\.knockout_genes: 'TP53' is no gene"):
        edited(monkeypatch, tmp_path, Wired(), knockout_genes=["TP53"])
    assert not list(tmp_path.iterdir())


def test_a_model_of_distributions_leaves_an_empty_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = Wired()
    model.outcome = "distribution"
    assert edited(monkeypatch, tmp_path, model).empty
    assert "distribution" in (CAUSAL_GENES.note(tmp_path / CAUSAL_GENES.file) or "")


def test_random_genes_are_others_of_the_same_cell_with_near_values() -> None:
    tokens, _ = cells()
    sample = Sample(np.arange(N_ITEMS), tokens, np.arange(N_ITEMS))
    gene = np.flatnonzero(tokens.unit == GENE)
    drawn = nearest_values(sample, gene, 30, np.random.default_rng(0))
    sequence = sample.of_tokens()
    value = tokens.per_token["value"]
    for each in drawn:
        assert (sequence[each] == sequence[gene]).all()
        assert (each != gene).all()
    gap = np.abs(value[np.stack(drawn)] - value[gene]).mean()
    anyone = np.abs(np.subtract.outer(value, value)).mean()
    assert gap < 0.75 * anyone
