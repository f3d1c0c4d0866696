"""What the accumulator of examples adds: where each feature is strongest."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sae_genomics.artifacts import FEATURE_EXAMPLES
from sae_genomics.artifacts.window_text import split_units
from sae_genomics.config import RunConfig
from sae_genomics.report import section_examples
from sae_genomics.report.collect import LayerResults
from sae_genomics.report.contents import Contents
from sae_genomics.report.contribution import Contribution
from sae_genomics.report.dashboard_examples import ExamplesPanel
from sae_genomics.report.reading import Reading
from sae_genomics.report.summary import LayerSummary


def _whole_windows(path: Path, config: RunConfig) -> pd.DataFrame:
    """The table. Raises ValueError where a window has other than one unit per activation: marks would stand below wrong ones."""
    frame = FEATURE_EXAMPLES.read(path)
    for text, activations in zip(frame["residues"], frame["activations"], strict=True):
        split_units(text, len(activations))
    return frame


def _take(contents: Contents, results: LayerResults, summary: LayerSummary) -> None:
    examples = results.table("examples")
    if examples is not None and summary.best is not None:
        summary.parts["examples"] = section_examples.chosen(examples, summary.best)


EXAMPLES = Contribution(
    name="examples",
    order=65,
    not_for=("cells",),
    tables=(Reading("examples", (FEATURE_EXAMPLES,), _whole_windows),),
    take_layer=_take,
    section=section_examples.section,
    panel=ExamplesPanel,
)
