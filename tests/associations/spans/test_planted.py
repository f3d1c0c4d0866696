"""The accumulators on planted truth, from blocks to tables."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sae_genomics import artifacts
from sae_genomics.associations import examples
from sae_genomics.associations.cell_sums import FeatureTotals
from sae_genomics.associations.layer import EncodedBlock
from sae_genomics.associations.linear_baselines import find_units
from sae_genomics.associations.spans import accumulate
from sae_genomics.associations.triples import TokenBlock, Triples

AMINO = np.array(list("ACDEFGHIKLMNPQRSTVWY"), dtype=object)
CYS = 1
N_ITEMS, D_SAE, D_MODEL = 120, 16, 6


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tables of a made-up layer.

    Concept A lies anywhere, and feature 7 is exactly A. Concept B is rich in cysteine, and feature 3 is cysteine. Feature 5 fires at random,
    feature 0 never. Half of the proteins carry A, all but ten carry something; those ten have feature 7 everywhere.
    """
    rng = np.random.default_rng(1)
    lengths = rng.integers(60, 120, N_ITEMS)
    item_ptr = np.concatenate([[0], np.cumsum(lengths + 2)])
    position = np.concatenate([np.arange(length + 2) for length in lengths]).astype(np.int32)
    unit = rng.choice(20, item_ptr[-1]).astype(np.int32)
    unit[item_ptr[:-1]] = unit[item_ptr[1:] - 1] = -1
    dense = np.zeros((item_ptr[-1], D_SAE), np.float32)
    dense[:, 5] = np.where(rng.random(len(dense)) < 0.1, rng.lognormal(0, 1, len(dense)), 0)
    spans = []
    for item in range(N_ITEMS - 10):
        first = item_ptr[item] + 1
        if item % 2 == 0:
            start = int(rng.integers(0, 25))
            spans.append((item, start, start + 10, "A", "domain A"))
            dense[first + start : first + start + 10, 7] = 2.0 + rng.random(10)
        start = int(rng.integers(36, 45))
        spans.append((item, start, start + 8, "B", "domain B"))
        unit[first + start : first + start + 8 : 2] = CYS
    for item in range(N_ITEMS - 10, N_ITEMS):
        dense[item_ptr[item] : item_ptr[item + 1], 7] = 3.0
    dense[unit == CYS, 3] = 1.5
    dense[unit < 0] = 9.0  # special tokens must count for nothing
    x = rng.standard_normal((len(unit), D_MODEL)).astype(np.float32)
    folder = tmp_path_factory.mktemp("planted")
    frame = pd.DataFrame(spans, columns=["item_index", "start", "stop", "concept", "name"])
    layer = _layer(folder, frame, [x[unit >= 0]])

    def blocks():  # type: ignore[no-untyped-def]
        for first in range(0, N_ITEMS, 7):
            last = min(first + 7, N_ITEMS)
            some = slice(item_ptr[first], item_ptr[last])
            tokens = TokenBlock(
                unit[some], np.ones(some.stop - some.start, np.float32), item_ptr[first : last + 1] - some.start,
                np.zeros(last - first, bool), first, position[some],
            )  # fmt: skip
            row, feature = np.nonzero(dense[some])
            yield tokens, x[some], Triples(row, feature.astype(np.int32), dense[some][row, feature])

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as threads:
        patch.setattr(accumulate, "token_blocks", lambda *arguments: (tokens for tokens, *_ in blocks()))
        made = [accumulate.Spans(layer), examples.Examples(layer)]
        totals = FeatureTotals(D_SAE)
        for tokens, rows, triples in blocks():
            encoded = EncodedBlock(tokens, rows, triples, threads.submit(totals.add, tokens, triples))
            for future in [future for each in made for future in each.add(encoded, threads)]:
                future.result()
        for each in made:
            each.finish(pd.DataFrame())
    return folder


class _Units:
    unit_id = AMINO

    def __len__(self) -> int:
        return len(AMINO)


