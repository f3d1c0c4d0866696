"""JSONL: one protein per line, with its sequence, its spans, or both.

Spans come in two layouts, which earlier collections of protein domains used:

- one span per line: `domain_span_1based_inclusive` is `[start, end]` or null, `domain_source` is the concept;
- many spans per line: `ground_truth_annotations` is a list of `{motif_id, start, end, name}`, 1-based and inclusive.

`window_span_0based_halfopen` is `[from, to)`. Where the sequence of the line is that window of a longer protein, spans count from the
window's start.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sae_genomics.data.json_lines import json_lines
from sae_genomics.data.proteins.records import Records, plain_name
from sae_genomics.errors import UserError

ONE_SPAN, MANY_SPANS, WINDOW = "domain_span_1based_inclusive", "ground_truth_annotations", "window_span_0based_halfopen"
_ACCESSION, _SEQUENCE = ("accession", "id"), "sequence"
_NAMES = ("name", "protein_name", "description", "header")
_NO_LABELS = {*_ACCESSION, _SEQUENCE, *_NAMES, "length", "sequence_length", "window_length"}
_AT_ONCE = 20_000

# start, end (1-based, inclusive), concept, name, whether it was cut at the border of a window
Span = tuple[int, int, str, str, bool]


def entries(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of each line. Raises UserError for a line that is no JSON object."""
    return json_lines(path, '{"accession": ..., "sequence": ...}')


def accession_of(path: Path, number: int, entry: dict[str, Any]) -> str:
    """Raises UserError where there is none."""
    for key in _ACCESSION:
        if isinstance(entry.get(key), str) and entry[key].strip():
            return str(entry[key]).strip()
    raise UserError(f'{path}, line {number}: no accession; add the key "accession" with a text')


def read_jsonl(path: Path) -> Iterator[Records]:
    """Blocks of records. Raises UserError as `entries` does, and for a line without a sequence."""
    block: list[tuple[int, dict[str, Any]]] = []
    row = 0
    for number, entry in entries(path):
        block.append((number, entry))
        if len(block) == _AT_ONCE:
            yield _records(path, block, row)
            row += len(block)
            block = []
    if block:
        yield _records(path, block, row)


def _records(path: Path, block: list[tuple[int, dict[str, Any]]], row: int) -> Records:
    accession = [accession_of(path, number, entry) for number, entry in block]
    sequences = [_sequence(path, number, entry) for number, entry in block]
    ptr = np.concatenate([[0], np.cumsum([len(each) for each in sequences])]).astype(np.int64)
    line = np.array([number for number, _ in block], dtype=np.int64)
    return Records(
        np.arange(row, row + len(block), dtype=np.int64),
        line,
        accession,
        [_name(entry) for _, entry in block],
        np.frombuffer(b"".join(sequences), np.uint8),
        ptr,
        [_labels(entry) for _, entry in block],
        lambda i: int(line[np.searchsorted(ptr, i, "right") - 1]),
    )


def _sequence(path: Path, number: int, entry: dict[str, Any]) -> bytes:
    value = entry.get(_SEQUENCE)
    if not isinstance(value, str):
        raise UserError(f'{path}, line {number}: no sequence; add the key "sequence" with a text')
    text = "".join(value.split())
    if not text:
        raise UserError(f"{path}, line {number}: the sequence is empty; remove the line")
    return text.encode("ascii", "replace")


def _name(entry: dict[str, Any]) -> str | None:
    return next((plain_name(entry[key]) for key in _NAMES if isinstance(entry.get(key), str) and entry[key]), None)


def _labels(entry: dict[str, Any]) -> dict[str, str]:
    """What may be a label: every further key with a text, a number or true or false."""
    return {
        key: str(value)
        for key, value in entry.items()
        if key not in _NO_LABELS and isinstance(value, str | int | float) and str(value).strip()
    }


def has_spans(entry: dict[str, Any]) -> bool:
    """Whether the line says which spans there are, be it none."""
    return ONE_SPAN in entry or MANY_SPANS in entry


def entry_spans(entry: dict[str, Any], length: int) -> list[Span]:
    """Spans of a line, counted in a sequence of `length` residues. Raises ValueError, with one line, for what cannot be read."""
    found = [*_one_span(entry), *_many_spans(entry)]
    offset = _offset(entry, length)
    if not offset:
        return [(start, end, concept, name, False) for start, end, concept, name in found]
    return [_shifted(span, offset, length) for span in found]


def _one_span(entry: dict[str, Any]) -> list[tuple[int, int, str, str]]:
    span = entry.get(ONE_SPAN)
    if span is None:
        return []
    concept = entry.get("domain_source")
    if not isinstance(concept, str) or not concept.strip():
        raise ValueError('a span without a concept; add the key "domain_source"')
    start, end = _pair(ONE_SPAN, span)
    return [(start, end, concept.strip(), concept.strip())]


def _many_spans(entry: dict[str, Any]) -> list[tuple[int, int, str, str]]:
    spans = entry.get(MANY_SPANS)
    if spans is None:
        return []
    if not isinstance(spans, list) or not all(isinstance(span, dict) for span in spans):
        raise ValueError(f"{MANY_SPANS} is a list of objects with motif_id, start, end and name")
    found = []
    for span in spans:
        concept = span.get("motif_id")
        if not isinstance(concept, str) or not concept.strip():
            raise ValueError(f"{MANY_SPANS}: a span without motif_id")
        start, end = _pair(f"{MANY_SPANS}: start and end", [span.get("start"), span.get("end")])
        found.append((start, end, concept.strip(), str(span.get("name") or concept).strip()))
    return found


def _offset(entry: dict[str, Any], length: int) -> int:
    """Residues of the protein before the sequence: above 0 where the sequence can only be the window."""
    window = entry.get(WINDOW)
    if window is None:
        return 0
    start, stop = _pair(WINDOW, window)
    return start if stop - start == length and stop > length else 0


def _shifted(span: tuple[int, int, str, str], offset: int, length: int) -> Span:
    start, end, concept, name = span[0] - offset, span[1] - offset, span[2], span[3]
    if end < 1 or start > length:
        raise ValueError(f"the span {span[0]} to {span[1]} lies outside the window {offset} to {offset + length}")
    return max(start, 1), min(end, length), concept, name, start < 1 or end > length


def _pair(what: str, value: Any) -> tuple[int, int]:
    if (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
    ):
        return value[0], value[1]
    raise ValueError(f"{what}: two whole numbers are expected, not {json.dumps(value)[:40]}")
