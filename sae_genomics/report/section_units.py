"""report.md, units of sequences: how many features are nothing but one amino acid, and which."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from sae_genomics.artifacts import Inference
from sae_genomics.report import inference
from sae_genomics.report.contents import Contents
from sae_genomics.report.markdown import NONE, count, escape, percent, span, table
from sae_genomics.report.wording import a, first_upper

ONE, MOST = 0.9, 0.5  # share of a feature's summed activation on one unit
NAMED = 8


@dataclass(frozen=True)
class UnitShares:
    """Of one layer: how much of each feature's summed activation falls on its first unit."""

    n_features: int
    """features that fire"""
    n_one: int
    """those with at least ONE of it on one unit"""
    n_most: int
    """those with at least MOST, and less than ONE"""
    units: pd.Series
    """unit_name -> how many of the n_one features are that unit, most first"""

    @classmethod
    def of(cls, units: pd.DataFrame) -> UnitShares:
        """From the rows of feature_units.parquet: `score` is summed activation, because every residue weighs the same."""
        firing = units[units["score"] > 0].sort_values(["feature", "score"], ascending=[True, False], kind="stable")
        total = firing.groupby("feature")["score"].sum()
        first = firing.drop_duplicates("feature").set_index("feature")
        share = first["score"] / total
        one = share >= ONE
        most = (share >= MOST) & ~one
        return cls(len(share), int(one.sum()), int(most.sum()), first.loc[one, "unit_name"].value_counts())


def section(contents: Contents) -> str:
    """The section, with its title; empty for kinds whose units have a section of their own."""
    known = [(each.layer, each.parts.get("units")) for each in contents.layers]
    shares: list[tuple[int, UnitShares]] = [(layer, each) for layer, each in known if each is not None]
    if not shares:
        return ""
    nouns = contents.wording.nouns
    text = (
        f"Part of what a model knows of {a(nouns.token)} is which {nouns.unit} it is. A feature is *one {nouns.unit}* when at least "
        f"{_whole(ONE)} of its summed activation falls on that {nouns.unit}, *mostly one* at {_whole(MOST)} or more. The others spread over "
        f"several {nouns.units}: what they have in common must lie in the surroundings."
    )
    rows = [
        (
            str(layer),
            count(each.n_features),
            _share(each.n_one, each.n_features),
            _share(each.n_most, each.n_features),
            _share(each.n_features - each.n_one - each.n_most, each.n_features),
            ", ".join(f"{escape(name)} {n}" for name, n in each.units.head(NAMED).items()) or NONE,
        )
        for layer, each in shares
    ]
    header = (
        "Layer",
        "Features that fire",
        f"One {nouns.unit}",
        "Mostly one",
        "Several",
        f"Which {nouns.units}, features of each",
    )
    said = Inference(
        "none, these numbers describe and nothing is tested", f"features that fire on any {nouns.token}", "none"
    )
    return "\n\n".join(
        [f"## {first_upper(nouns.units)}", text, table(header, rows, right=(0, 1, 2, 3, 4)), inference.written(said)]
    )


def finding(contents: Contents) -> str:
    """One sentence: what share of the features is one unit."""
    known = [each.parts.get("units") for each in contents.layers]
    shares = [each.n_one / each.n_features for each in known if each is not None and each.n_features]
    if not shares:
        return ""
    nouns = contents.wording.nouns
    return (
        f"**{first_upper(nouns.units)}.** {span(shares, percent)} of the features that fire do so on one {nouns.unit} alone "
        f"(at least {_whole(ONE)} of their activation)."
    )


def _share(n: int, total: int) -> str:
    return f"{count(n)} ({percent(n / total)})" if total else NONE


def _whole(share: float) -> str:
    return f"{100 * share:.0f} %"
