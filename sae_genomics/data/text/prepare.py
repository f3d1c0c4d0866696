"""Stage prepare for text: which documents are read, which are held out, which word pieces there are, what the run will cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.atomic import atomic_path, write_json
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
from sae_genomics.data.split import choose_items
from sae_genomics.data.text import notes
from sae_genomics.data.text.read import Corpus, read_corpus
from sae_genomics.data.text.settings import NOUNS, TextSection, text_section
from sae_genomics.data.text.source import Source, find_source
from sae_genomics.data.text.tables import ITEMS, documents_file
from sae_genomics.data.token_counts import TokenCounts
from sae_genomics.data.units import Units
from sae_genomics.errors import UserError
from sae_genomics.models import check_model, text_tokeniser
from sae_genomics.progress import Progress, say

if TYPE_CHECKING:
    from sae_genomics.models.word_pieces import TextTokeniser
    from sae_genomics.run import Run

_WORDING = GroupWording(NOUNS, "key", "authors or sources")


def prepare_text(run: Run) -> None:
    """Leave items.parquet, units.parquet, documents.txt and plan.json. Everything is checked before one of them is there.

    Raises UserError for every fault of the input, config or disk that can be known before the model runs.
    """
    data = text_section(run.config)
    source = find_source(data)
    n_input = source.count()  # an input that cannot be read shows before a model is downloaded
    rows = choose_items(n_input, data.max_documents, run.config.run.seed)
    if len(rows) != run.n_items:  # counted when the run began
        raise UserError(f"{source.path} changed since the run began; type the same command again")
    tokeniser = _tokeniser(run)
    copy = documents_file(run)
    with nothing_left_on_failure([heartbeat(run), copy]), atomic_path(copy) as temporary:
        corpus, items = _read(run, data, source, rows, tokeniser, temporary)
        tokens = TokenCounts(run, corpus.length - corpus.n_special, corpus.length, corpus.n_special)
        work = plan.workload(
            run, tokens,
            n_units=len(corpus.units), n_gene_values=int(corpus.n_pieces.sum()),
            n_cell_types=items.n_labels, train_tokens=int(tokens.ordinary[~items.heldout].sum()),
        )  # fmt: skip
        estimates = check_room(run, work, tokens)
    content = items.plan(
        run, n_input, tokens, n_units=len(corpus.units), n_tokens_special=int(corpus.n_special.sum()),
        n_items_cut=int((corpus.full_length > corpus.length).sum()),
        n_tokens_cut=int((corpus.full_length - corpus.length).sum()),
    )  # fmt: skip
    content["estimates"] = plan.as_dicts(estimates)
    content["notes"] = _notes(run, data, source, corpus, items, tokeniser.most_tokens)
    _write(run, rows, corpus, items, tokeniser)
    write_json(run.plan_file, content)
    _tell(content)
    tell_costs(content, work)
    tell_sampling(run, tokens, work)


def _tokeniser(run: Run) -> TextTokeniser:
    cache = run.config.paths.cache
    check_model(run.pinned_model, cache)
    return text_tokeniser(run.pinned_model, cache)


def _read(
    run: Run,
    data: TextSection,
    source: Source,
    rows: npt.NDArray[np.int64],
    tokeniser: TextTokeniser,
    copy: Path,
) -> tuple[Corpus, LabelledItems]:
    progress = Progress("prepare: reading documents", len(rows), NOUNS.items, heartbeat(run))
    corpus = read_corpus(source, rows, tokeniser, data.max_tokens, copy, progress.advance)
    progress.finish()
    labels = None if data.label_key is None else np.array(corpus.label, dtype=object)
    if labels is not None:
        _refuse_unknown_key(source, "data.label_key", data.label_key, labels)
    groups = None
    if data.group_key is not None:
        group = np.array(corpus.group, dtype=object)
        _refuse_unknown_key(source, "data.group_key", data.group_key, group)
        groups = make_groups(
            data.group_key, group, lambda i: corpus.item_id[i], data.heldout_fraction, _WORDING
        )  # fmt: skip
    return corpus, split(run, len(rows), data.label_key, labels, groups)


def _refuse_unknown_key(source: Source, setting: str, key: str | None, values: npt.NDArray[np.object_]) -> None:
    if any(value is not None for value in values):
        return
    there = ", ".join(list(source.keys)[:20])
    hint = f"set it to one of {there}" if there else "leave it out"
    raise UserError(f"{setting}: no document of {source.path} has a value for the key {key!r}; {hint}")


def _notes(run: Run, data: TextSection, source: Source, corpus: Corpus, items: LabelledItems, most: int) -> list[str]:
    """most: tokens that the model can read of a document."""
    limit = most if data.max_tokens is None else min(data.max_tokens, most)
    found = items.notes(run, *notes.without_keys(source))
    found += notes.on_cuts(corpus.length, corpus.full_length, limit, run.model_info.name, most)
    return found + copies_notes(corpus.digest, items.heldout, items.groups is not None, NOUNS, "text")


def _write(
    run: Run, rows: npt.NDArray[np.int64], corpus: Corpus, items: LabelledItems, tokeniser: TextTokeniser
) -> None:
    token = corpus.units
    pieces = tokeniser.spell(token)
    names = np.array([shown(piece) for piece in pieces], dtype=object)
    Units(token, np.array(pieces, dtype=object), names, corpus.counts[token].astype(np.float64)).write(run.units_file)
    table = pd.DataFrame(
        {
            "item": rows,
            "item_id": corpus.item_id,
            **items.columns(),
            "length": corpus.length.astype(np.int32),
            "n_special": corpus.n_special.astype(np.int32),
            "start": corpus.ptr[:-1],
            "stop": corpus.ptr[1:],
        }
    )
    ITEMS.write(items_file(run), table)


def shown(piece: str) -> str:
    """A word piece with the blanks at its ends as ␣: a table does not show them, and `the` is another piece than ` the`."""
    middle = piece.strip(" ")
    before = len(piece) - len(piece.lstrip(" "))
    return "␣" * before + middle + "␣" * (len(piece) - before - len(middle))


def _tell(content: dict[str, Any]) -> None:
    say(
        f"prepare: {content['n_items']:,} documents, {content['n_heldout']:,} of them held out; {content['n_tokens_read']:,} tokens of "
        f"{content['n_units']:,} word pieces"
    )
    tell_groups(content)
