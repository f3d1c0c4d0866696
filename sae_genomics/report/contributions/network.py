"""What networks add: features whose top genes are known to work together, beside chance."""

from __future__ import annotations

from collections.abc import Mapping

from sae_genomics.artifacts import FEATURE_NETWORK, NETWORK_EDGES, NETWORK_NULLS
from sae_genomics.report import figures_network, section_network
from sae_genomics.report.collect import LayerResults
from sae_genomics.report.contents import Contents
from sae_genomics.report.contribution import Contribution, Draw, Said
from sae_genomics.report.network import DRAWN, Drawing, beside_chance, drawings, headline_channel
from sae_genomics.report.reading import Reading
from sae_genomics.report.summary import LayerSummary


def _take(contents: Contents, results: LayerResults, summary: LayerSummary) -> None:
    nulls, rows, edges = (results.table(name) for name in ("network_nulls", "network", "network_edges"))
    if nulls is None or nulls.empty:
        return
    found = beside_chance(nulls)
    summary.parts["network"] = found
    if rows is not None and edges is not None:
        channel, fdr = headline_channel(found), contents.config.validation.fdr
        summary.parts["network_best"] = drawings(summary.layer, rows, edges, channel, fdr)


def _figures(contents: Contents) -> Mapping[str, Draw]:
    layers = [(each.layer, found) for each, found in section_network.tested(contents)]
    drawn: list[Drawing] = [each for layer in contents.layers for each in layer.parts.get("network_best", [])]
    drawn = sorted(drawn, key=lambda each: (each.q_value, each.expected - each.n_edges))[:DRAWN]
    if not layers:
        return {}
    return {
        "network": lambda: figures_network.over_layers(layers),
        "network_best": lambda: figures_network.best(drawn),
    }


NETWORK = Contribution(
    name="network",
    order=42,
    kinds=("cells",),
    tables=(
        Reading("network", (FEATURE_NETWORK,)),
        Reading("network_edges", (NETWORK_EDGES,)),
        Reading("network_nulls", (NETWORK_NULLS,)),
    ),
    take_layer=_take,
    section=section_network.section,
    findings=lambda contents: [Said(12, section_network.finding(contents))],
    figures=_figures,
    figure_files=tuple(f"{name}.png" for name in section_network.FIGURES),
)
