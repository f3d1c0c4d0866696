"""What features read and write: the AUROC against a plain count, planted readers found, roles from the tables that are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from sae_genomics.artifacts.causal import CAUSAL_DOSE, CAUSAL_FEATURES, CAUSAL_NULLS
from sae_genomics.causal.fires import Fires
from sae_genomics.causal.reads_writes import classified, dose_shapes, input_scores, output_scores, unit_auroc

N_UNITS, D = 40, 16


def sample(seed: int, n: int = 4000) -> Fires:
    """Feature 0 fires on units 0 to 3, feature 1 on tokens at random, feature 2 hardly ever."""
    generator = np.random.default_rng(seed)
    unit = generator.integers(0, N_UNITS, n)
    fires = np.stack([unit < 4, generator.random(n) < 0.1, np.arange(n) < 3])
    feature, token = np.nonzero(fires)
    counts = csr_matrix((np.ones(len(token)), (feature, unit[token])), shape=(3, N_UNITS))
    inputs = generator.standard_normal((n, D)).astype(np.float32)
    return Fires(None, np.bincount(unit, minlength=N_UNITS), counts, counts, inputs, unit)  # type: ignore[arg-type]


def test_the_auroc_is_that_of_a_plain_count_over_pairs() -> None:
    generator = np.random.default_rng(0)
    n_train, n_held = generator.integers(5, 20, (2, 9))
    train = generator.binomial(n_train, generator.random((5, 9)) * (generator.random((5, 9)) < 0.6))
    held = generator.binomial(n_held, generator.random((5, 9)))
    found = unit_auroc(csr_matrix(train.astype(float)), csr_matrix(held.astype(float)), n_train, n_held)
    for row in range(5):
        rate = train[row] / (n_train + 5.0)
        won = total = 0.0
        for one in range(9):
            for other in range(9):
                pairs = held[row, one] * (n_held[other] - held[row, other])
                won += pairs * ((rate[one] > rate[other]) + 0.5 * (rate[one] == rate[other]))
                total += pairs
        assert found[row] == pytest.approx(won / total)


def test_a_feature_that_never_fires_has_no_auroc() -> None:
    nothing = csr_matrix((1, 4))
    assert np.isnan(unit_auroc(nothing, nothing, np.ones(4, int), np.ones(4, int))).all()


def test_a_planted_reader_reads_and_a_random_one_does_not() -> None:
    found = input_scores(sample(0), sample(1), 99, np.random.default_rng(0))
    reader, chance, seldom = found.to_dict("records")
    assert reader["reads"] == pytest.approx(1.0)
    assert reader["reads_random"] == pytest.approx(0.5, abs=0.05)
    assert reader["q_reads"] < 0.05
    assert chance["reads"] == pytest.approx(0.5, abs=0.06)
    assert chance["q_reads"] > 0.05
    assert np.isnan(seldom["reads"])


def frames(folder: Path) -> None:
    effects = pd.DataFrame({"feature": [0, 1, 0], "outcome": ["token", "token", "embedding"], "masked": [True, True, False],
                            "specificity": [2.0, 0.1, 9.0], "p_value": [0.001, 0.6, 0.5], "q_value": [0.002, 0.6, 0.5]})  # fmt: skip
    nulls = pd.DataFrame({"feature": [0, 0, 0], "outcome": "token", "masked": [True, True, False],
                          "null": ["direction", "direction", "direction"], "draw": [0, 1, 0], "specificity": [0.2, 0.4, 50.0]})  # fmt: skip
    for table, frame in ((CAUSAL_FEATURES, effects), (CAUSAL_NULLS, nulls)):
        table.write(folder / table.file, frame.reindex(columns=[column.name for column in table.columns]).assign(
            **{name: False for name in ("sampled",) if name in [column.name for column in table.columns]}
        ))  # fmt: skip


def test_output_scores_come_from_hidden_tokens_first(tmp_path: Path) -> None:
    frames(tmp_path)
    found = output_scores(tmp_path)
    assert found.loc[0, "writes"] == 2.0
    assert found.loc[0, "writes_random"] == pytest.approx(0.3)
    assert found.loc[1, "q_writes"] == 0.6
    assert found["monotone"].isna().all()  # no dose was tried


def test_without_the_tables_there_is_no_output_score(tmp_path: Path) -> None:
    assert not (tmp_path / CAUSAL_DOSE.file).exists()
    assert output_scores(tmp_path).empty


def test_a_curve_steers_when_it_goes_one_way() -> None:
    doses = pd.DataFrame([
        {"feature": feature, "dose": dose, "own": own, "matched": 0.0, "stopped": dose == 8}
        for feature, values in ((0, (-1, 0, 1, 2, 3)), (1, (1, 0, 1, -1, 2)), (2, (1, 0, -1, -2, -3)))
        for dose, own in zip((0, 1, 2, 4, 8), values, strict=True)
    ])  # fmt: skip
    found = dose_shapes(doses)
    assert found["monotone"].tolist() == [True, False, True]
    assert found["own_most"].tolist() == [2.0, 1.0, -2.0]
    assert dose_shapes(doses[doses["dose"] <= 2])["monotone"].isna().all()  # two doses are no curve


def test_roles() -> None:
    table = pd.DataFrame({
        "q_reads": [0.01, 0.01, 0.9, 0.9, 0.01], "q_writes": [0.01, 0.9, 0.01, 0.9, np.nan],
        "monotone": [True, True, None, True, True], "outcome": "token",
    })  # fmt: skip
    found = classified(table)
    assert found["role"].tolist() == ["both", "reads", "writes", "neither", None]
    assert found["steers"].tolist() == [True, False, None, False, None]
