"""Pieces of GitHub Markdown: names made harmless, numbers made readable, tables."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

NONE = "–"  # what stands where there is no number

_SPECIAL = re.compile(r"([\\`*\[\]~|])")
_LOOSE_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]+")


def escape(text: Any) -> str:
    """Text of unknown origin (a gene, a term, a path, an error) as Markdown that shows exactly that text.

    HTML becomes entities, Markdown's own signs (the table's bar among them) get a backslash, `$` is written as an
    entity because GitHub sets text between two of them as mathematics, and line breaks become spaces.
    """
    shown = _UNPRINTABLE.sub(" ", str(text)).strip()
    shown = shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")
    return _LOOSE_UNDERSCORE.sub(r"\\_", _SPECIAL.sub(r"\\\1", shown))


def code(text: Any, in_table: bool = False) -> str:
    """Inline code that shows any text; `in_table` also hides bars from the table around it."""
    shown = _UNPRINTABLE.sub(" ", str(text)) or " "
    fence = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    pad = " " if shown.startswith("`") or shown.endswith("`") else ""
    made = f"{fence}{pad}{shown}{pad}{fence}"
    return made.replace("|", "\\|") if in_table else made


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """A pipe table of cells that are Markdown already; `right` are the columns set flush right."""
    flush = set(right)
    rule = [("---:" if column in flush else "---") for column in range(len(header))]
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def details(summary: str, body: str) -> str:
    """A folded block; the empty lines make GitHub read `body` as Markdown."""
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


def is_number(value: Any) -> bool:
    """Whether value is a number other than NaN and the infinities."""
    try:
        return value is not None and math.isfinite(value)
    except TypeError:
        return False


def count(value: Any) -> str:
    """`12,345`."""
    return f"{int(value):,}" if is_number(value) else NONE


def decimal(value: Any, places: int = 2) -> str:
    """`0.97`."""
    return f"{value:.{places}f}" if is_number(value) else NONE


def percent(share: Any) -> str:
    """`31.1 %` of a share between 0 and 1; small ones keep a digit that says something."""
    if not is_number(share):
        return NONE
    value = 100 * float(share)
    if value != 0 and abs(value) < 0.05:
        return f"{value:.1g} %" if abs(value) >= 0.0001 else "< 0.0001 %"
    return f"{value:.1f} %"


def probability(value: Any) -> str:
    """A p- or q-value: `0.032`, `4e-12`."""
    if not is_number(value):
        return NONE
    if value == 0:
        return "< 1e-300"
    return f"{value:.2g}" if value >= 0.001 else f"{value:.0e}"


def memory(n_bytes: Any) -> str:
    """`412 MB`, `3.1 GB`."""
    if not is_number(n_bytes):
        return NONE
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def span(values: Iterable[Any], show: Any) -> str:
    """`0.08 to 0.15`, or one value where all look the same; `show` formats a number."""
    known = [value for value in values if is_number(value)]
    if not known:
        return NONE
    low, high = show(min(known)), show(max(known))
    return low if low == high else f"{low} to {high}"


def listing(items: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(items) < 2:
        return "".join(items)
    return ", ".join(items[:-1]) + " and " + items[-1]


def either(items: Sequence[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " or " + items[-1] if items else ""


def feature_link(dashboard: str, layer: Any, feature: Any) -> str:
    """A feature's number, as a link to its panel where there is a dashboard."""
    number = int(feature)
    return f"[{number}]({dashboard}#layer={int(layer)}&feature={number})" if dashboard else str(number)


def block(lines: Sequence[str]) -> str:
    """Lines as they are, in a fenced block that nothing in them can end."""
    shown = [_UNPRINTABLE.sub(" ", line) for line in lines]
    longest = max((len(run) for line in shown for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}text", *shown, fence])
