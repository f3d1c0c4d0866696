"""What the report says of gene identity, of the FVU of the rest, and of the interval of the loss recovered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import write_report
from planted_run import Plan, planted_run
from test_nothing_heldout import change_metrics

from sae_genomics.sae.quality import doubts

MEASURED = {
    "centre": "none", "fvu": 0.025, "fvu_centred": 0.127, "identity_variance": 0.8, "loss_recovered": 0.984, "loss_cells": 64,
    "loss_recovered_interval": [0.9731, 0.9952], "loss_recovered_by_means": 0.8282,
}  # fmt: skip


@pytest.mark.parametrize(
    ("centre", "words"),
    [
        ("none", ["the features reproduce 98 %", "the autoencoder read the whole activation (`sae.centre: none`)"]),
        ("unit", ["the genes' means and features together reproduce 98 %", "subtracted before the autoencoder"]),
    ],
)
def test_identity_and_interval_are_in_the_report(tmp_path: Path, centre: str, words: list[str]) -> None:
    run = planted_run(tmp_path, Plan(layers=1))
    change_metrics(run, **{**MEASURED, "centre": centre})
    report = write_report(run)
    for text in words:
        assert text in report
    assert (
        "| Layer | Gene identity | FVU, whole activation | FVU of the rest | Loss recovered by the means alone |"
        in report
    )
    assert "| 80.0 % | 0.025 | 0.127 | 0.828 |" in report
    assert "0.984 (0.973–0.995)" in report
    assert "It is measured on 64 held-out cells, spread evenly over the file. In brackets the 95 % interval" in report
    assert "explains 80.0 % of that variance by itself; of the rest the features reproduce 87.3 %" in report


def test_without_these_numbers_nothing_is_said_of_them(tmp_path: Path) -> None:
    report = write_report(planted_run(tmp_path, Plan(layers=1)))
    assert "Gene identity" not in report
    assert "None" not in report


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({"centre": "none", "fvu": 0.1, "fvu_centred": 1.3}, []),
        ({"centre": "unit", "fvu": 0.1, "fvu_centred": 0.6}, ["The FVU of the rest is 0.60"]),
        ({"centre": "unit", "fvu": 0.1, "fvu_centred": 0.4}, []),
        ({"fvu": 0.6}, ["The FVU is 0.60"]),
    ],
)
def test_an_sae_is_doubted_for_what_it_reads(metrics: dict[str, Any], words: list[str]) -> None:
    found = doubts({"l0": 8.0, "k": 8, "architecture": "topk", "heldout_tokens": 100, **metrics})
    assert len(found) == len(words)
    assert all(text.startswith(word) for text, word in zip(found, words, strict=True))
