"""On which items an edit is measured."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sae_genomics.causal.samples import evenly_of
from sae_genomics.causal.stored import fires_in
from sae_genomics.errors import UserError
from sae_genomics.intervene.subject import Subject
from sae_genomics.run import Run

Ints = npt.NDArray[np.int64]
HELDOUT, ALL, LABEL = "heldout", "all", "label="


def pool(run: Run, words: Sequence[str]) -> Ints:
    """The items that words name: int64, ascending rows of `read_items`. Held-out ones, unless `all` is named.

    Raises UserError for a word or label that is not known, and where no item is left.
    """
    nouns = run.kind.nouns
    for word in words:
        if word not in (HELDOUT, ALL) and not word.startswith(LABEL):
            raise UserError(f"--items {word}: it takes {HELDOUT}, {ALL} and {LABEL}VALUE")
    items = run.kind.read_items(run, ["heldout", "label"])
    chosen = np.ones(len(items), bool) if ALL in words else items["heldout"].to_numpy(bool)
    if not chosen.any():
        raise UserError(f"--items {HELDOUT}: run {run.name} holds out no {nouns.items}; type --items {ALL}")
    labels = [word.removeprefix(LABEL) for word in words if word.startswith(LABEL)]
    if labels:
        known = sorted(items["label"].dropna().astype(str).unique())
        for label in labels:
            if label not in known:
                near = difflib.get_close_matches(label, known, n=3, cutoff=0.3) or known[:5]
                raise UserError(
                    f"--items {LABEL}{label}: no {nouns.item} has this {nouns.label}; {'there are ' + ', '.join(near) if near else 'none has any'}"
                )
        chosen &= items["label"].isin(labels).to_numpy(bool)
        if not chosen.any():
            raise UserError(f"--items: no held-out {nouns.item} has {' or '.join(labels)}; type {ALL} beside it")
    return np.flatnonzero(chosen).astype(np.int64)


def spread(run: Run, layer: int, subject: Subject, rows: Ints, wanted: int, needs_activity: bool) -> Ints:
    """At most `wanted` of some items, at even distances; of those in which something is active at a stored token, where that matters.

    Raises UserError where nothing is active in any.
    """
    if needs_activity:
        looked_at = evenly_of(rows, run.config.causal.heldout_items)
        fires = fires_in(run, layer, subject.encoder, run.kind.read_units(run), looked_at)
        rows = looked_at[np.diff(fires[:, subject.features].tocsr().indptr) > 0]
        if not len(rows):
            raise UserError(
                f"{subject.name}: active in none of the {len(looked_at):,} {run.kind.nouns.items} that were looked at; name others with --items"
            )
    return evenly_of(rows, wanted)
