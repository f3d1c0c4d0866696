"""What the accumulator of examples adds: where each feature is strongest."""

from __future__ import annotations

from sae_genomics.artifacts import FEATURE_EXAMPLES
from sae_genomics.report import section_examples
from sae_genomics.report.collect import LayerResults
from sae_genomics.report.contents import Contents
from sae_genomics.report.contribution import Contribution
from sae_genomics.report.dashboard_examples import ExamplesPanel
from sae_genomics.report.reading import Reading
from sae_genomics.report.summary import LayerSummary


def _take(contents: Contents, results: LayerResults, summary: LayerSummary) -> None:
    examples = results.table("examples")
    if examples is not None and summary.best is not None:
        summary.parts["examples"] = section_examples.chosen(examples, summary.best)


EXAMPLES = Contribution(
    name="examples",
    order=65,
    not_for=("cells",),
    tables=(Reading("examples", "associate", (FEATURE_EXAMPLES,)),),
    take_layer=_take,
    section=section_examples.section,
    panel=ExamplesPanel,
)
