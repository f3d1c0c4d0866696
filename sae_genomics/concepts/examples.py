"""Files of positive and negative examples (`concepts.examples`).

A .tsv file has a header line; a .jsonl file has one object per line. Both have these columns or keys:

- `item_id`: the item, as prepare's table names it (the cell's name, the protein's accession);
- `label`: positive or negative;
- `concept`: the concept's name; without this column, the file's name without its ending;
- `start`, `end`: the residues that the example is about, counted from 1, both included; empty or absent: the whole item.

A concept is about residues as soon as one of its rows has a start. Its positives are then the residues of its positive rows. Its negatives
are the residues of negative rows with a start, and all residues of negative rows without one; where no negative row has a start, all other
residues of its items are negatives too. Without any negative row, every item that is not positive is a negative.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sae_genomics.concepts.concept import Concept, Spans
from sae_genomics.data.json_lines import json_lines
from sae_genomics.data.proteins.tsv import read_tsv
from sae_genomics.errors import UserError
from sae_genomics.file_keys import expanded
from sae_genomics.items import SequenceItems

if TYPE_CHECKING:
    from sae_genomics.run import Run

SETTING = "concepts.examples"
_LABELS = {"positive": True, "negative": False, "1": True, "0": False, "true": True, "false": False}
_KEYS = ("item_id", "label", "concept", "start", "end")


@dataclass(frozen=True)
class Example:
    """One row. start, stop: 0-based, half-open; None: the whole item."""

    line: int
    item_id: str
    positive: bool
    concept: str
    start: int | None
    stop: int | None


def read_examples(path: Path) -> list[Example]:
    """The rows of one file. Raises UserError naming file and line."""
    path = expanded(path)
    if not path.is_file():
        raise UserError(f"no such file of examples: {path}; correct {SETTING}")
    name = path.name.removesuffix(".gz")
    if name.endswith(".tsv"):
        rows = _tsv_rows(path)
    elif name.endswith(".jsonl"):
        rows = json_lines(path, '{"item_id": ..., "label": "positive"}')
    else:
        raise UserError(f"{path}: {SETTING} takes .tsv and .jsonl files; rename or convert it")
    found = [_example(path, line, row, name.rsplit(".", 1)[0]) for line, row in rows]
    if not found:
        raise UserError(f"{path} holds no examples; a row has {', '.join(_KEYS)}")
    if not all(any(row.positive for row in found if row.concept == each) for each in {row.concept for row in found}):
        lacking = next(row for row in found if not any(r.positive for r in found if r.concept == row.concept))
        raise UserError(
            f"{path}, line {lacking.line}: the concept {lacking.concept!r} has no positive example; add one"
        )
    return found


def _tsv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    table = read_tsv(path, ("item_id", "label"))
    names = [name for name in _KEYS if name in table.columns]
    for line, *values in zip(table.line.tolist(), *(table.columns[name] for name in names), strict=True):
        yield line, dict(zip(names, values, strict=True))


def _example(path: Path, line: int, row: dict[str, Any], concept: str) -> Example:
    item_id = str(row.get("item_id") or "").strip()
    if not item_id:
        raise UserError(f"{path}, line {line}: no item_id; name the item that the example is about")
    label = str(row.get("label", "")).strip().lower()
    if label not in _LABELS:
        raise UserError(f"{path}, line {line}: label is {row.get('label')!r}; write positive or negative")
    start, end = (_number(path, line, key, row.get(key)) for key in ("start", "end"))
    if (start is None) != (end is None):
        given, lacking = ("start", "end") if end is None else ("end", "start")
        raise UserError(f"{path}, line {line}: {given} without {lacking}; give both or neither")
    if start is not None and end is not None and not 1 <= start <= end:
        raise UserError(
            f"{path}, line {line}: a span from {start} to {end}; residues count from 1, and start comes first"
        )
    name = str(row.get("concept") or "").strip() or concept
    return Example(line, item_id, _LABELS[label], name, None if start is None else start - 1, end)


def _number(path: Path, line: int, key: str, value: Any) -> int | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        if isinstance(value, bool) or float(value) != int(float(value)):
            raise ValueError
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{path}, line {line}: {key} is {value!r}; write a whole number") from None


def example_concepts(run: Run, item_ids: pd.Series) -> list[Concept]:
    """The concepts of all files. item_ids: [items]. Raises UserError for examples that the run's items do not fit."""
    rows = pd.Series(np.arange(len(item_ids)), index=item_ids.astype(str))
    rows = rows[~rows.index.duplicated()]
    concepts: dict[str, Concept] = {}
    for path in map(expanded, run.config.concepts.examples):
        examples = read_examples(path)
        known = rows.reindex([each.item_id for each in examples]).to_numpy(np.float64)
        if np.isnan(known).all():
            nouns = run.kind.nouns
            raise UserError(
                f"{path}, line {examples[0].line}: none of its {nouns.items} (the first is {examples[0].item_id}) is among "
                f"those of the run (the first is {item_ids.iloc[0]}); correct the item_id column"
            )
        if np.isnan(known).any() and not _is_subset(run):
            unknown = [each for each, row in zip(examples, known, strict=True) if np.isnan(row)]
            more = f"; {len(unknown)} lines name such {run.kind.nouns.items}" if len(unknown) > 1 else ""
            raise UserError(
                f"{path}, line {unknown[0].line}: {unknown[0].item_id} is not among the {run.kind.nouns.items} of the run{more}; "
                "correct or remove what is not there"
            )
        placed = [(each, int(row)) for each, row in zip(examples, known, strict=True) if not np.isnan(row)]
        _check_spans(run, path, placed)
        for name in dict.fromkeys(each.concept for each in examples):
            if f"examples:{name}" in concepts:
                raise UserError(f"{path}: another file of {SETTING} has a concept {name!r} too; rename one")
            own = [(each, row) for each, row in placed if each.concept == name]
            if any(each.positive for each, _ in own):
                concepts[f"examples:{name}"] = _concept(path, name, own, len(item_ids))
    return list(concepts.values())


