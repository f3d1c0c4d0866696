"""All that report.md is made of, gathered before a word is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from sae_genomics.config import RunConfig
from sae_genomics.report.collect import Prepared, Problem
from sae_genomics.report.missing import Unfinished
from sae_genomics.report.provenance import Provenance
from sae_genomics.report.summary import LayerSummary


@dataclass(frozen=True)
class Example:
    """One feature worth looking at, and words for it."""

    layer: int
    feature: int
    words: str


@dataclass
class Contents:
    """All that report.md says.

    model: facts of the model, (name, Markdown). wide: see `summary.side_by_side`.
    resume: the command that runs what is missing. pipeline: the one that runs all that is not done.
    config_file: the config, relative where it stands below the working directory. overrides: what --set set beside it.
    figures: name -> path relative to the report. dashboard: the same; empty without.
    example: the feature to show the use of files with, and words for it; h5ad, sae, activations: features.h5ad, SAE folder and a shard
    of activations of its layer; None without.
    embedding: name of the data's embedding, e.g. `umap`; empty without.
    """

    name: str
    config: RunConfig
    model_name: str
    model: list[tuple[str, str]]
    prepared: Prepared
    layers: list[LayerSummary]
    wide: pd.DataFrame | None
    provenance: Provenance
    unfinished: list[Unfinished]
    done: dict[str, int]
    problems: list[Problem]
    resume: str
    pipeline: str
    config_file: str
    overrides: tuple[str, ...] = ()
    figures: dict[str, str] = field(default_factory=dict)
    dashboard: str = ""
    example: Example | None = None
    h5ad: Path | None = None
    sae: Path | None = None
    activations: Path | None = None
    embedding: str = ""
