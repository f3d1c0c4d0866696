"""Which SAEs a sweep proposes, against a plain computation and on points whose answer is plain to see."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from sae_genomics.cluster.sweep_ranking import SAME_FVU, best_lines, rank

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "layer": st.integers(0, 2),
            "fvu": st.one_of(st.none(), st.integers(0, 20).map(lambda i: i / 20)),
            "stability": st.one_of(st.none(), st.integers(0, 4).map(lambda i: i / 4)),
            "n_terms": st.one_of(st.none(), st.integers(0, 6)),
        }
    ),
    max_size=12,
)


@given(ROWS)
def test_it_counts_the_saes_that_are_better_at_no_more_fvu(rows):
    whole = [row for row in rows if None not in (row["fvu"], row["stability"], row["n_terms"])]
    for row, ranked in zip(rows, rank(rows), strict=True):
        if row not in whole:
            assert ranked == {"score": None, "beaten_by": None}
            continue
        score = row["stability"] * row["n_terms"]
        better = [
            other
            for other in whole
            if other["layer"] == row["layer"]
            and other["fvu"] <= row["fvu"] + SAME_FVU
            and other["stability"] * other["n_terms"] > score
        ]
        assert ranked == {"score": score, "beaten_by": len(better)}


def test_one_line_per_layer_names_what_none_beats():
    rows = [
        {"layer": 1, "k": 4, "fvu": 0.30, "stability": 0.5, "n_terms": 10},
        {"layer": 1, "k": 8, "fvu": 0.31, "stability": 0.5, "n_terms": 8},  # beaten at the same FVU
        {"layer": 1, "k": 16, "fvu": 0.10, "stability": 0.5, "n_terms": 6},  # fewer terms, a far lower FVU
        {"layer": 1, "k": 32, "fvu": 0.60, "stability": None, "n_terms": 30},  # nothing is known of its stability
    ]
    rows = [{**row, **ranked} for row, ranked in zip(rows, rank(rows), strict=True)]
    assert [row["beaten_by"] for row in rows] == [0, 1, 0, None]
    assert best_lines(rows, ["k"]) == [
        "layer 1, highest stability x terms at its FVU: k 16 (FVU 0.100, 6 terms, stability 0.50); "
        "k 4 (FVU 0.300, 10 terms, stability 0.50)"
    ]
