"""Stage prepare for proteins: what is read, which proteins are held out, how long ones are cut, what the run will cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.atomic import write_json
from sae_genomics.data import plan
from sae_genomics.data.groups import GroupWording, copies_notes, make_groups
from sae_genomics.data.labelled import LabelledItems, items_file, split, tell_groups
from sae_genomics.data.prepared import (
    check_room,
    heartbeat,
    nothing_left_on_failure,
    tell_costs,
    tell_sampling,
)
from sae_genomics.data.proteins import notes
from sae_genomics.data.proteins.labels import annotation_of, labels_of_records
from sae_genomics.data.proteins.read import Sequences, read_sequences
from sae_genomics.data.proteins.records import count_records, is_jsonl
from sae_genomics.data.proteins.residues import LETTERS, UNKNOWN, unit_name
from sae_genomics.data.proteins.settings import NOUNS, InputFiles, ProteinsSection, input_files, proteins_section
from sae_genomics.data.proteins.spans import SpanTable, concepts, read_spans
from sae_genomics.data.proteins.tables import ITEMS, SPANS, spans_file
from sae_genomics.data.split import choose_items
from sae_genomics.data.token_counts import TokenCounts
from sae_genomics.data.units import Units
from sae_genomics.errors import UserError
from sae_genomics.models import check_model, most_residues, unit_tokens
from sae_genomics.progress import Progress, say
from sae_genomics.tokens import Windows, windows_of

if TYPE_CHECKING:
    from sae_genomics.run import Run

N_SPECIAL = 2  # <cls> and <eos>: stored once of each protein, read with every window
_WORDING = GroupWording(NOUNS, "column", "families or clusters")
_MOST_CONCEPTS = 1000  # listed in plan.json


@dataclass(frozen=True)
class _Model:
    """What of the model decides how proteins are read. tokens: residue letter -> vocabulary id. most: residues read at once."""

    name: str
    tokens: dict[str, int]
    most: int

    @property
    def alphabet(self) -> str:
        return "".join(letter for letter in self.tokens if letter in LETTERS)


@dataclass(frozen=True)
class _Used:
    """The proteins that the run uses, of those that the file has. rows: their records, ascending. Arrays have one entry per protein used."""

    rows: npt.NDArray[np.int64]
    sequences: Sequences
    length: npt.NDArray[np.int64]
    items: LabelledItems
    spans: SpanTable | None


def prepare_proteins(run: Run) -> None:
    """Leave items.parquet, units.parquet, plan.json, and spans.parquet where there are spans. Everything is checked before that.

    Raises UserError for every fault of the input, config or disk that can be known before the model runs.
    """
    data = proteins_section(run.config)
    files = input_files(data)
    n_input = count_records(files.sequences)  # a file of another format shows before a model is downloaded
    rows = choose_items(n_input, data.max_proteins, run.config.run.seed)
    model = _model(run)
    with nothing_left_on_failure([heartbeat(run)]):
        progress = Progress("prepare: reading proteins", n_input, NOUNS.items, heartbeat(run))
        sequences = read_sequences(files.sequences, model.alphabet, rows, progress.advance)
        progress.finish()
        used, said = _used(run, data, files, sequences, rows)
        windows = _windows(used.length, model, data.window_overlap)
        tokens = _token_counts(run, used.length, windows)
        spans = _span_table(used)
        spanned = [] if spans is None else spans["item_index"].unique()
        work = plan.workload(
            run, tokens,
            n_units=len(model.tokens), n_gene_values=int(np.minimum(used.length, len(model.tokens)).sum()),
            n_cell_types=used.items.n_labels, train_tokens=int(used.length[~used.items.heldout].sum()),
            span_tokens=int(np.minimum(tokens.stored, used.length)[spanned].sum()),
            n_concepts=0 if spans is None else spans["concept"].nunique(),
        )  # fmt: skip
        estimates = check_room(run, work, tokens)
    content = used.items.plan(
        run, n_input, tokens, n_residues=int(used.length.sum()), n_units=len(model.tokens), alphabet=model.alphabet,
        most_residues=model.most, window_overlap=data.window_overlap, n_windows=len(windows.item),
        n_items_in_windows=int((used.length > model.most).sum()),
    )  # fmt: skip
    table = None if spans is None else concepts(spans, used.items.heldout)
    if spans is not None and table is not None:
        listed = table.head(_MOST_CONCEPTS).to_dict("records")
        content |= {"n_spans": len(spans), "n_concepts": len(table), "concepts": listed}
    content["estimates"] = plan.as_dicts(estimates)
    content["notes"] = [*said, *_notes(data, used, model, windows), *_span_notes(used, spans, table)]
    _write(run, used, model, windows, spans)
    write_json(run.plan_file, content)
    _tell(content)
    tell_costs(content, work)
    tell_sampling(run, tokens, work)


def _model(run: Run) -> _Model:
    """Raises UserError for a model that has no letter for an unknown residue."""
    cache = run.config.paths.cache
    check_model(run.pinned_model, cache)
    tokens = unit_tokens(run.pinned_model, cache)
    if UNKNOWN not in tokens:
        raise UserError(
            f"{run.model_info.name} has no token for the residue {UNKNOWN}, which stands for unknown ones; use another model"
        )
    return _Model(run.model_info.name, tokens, most_residues(run.pinned_model, cache))


def _used(
    run: Run, data: ProteinsSection, files: InputFiles, sequences: Sequences, rows: npt.NDArray[np.int64]
) -> tuple[_Used, list[str]]:
    """The proteins used, and notes on their annotation."""
    by_accession = sequences.rows
    own = labels_of_records(sequences.labels, files.sequences.name)
    annotation = annotation_of(files, own, by_accession)
    labels = None if data.label_key is None else annotation.column(data.label_key, "data.label_key")[rows]
    groups = None
    if data.group_key is not None:
        groups = make_groups(
            data.group_key, annotation.column(data.group_key, "data.group_key")[rows],
            lambda i: sequences.accession[rows[i]], data.heldout_fraction, _WORDING,
        )  # fmt: skip
    items = split(run, len(rows), data.label_key, labels, groups)
    spans = None
    if files.spans is not None:
        spans = read_spans(files.spans, by_accession, sequences.length)
    elif is_jsonl(files.sequences):
        spans = read_spans(files.sequences, by_accession, sequences.length, own_file=True)
    used = _Used(rows, sequences, sequences.length[rows], items, spans)
    return used, notes.on_annotation(run, annotation, items)


def _windows(lengths: npt.NDArray[np.int64], model: _Model, overlap: int) -> Windows:
    if (lengths > model.most).any() and overlap >= model.most:
        raise UserError(
            f"data.window_overlap = {overlap}: {model.name} reads {model.most:,} residues at once, and windows must share fewer; "
            f"set it to {model.most // 8}"
        )
    return windows_of(lengths, model.most, min(overlap, model.most - 1))


def _token_counts(run: Run, lengths: npt.NDArray[np.int64], windows: Windows) -> TokenCounts:
    read = np.bincount(windows.item, weights=windows.stop - windows.start + N_SPECIAL, minlength=len(lengths))
    return TokenCounts(run, lengths, read.astype(np.int64), N_SPECIAL)


def _span_table(used: _Used) -> pd.DataFrame | None:
    """Spans of the proteins used, with their row in items.parquet: the columns of spans.parquet."""
    if used.spans is None:
        return None
    frame = used.spans.frame
    row = frame["row"].to_numpy(np.int64)
    index = np.minimum(np.searchsorted(used.rows, row), len(used.rows) - 1)
    return frame.assign(item_index=index)[used.rows[index] == row].reset_index(drop=True)


def _notes(data: ProteinsSection, used: _Used, model: _Model, windows: Windows) -> list[str]:
    found = notes.on_letters(used.sequences.letters, model.name)
    found += notes.on_windows(used.length, model.most, len(windows.item), data.window_overlap, model.name)
    digest = used.sequences.digest[used.rows]
    return found + copies_notes(digest, used.items.heldout, used.items.groups is not None, NOUNS, "sequence")


def _span_notes(used: _Used, spans: pd.DataFrame | None, table: pd.DataFrame | None) -> list[str]:
    if used.spans is None or spans is None or table is None:
        return []
    return notes.on_spans(used.spans, spans, table, used.items.heldout)


def _write(run: Run, used: _Used, model: _Model, windows: Windows, spans: pd.DataFrame | None) -> None:
    letters = np.array(list(model.tokens), dtype=object)
    Units(
        np.array(list(model.tokens.values()), dtype=np.int32),
        letters,
        np.array([unit_name(letter) for letter in letters], dtype=object),
        np.array([used.sequences.counts.get(letter, 0) for letter in letters], dtype=np.float64),
    ).write(run.units_file)
    items = pd.DataFrame(
        {
            "item": used.rows,
            "item_id": [used.sequences.accession[row] for row in used.rows],
            "name": [used.sequences.name[row] for row in used.rows],
            **used.items.columns(),
            "length": used.length.astype(np.int32),
            "n_windows": np.bincount(windows.item, minlength=len(used.rows)).astype(np.int32),
        }
    )
    ITEMS.write(items_file(run), items)
    if spans_file(run) in run.kind.prepare_files(run):
        empty = pd.DataFrame({column.name: [] for column in SPANS.columns})
        SPANS.write(spans_file(run), empty if spans is None else spans)


def _tell(content: dict[str, Any]) -> None:
    say(
        f"prepare: {content['n_items']:,} proteins, {content['n_heldout']:,} of them held out; {content['n_residues']:,} residues"
    )
    tell_groups(content)
    if "n_spans" in content:
        say(f"prepare: {content['n_spans']:,} spans of {content['n_concepts']:,} concepts")