def _is_subset(run: Run) -> bool:
    """Whether the run reads a random subset of its input: an item that is not in it is then no mistake."""
    setting = run.kind.key("data.max_items").removeprefix("data.")
    return getattr(run.config.data, setting, None) is not None


def _concept(path: Path, name: str, rows: Sequence[tuple[Example, int]], n_items: int) -> Concept:
    positive = np.unique([row for each, row in rows if each.positive])
    negative = np.unique(np.array([row for each, row in rows if not each.positive], np.int64))
    of_items = all(each.start is None for each, _ in rows)
    if of_items:
        both = np.intersect1d(positive, negative)
        if len(both):
            line = next(each.line for each, row in reversed(rows) if row == both[0])
            raise UserError(
                f"{path}, line {line}: {name!r} has this item as a positive and as a negative; keep one row"
            )
    if not len(negative):
        negative = np.setdiff1d(np.arange(n_items), positive)
    others = np.setdiff1d(negative, positive)
    if of_items:
        return Concept(f"examples:{name}", "examples", name, "item", positive, others)
    some = any(each.start is not None and not each.positive for each, _ in rows)
    return Concept(
        f"examples:{name}", "examples", name, "token", positive, others,
        spans=_spans([pair for pair in rows if pair[0].positive]),
        other_spans=_spans([pair for pair in rows if not pair[0].positive]) if some else None,
    )  # fmt: skip


def _spans(rows: Sequence[tuple[Example, int]]) -> Spans:
    """A row without a start is about the whole item."""
    whole = (1 << 31) - 1
    return Spans.of(
        [row for _, row in rows], [each.start or 0 for each, _ in rows], [each.stop or whole for each, _ in rows]
    )


def _check_spans(run: Run, path: Path, placed: Sequence[tuple[Example, int]]) -> None:
    """Raise UserError for a span that its item does not have."""
    with_span = [(each, row) for each, row in placed if each.stop is not None]
    if not with_span:
        return
    rows = np.unique([row for _, row in with_span])
    items = run.kind.read(run, rows)
    if not isinstance(items, SequenceItems):
        each = with_span[0][0]
        raise UserError(
            f"{path}, line {each.line}: the residues of a {run.kind.nouns.item} cannot be counted; leave start and end empty"
        )
    length = dict(zip(rows.tolist(), map(len, items.sequences), strict=True))
    for each, row in with_span:
        if each.stop is not None and each.stop > length[row]:
            raise UserError(
                f"{path}, line {each.line}: the span ends at {each.stop}, but {each.item_id} has {length[row]} residues"
            )
