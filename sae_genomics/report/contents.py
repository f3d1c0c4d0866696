"""All that report.md is made of, gathered before any text is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.config import RunConfig
from sae_genomics.report.cells import CellSample
from sae_genomics.report.collect import Prepared, Problem, RunResults
from sae_genomics.report.missing import Unfinished
from sae_genomics.report.provenance import Provenance
from sae_genomics.report.summary import LayerSummary
from sae_genomics.report.wording import CELL_WORDING, Wording
from sae_genomics.run import Run


@dataclass(frozen=True)
class Example:
    """One feature worth looking at, and what to call it."""

    layer: int
    feature: int
    wording: str


@dataclass
class Contents:
    """All that report.md says."""

    run: Run
    """for paths; what is done of it stands below"""
    wording: Wording = CELL_WORDING
    """nouns and phrases of the run's data kind"""
    model: list[tuple[str, str]] = field(default_factory=list)
    """facts of the model: (name, Markdown)"""
    prepared: Prepared = field(default_factory=Prepared)
    run_results: RunResults = field(default_factory=RunResults)
    """tables of the run that contributions name in `run_tables`"""
    layers: list[LayerSummary] = field(default_factory=list)
    wide: pd.DataFrame | None = None
    """best units of every label over layers, see `summary.side_by_side`"""
    sample: CellSample | None = None
    """items that are drawn; None where the kind has no such picture"""
    activations: dict[tuple[int, int], npt.NDArray[np.float32]] = field(default_factory=dict)
    """(layer, feature) -> activation of the sampled items, of the features that a figure may show"""
    provenance: Provenance = field(default_factory=Provenance)
    unfinished: list[Unfinished] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=dict)
    """stage -> tasks that are done"""
    problems: list[Problem] = field(default_factory=list)
    resume: str = ""
    """the command that runs what is missing"""
    pipeline: str = ""
    """the command that runs all that is not done"""
    config_file: str = ""
    """the config, relative where it stands below the working directory"""
    figures: dict[str, str] = field(default_factory=dict)
    """name -> path relative to the report"""
    dashboard: str = ""
    """path of the dashboard relative to the report; empty without"""
    example: Example | None = None
    """the feature to show the use of files with"""
    h5ad: Path | None = None
    """features.h5ad of the example's layer"""
    sae: Path | None = None
    """SAE folder of that layer"""
    shard: Path | None = None
    """a file of activations of that layer"""

    @property
    def config(self) -> RunConfig:
        return self.run.config

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def model_name(self) -> str:
        return str(self.run.model_info.name)

    @property
    def overrides(self) -> tuple[str, ...]:
        """What --set set beside the config."""
        return self.run.overrides

    @property
    def embedding(self) -> str:
        """Name of the data's embedding, such as `umap`; empty without."""
        return self.sample.basis if self.sample is not None else ""

    def figure(self, name: str, text: str) -> str:
        """The figure as Markdown; empty where it was not drawn."""
        path = self.figures.get(name)
        return f"![{text}]({path})" if path else ""
