"""The dashboard's one file: template, style, script and data of this folder put together.

Data stand in the page as JSON, each array packed (dashboard_packing.py). Text enters the page only through
`textContent`, and a content security policy allows nothing but the page's own script and style, by hash.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from sae_genomics.report.dashboard_packing import Array, Coded, is_long, packed_array, packed_texts

BEFORE = (
    "dashboard_data.js",
    "dashboard_search.js",
    "dashboard_list.js",
    "dashboard_panel.js",
)  # the panels' own scripts follow
AFTER = ("dashboard.js",)


def assemble(meta: dict[str, Any], blocks: Mapping[str, Array | Coded], scripts: Sequence[str] = ()) -> str:
    """The page's text.

    meta: `title` and whatever else the script reads by name; long lists of texts are packed. blocks: name -> array. scripts: files of the panels, in their order.
    """
    folder = files("sae_genomics.report")
    template = folder.joinpath("dashboard.html").read_text(encoding="utf-8")
    style = folder.joinpath("dashboard.css").read_text(encoding="utf-8")
    parts_of_script = [folder.joinpath(name).read_text(encoding="utf-8") for name in (*BEFORE, *scripts, *AFTER)]
    script = '\n(() => {\n"use strict";\n' + "\n".join(parts_of_script) + "})();\n"
    texts = {name: value for name, value in meta.items() if is_long(value)}
    short = {name: value for name, value in meta.items() if name not in texts} | {"packed_texts": list(texts)}
    data = [_data_tag("meta", short)]
    data += [_data_tag(f"texts:{name}", packed_texts(value)) for name, value in texts.items()]
    data += [_data_tag(f"block:{name}", packed_array(values)) for name, values in blocks.items()]
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
