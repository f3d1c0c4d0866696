"""Sources that hold the same statements count once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sae_genomics.validation.independence import counted_once, origins
from sae_genomics.validation.normal_form.catalogue import read_catalogue

CONTAINS = {
    "open_targets": ("clinvar", "orphanet"),
    "monarch": ("omim", "hpo"),
    "hpo": ("omim", "orphanet"),
    "omim": (),
    "orphanet": (),
    "clinvar": (),
    "go": (),
}


def counted(*agree: str) -> set[str]:
    row = np.array([[name in agree for name in CONTAINS]])
    return {name for name, counts in zip(CONTAINS, counted_once(row, CONTAINS)[0], strict=True) if counts}


def test_origins_go_over_several_steps_and_end_in_a_circle() -> None:
    assert origins(CONTAINS)["monarch"] == {"monarch", "hpo", "omim", "orphanet"}
    assert origins(CONTAINS)["go"] == {"go"}
    assert origins({"a": ("b",), "b": ("a",)}) == {"a": {"a", "b"}, "b": {"a", "b"}}


@pytest.mark.parametrize(
    ("agree", "wanted"),
    [
        ({"open_targets"}, {"open_targets"}),
        ({"open_targets", "clinvar"}, {"clinvar"}),
        ({"open_targets", "clinvar", "go"}, {"clinvar", "go"}),
        ({"hpo", "omim", "orphanet"}, {"omim", "orphanet"}),
        ({"monarch", "hpo"}, {"hpo"}),
        (
            {"hpo", "open_targets"},
            {"open_targets"},
        ),  # both took over Orphanet's: the one of fewer origins, then the first
        ({"monarch", "clinvar"}, {"monarch", "clinvar"}),
        (set(), set()),
    ],
)
def test_what_contains_another_counts_once(agree: set[str], wanted: set[str]) -> None:
    assert counted(*agree) == wanted


def test_those_that_count_are_independent_and_none_more_could() -> None:
    known = origins(CONTAINS)
    for size in range(1, len(CONTAINS) + 1):
        for agree in itertools.combinations(CONTAINS, size):
            kept = counted(*agree)
            assert kept <= set(agree)
            assert all(not known[a] & known[b] for a, b in itertools.combinations(kept, 2))
            assert all(any(known[other] & known[name] for name in kept) for other in agree)


def test_the_catalogue_names_only_sources_that_there_are() -> None:
    catalogue = read_catalogue()
    assert {other for entry in catalogue.values() for other in entry.contains} <= set(catalogue)
