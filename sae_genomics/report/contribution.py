"""What a stage, or an accumulator of one, adds to the report.

Document, findings, figures and dashboard go through a list of contributions in order and name none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure

from sae_genomics.report.collect import LayerResults
from sae_genomics.report.contents import Contents, Example
from sae_genomics.report.dashboard_panel import Panel, PanelSettings
from sae_genomics.report.reading import Reading
from sae_genomics.report.summary import LayerSummary
from sae_genomics.report.wording import Wording


@dataclass(frozen=True)
class Said:
    """A text, and where it stands among those of other contributions: the lower order comes first."""

    order: int
    text: str


Draw = Callable[[], Figure | None]
Phrase = Callable[[Wording], Said]


def _nothing(contents: Contents) -> list[Said]:
    return []


def _no_figures(contents: Contents) -> Mapping[str, Draw]:
    return {}


@dataclass(frozen=True)
class Contribution:
    """Everything is optional but name and order. A function that has nothing to say returns nothing: an empty text, list or dict."""

    name: str
    """short, for messages"""
    order: int
    """where its section is in report.md, and its panel in the dashboard"""
    kinds: tuple[str, ...] = ()
    """data kinds that it is for; empty: all"""
    not_for: tuple[str, ...] = ()
    """data kinds that it is not for"""
    tables: tuple[Reading, ...] = ()
    """what it reads of every layer"""
    run_tables: tuple[Reading, ...] = ()
    """what it reads of the run: `Contents.run_results` has it before the first layer is taken"""
    take_layer: Callable[[Contents, LayerResults, LayerSummary], None] | None = None
    """takes from a layer's results what is wanted later: the results themselves are forgotten"""
    gather: Callable[[Contents], None] | None = None
    """called once after the last layer"""
    section: Callable[[Contents], str] | None = None
    """its part of report.md, with the title"""
    findings: Callable[[Contents], list[Said]] = _nothing
    """points of the opening"""
    caveats: Callable[[Contents], list[Said]] = _nothing
    """sentences on how sure one can be"""
    facts: Callable[[Contents], list[tuple[str, str]]] | None = None
    """rows of `What was run`: (name, Markdown)"""
    figures: Callable[[Contents], Mapping[str, Draw]] = _no_figures
    """name of a figure -> what draws it, or returns None"""
    figure_files: tuple[str, ...] = ()
    """patterns of all figures that it may draw: those of an earlier report that are not drawn again go"""
    example: Callable[[Contents], Example | None] | None = None
    """a feature worth looking at"""
    panel: Callable[[PanelSettings], Panel] | None = None
    """makes its panel of the dashboard"""
    layer_facts: Callable[[LayerSummary], dict[str, object]] | None = None
    """what the dashboard says of a layer, for the panel's script"""
    headline: Callable[[list[LayerSummary]], str] | None = None
    """one sentence over all layers, for the dashboard"""
    compared_with: Phrase | None = None
    """what features are compared with: `known gene sets`"""
    matched: Phrase | None = None
    """what a feature may match: `a gene set`"""
    found_by: Phrase | None = None
    """what the dashboard finds features by: `gene set`"""
    changes: Callable[[Wording], list[tuple[str, str]]] | None = None
    """rows of `To ... set in the config`"""

    def applies(self, kind: str) -> bool:
        """Whether it is for a data kind."""
        return kind not in self.not_for and (not self.kinds or kind in self.kinds)


def phrases(contributions: list[Contribution], field: str, wording: Wording) -> list[str]:
    """The phrases of one field, in their order."""
    made = [getattr(each, field)(wording) for each in contributions if getattr(each, field) is not None]
    return [said.text for said in sorted(made, key=lambda said: said.order)]


def sentences(contributions: list[Contribution], field: str, contents: Contents) -> list[str]:
    """The texts of one field, in their order; empty ones are left out."""
    made = [said for each in contributions for said in getattr(each, field)(contents)]
    return [said.text for said in sorted(made, key=lambda said: said.order) if said.text]
