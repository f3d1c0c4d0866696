"""The dashboard's one file: template, style, script and data of this folder put together.

Data stand in the page as JSON, each array as gzip of its little-endian bytes in base64. Text enters the page only through
`textContent`, and a content security policy allows nothing but the page's own script and style, by hash.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

BEFORE = (
    "dashboard_data.js",
    "dashboard_search.js",
    "dashboard_list.js",
    "dashboard_panel.js",
)  # the panels' own scripts follow
AFTER = ("dashboard.js",)


def _block(values: npt.NDArray[Any]) -> dict[str, str]:
    """An array as the script reads it back: its dtype, and gzip of its little-endian bytes in base64."""
    little = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
    packed = gzip.compress(little.tobytes(), compresslevel=6, mtime=0)
    return {"dtype": values.dtype.name, "data": base64.b64encode(packed).decode("ascii")}


def assemble(meta: dict[str, Any], blocks: dict[str, npt.NDArray[Any]], scripts: Sequence[str] = ()) -> str:
    """The page's text.

    meta: `title` and whatever else the script reads by name. blocks: name -> array. scripts: files of the panels, in their order.
    """
    folder = files("sae_genomics.report")
    template = folder.joinpath("dashboard.html").read_text(encoding="utf-8")
    style = folder.joinpath("dashboard.css").read_text(encoding="utf-8")
    parts_of_script = [folder.joinpath(name).read_text(encoding="utf-8") for name in (*BEFORE, *scripts, *AFTER)]
    script = '\n(() => {\n"use strict";\n' + "\n".join(parts_of_script) + "})();\n"
    data = [_data_tag("meta", meta)] + [_data_tag(f"block:{name}", _block(values)) for name, values in blocks.items()]
    parts = {
        "CSP": (
            f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
            "base-uri 'none'; form-action 'none'"
        ),
        "TITLE": html.escape(str(meta.get("title", "SAE Genomics"))),
        "STYLE": style,
        "SCRIPT": script,
        "DATA": "\n".join(data),
    }
    # Cut once at the marks: text that looks like a mark inside the data must stay text.
    pieces = template.split("{{")
    page = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        page += [parts[name], rest]
    return "".join(page)


def _data_tag(name: str, value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign, escaped in (
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
    ):
        text = text.replace(sign, escaped)
    return f'<script type="application/json" id="{html.escape(name)}">{text}</script>'


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode("ascii")
