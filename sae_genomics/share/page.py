"""index.html of shared SAEs: a page without scripts and without anything from elsewhere. Every text from data is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import pandas as pd

from sae_genomics.share.facts import Layer, Shared

SHOWN = 200  # features per layer: those with a name first, then those that fire most
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; margin: 0.75rem 0; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 0.6rem; border-bottom: 1px solid #d8dee4; overflow-wrap: break-word; }
th { background: #f3f5f7; white-space: nowrap; } td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
nav a { margin-right: 1rem; } .muted { color: #57606a; }
@media (prefers-color-scheme: dark) {
  body { background: #14171a; color: #e4e8ec; } th { background: #22272c; } th, td { border-color: #373e45; }
  a { color: #7db4ff; } .muted { color: #9aa4ae; }
}
"""


def page(shared: Shared) -> str:
    """The whole page."""
    run = shared.run
    title = f"Sparse autoencoders of {run.model_info.name}, {run.config.model.hook}"
    links = "".join(f'<a href="#{each.name}">Layer {each.number}</a>' for each in shared.layers)
    notes = "".join(f"<li>{escape(note)}</li>" for note in shared.notes)
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="muted">Run {escape(run.name)} of sae-genomics. README.md says how to load them.</p>',
        _table(("What", "Which"), [(escape(name), escape(text)) for name, text in shared.facts]),
        f"<p>Notes on the data:</p><ul>{notes}</ul>" if notes else "",
        f"<nav>{links}</nav>",
        *(_layer(each, run.kind.nouns.unit) for each in shared.layers),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _layer(layer: Layer, unit: str) -> str:
    numbers = [
        (escape(each.name), escape(each.value), escape(each.chance), escape(each.meaning)) for each in layer.numbers
    ]
    shown = chosen(layer.features)
    n, all_of = len(shown), len(layer.features)
    said = (
        f"{n:,} of {all_of:,} features: those with a name first, then those that fire most. features.tsv has all."
        if n < all_of
        else ""
    )
    return (
        f'<section id="{layer.name}"><h2>Layer {layer.number}</h2>'
        + _table(("What", "Here", "By chance, or simpler", "Meaning"), numbers)
        + (f'<p class="muted">{said}</p>' if said else "")
        + _features(shown, unit)
        + "</section>"
    )


def chosen(features: pd.DataFrame) -> pd.DataFrame:
    """The SHOWN features that a page lists."""
    keys = [key for key in ("name_q_matched", "best_concept_q_value", "firing_rate") if key in features]
    order = features.sort_values(
        keys, ascending=[key != "firing_rate" for key in keys], na_position="last", kind="stable"
    )
    return order.head(SHOWN)


def _features(rows: pd.DataFrame, unit: str) -> str:
    top = next((name for name in rows if str(name).startswith("top_") and str(name).endswith("s")), None)
    label = next((name for name in ("best_cell_type", "best_label") if name in rows), None)
    header = ["Feature", "Fires"]
    columns: list[list[str]] = [
        [_number(value, "d") for value in rows["feature"]],
        [_number(value, ".3%") for value in rows["firing_rate"]],
    ]
    for name, title in (("name", "Name"), (top, f"Top {unit}s")):
        if name in rows:
            header.append(title)
            columns.append([_text(value) for value in rows[name]])
    if "best_concept" in rows:
        header += ["Best concept", "F1", "q (F1)"]
        columns.append([_text(value) for value in rows["best_concept"]])
        columns.append([_number(value, ".3f") for value in rows["best_concept_f1"]])
        columns.append([_number(value, ".2g") for value in rows["best_concept_q_value"]])
    if label is not None:
        header += ["Best label", "AUROC", "q"]
        columns.append([_text(value) for value in rows[label]])
        columns.append([_number(value, ".3f") for value in rows[f"{label}_auroc"]])
        columns.append([_number(value, ".2g") for value in rows[f"{label}_q_value"]])
    return _table(header, list(zip(*columns, strict=True)), right={"Feature", "Fires", "AUROC", "q", "F1", "q (F1)"})


def _text(value: object) -> str:
    return "" if value is None or value is pd.NA or value != value else escape(str(value))


def _number(value: float, form: str) -> str:
    return "" if pd.isna(value) else format(int(value) if form == "d" else value, form)


def _table(header: Sequence[str], rows: Sequence[tuple[str, ...]], right: set[str] | None = None) -> str:
    """Cells are escaped already. right: headers of columns of numbers."""
    marks = [' class="number"' if name in (right or ()) else "" for name in header]
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td{mark}>{cell}</td>" for mark, cell in zip(marks, row, strict=True)) + "</tr>\n"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table>"