def _layer(folder: Path, spans: pd.DataFrame, rows: list[np.ndarray]) -> SimpleNamespace:
    nouns = SimpleNamespace(item="protein", items="proteins", group="family", groups="families", span="span")
    config = SimpleNamespace(
        run=SimpleNamespace(seed=0),
        associations=SimpleNamespace(batch_tokens=1000, top_examples=4, concept_f1=0.3, random_directions=20),
        validation=SimpleNamespace(fdr=0.05),
    )
    items = pd.DataFrame({"item_id": [f"P{i}" for i in range(N_ITEMS)], "name": None})
    items["group"] = [f"family{i % 30}" for i in range(N_ITEMS)]
    return SimpleNamespace(
        run=SimpleNamespace(config=config, kind=SimpleNamespace(nouns=nouns)), spans=spans, items=items,
        encoder=SimpleNamespace(d_sae=D_SAE), units=_Units(),
        heldout=np.zeros(N_ITEMS, bool), found=find_units(["neurons", "random"], D_MODEL, rows, 0, lambda: None, 20),
        write=lambda table, frame, inference=None: table.write(folder / table.file, frame, inference=inference),
    )  # fmt: skip


def test_a_feature_that_is_a_concept_is_found_with_f1_of_one(planted: Path) -> None:
    rows = artifacts.FEATURE_CONCEPTS.read(planted / "feature_concepts.parquet").set_index(["feature", "concept"])
    row = rows.loc[(7, "A")]
    for name in ("precision_residue", "recall_residue", "f1_residue", "precision_span", "recall_span", "f1_span"):
        assert row[name] == 1.0, name
    assert row["f1_residue_chosen"] == 1.0
    assert row["threshold"] == 0.0  # the lowest of equals
    assert row["split_by"] == "group"
    assert row["n_groups"] <= row["n_proteins"]
    assert row["n_residues"] == 10 * row["n_spans"]
    assert row["q_value"] < 1e-4
    assert (rows.drop((7, "A"))["f1_residue"] < 0.9).all()


def test_cysteine_is_not_credited_over_the_composition_baseline(planted: Path) -> None:
    rows = artifacts.CONCEPT_BASELINES.read(planted / "concept_baselines.parquet").set_index(["concept", "kind"])
    assert rows.loc[("B", "feature"), "unit"] == 3
    assert rows.loc[("B", "composition"), "f1_residue"] > rows.loc[("B", "feature"), "f1_residue"] + 0.1
    assert rows.loc[("A", "composition"), "f1_residue"] < 0.4 < rows.loc[("A", "feature"), "f1_residue"]
    assert rows.loc[("B", "position"), "f1_residue"] > rows.loc[("B", "neuron"), "f1_residue"]  # B stands in the middle
    assert set(rows.index.get_level_values("kind")) == {"feature", "neuron", "random", "composition", "position"}


def test_concepts_found_are_counted_by_one_criterion(planted: Path) -> None:
    counts = artifacts.CONCEPT_COUNTS.read(planted / "concept_counts.parquet").set_index("kind")
    assert (counts["n_concepts_tested"] == 2).all()
    assert counts["n_units"].to_dict() == {"feature": 16, "neuron": 12, "random": 40, "composition": 2, "position": 2}
    assert counts.loc["neuron", "n_concepts_found"] == counts.loc["random", "n_concepts_found"] == 0
    assert counts.loc["feature", "n_concepts_found"] >= 1
    assert counts["criterion"].str.contains("0.3").all()


def test_examples_are_the_strongest_proteins_with_their_residues(planted: Path) -> None:
    rows = artifacts.FEATURE_EXAMPLES.read(planted / "feature_examples.parquet")
    assert (rows.groupby("feature").size() <= 4).all()
    assert 0 not in set(rows["feature"])
    of_cysteine = rows[rows["feature"] == 3]
    assert of_cysteine["rank"].tolist() == [1, 2, 3, 4]
    assert of_cysteine["item_index"].tolist() == [0, 1, 2, 3]  # of equals the first
    for row in of_cysteine.itertuples():
        assert row.residues[row.position - row.start] == "C"
        assert len(row.residues) == len(row.activations) <= 41
        on = np.array(list(row.residues)) == "C"
        np.testing.assert_array_equal(np.array(row.activations) > 0, on)
    at_random = rows[rows["feature"] == 5]
    assert at_random["max_activation"].is_monotonic_decreasing
    assert all(np.max(row.activations) == np.float32(row.max_activation) for row in at_random.itertuples())


def test_items_that_cannot_tell_are_said_to_count_for_nothing(planted: Path) -> None:
    said = artifacts.FEATURE_CONCEPTS.inference_of(planted / "feature_concepts.parquet")
    assert said is not None
    assert "110 proteins with at least one span; 10 without any count for nothing" in said.n
    assert "one per family" in said.unit
