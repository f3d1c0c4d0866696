"""report.md, networks: per layer one table of features and baselines beside chance, and pictures of the clearest networks."""

from __future__ import annotations

from sae_genomics.report import inference
from sae_genomics.report.annotation_wording import MOST_LAYERS
from sae_genomics.report.contents import Contents
from sae_genomics.report.markdown import NONE, count, decimal, details, escape, listing, percent, span, table
from sae_genomics.report.network import Beside, headline_channel
from sae_genomics.report.summary import LayerSummary

HEADER = ("Network", "Units", "Compared", "More pairs than chance", "by chance", "Pairs", "Expected")
FIGURES = ("network", "network_best")


def tested(contents: Contents) -> list[tuple[LayerSummary, list[Beside]]]:
    """The layers with a network, and what was found."""
    return [(each, found) for each in contents.layers if (found := each.parts.get("network"))]


def finding(contents: Contents) -> str:
    """One sentence over all layers; empty without a network."""
    layers = tested(contents)
    if not layers:
        return ""
    channel = headline_channel(layers[0][1])
    shown = [(each.layer, _of(found, "features", channel)) for each, found in layers]
    known = [(layer, found) for layer, found in shown if found is not None and found.n_units]
    if not known:
        return ""
    above = [str(number) for number, found in known if found.above_chance]
    rest = [str(number) for number, found in known if not found.above_chance]
    shares = span([found.share for _, found in known], percent)
    chance = span([mean_share for _, found in known for mean_share in found.null_share], percent)
    text = (
        f"**Networks.** {shares} of the features {_over(len(known))} have more {escape(channel)} pairs of {escape(known[0][1].database)} among "
        f"their top genes than chance gives; of draws of matched genes {chance} have."
    )
    text += f" Above every draw in {_layers(above)}." if above else ""
    return text + (f" Not above every draw in {_layers(rest)}." if rest else "")


def _least(contents: Contents, layers: list[tuple[LayerSummary, list[Beside]]]) -> str:
    """`validation.min_score` of each network."""
    least, names = contents.config.validation.min_score, {each.database for _, found in layers for each in found}
    return listing([f"{escape(name)}: {least.get(name, 0):g}" for name in sorted(names)])


def _over(n_layers: int) -> str:
    return "in the one layer here" if n_layers == 1 else f"(over {n_layers} layers)"


def _layers(numbers: list[str]) -> str:
    return f"layer {numbers[0]}" if len(numbers) == 1 else f"layers {listing(numbers)}"


def section(contents: Contents) -> str:
    """The section, with its title; empty without a network."""
    layers = tested(contents)
    if not layers:
        return ""
    settings = contents.config.validation
    parts = [
        "## Features whose genes work together",
        f"For each unit the known pairs among its top {settings.top_genes} genes are counted. A pair counts when the network gives it "
        f"its least score or more ({_least(contents, layers)}). Chance is draws of other genes: each gene is replaced by one with as many partners "
        f"in the network, detected as often and expressed as strongly. A unit counts when its q-value is below {settings.fdr:g}, over all "
        "channels together. *By chance* means the same procedure on genes that were drawn.",
        "The channels answer different questions. *Physical*: the proteins touch. *Experimental*: experiments alone say so. *Functional* "
        "rests on co-expression, papers and pathway databases as well. So it agrees with expression and with pathways for reasons that are "
        "not independent of this analysis.",
    ]
    if len(layers) > 1:
        parts.append(contents.figure("network", "Share of units with more known pairs than chance, by layer"))
    for index, (summary, found) in enumerate(layers):
        rows = [_row(each) for each in found]
        body = "\n\n".join(
            part
            for part in (table(HEADER, rows, right=range(2, len(HEADER))), inference.line([summary], "network_nulls"))
            if part
        )
        title = f"Layer {summary.layer}: networks"
        folded = index > 0 and len(layers) > MOST_LAYERS
        parts.append(details(title, body) if folded else f"### {title}\n\n{body}")
    parts.append(contents.figure("network_best", "Known pairs among the top genes of the clearest features"))
    parts.append(
        "All features: `feature_network.parquet`; the pairs of those found: `network_edges.parquet`, in each layer's folder."
    )
    return "\n\n".join(part for part in parts if part)


def _row(found: Beside) -> tuple[str, ...]:
    if not found.n_units:
        return (_named(found), escape(found.label), "0", *[NONE] * 4)
    null = (
        f"{decimal(sum(found.null) / len(found.null), 1)} ({percent(sum(found.null_share) / len(found.null))}), max {count(max(found.null))}"
        if found.null
        else NONE
    )
    return (
        _named(found), escape(found.label), count(found.n_units), f"{count(found.n_found)} ({percent(found.share)})", null,
        count(found.observed), decimal(found.expected, 0),
    )  # fmt: skip


def _named(found: Beside) -> str:
    return f"{escape(found.database)}, {escape(found.channel)}"


def _of(found: list[Beside], units: str, channel: str) -> Beside | None:
    return next((each for each in found if each.units == units and each.channel == channel), None)
