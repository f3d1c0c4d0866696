"""`thresholds.json`: from which score on an item has a concept, and how often that is right on items that nothing was chosen on.

A vector is fitted on training items. Its thresholds are chosen on one half of the held-out items and measured on the other half; whole
groups are in one half. Gene sets are concepts of genes: what their thresholds are about is a token (`gene_tokens.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sae_genomics.checked_json import read_checked_json, write_checked_json
from sae_genomics.concepts.choosing import (
    LEAST_RECALL,
    MEASURES,
    MOST_FALSE,
    RULES,
    TEST,
    VALIDATION,
    Scored,
    choose,
    halves,
    measure,
    measure_by_both,
)
from sae_genomics.concepts.files import THRESHOLDS_FILE
from sae_genomics.concepts.gene_tokens import LEAST_GENES, as_scored, gene_halves
from sae_genomics.concepts.held_out import HeldOut
from sae_genomics.concepts.resampling import generator
from sae_genomics.errors import DamagedArtifact
from sae_genomics.run import Run

FORMAT_VERSION = 1
LEAST = 2  # items (or groups) with the concept, and without, that each half needs
_RULES_SAY = {
    "f1_max": "the largest F1 on the validation half",
    "precision_at_recall_0.9": f"the largest threshold that finds at least {LEAST_RECALL:g} of the validation half's items with the concept",
    "fpr_0.05": f"the smallest threshold that takes at most {MOST_FALSE:g} of the validation half's other items for it",
}


def scored_items(held_out: HeldOut) -> Scored:
    """The items as thresholds see them: those that a concept's vector was not fitted on and that can tell.

    Groups of concepts that are split by item are the items themselves; where both kinds of split occur groups are numbered for each
    in turn, see `write_thresholds`.
    """
    named, items = held_out.named, held_out.items
    n = len(named.group)
    shape = (len(items), len(held_out.concepts))
    positive, counted = np.zeros(shape, bool), np.zeros(shape, bool)
    for number, concept in enumerate(held_out.concepts):
        if concept.kind == "gene_set" or (held_out.spaced and concept.spans is not None):
            continue
        truth = concept.item_truth(n)[items]
        positive[:, number] = truth == 1
        counted[:, number] = (truth >= 0) & named.heldout_of(concept)[items]
    return Scored(held_out.score, positive, counted, np.arange(len(items)))


def write_thresholds(run: Run, layer: int, held_out: HeldOut) -> None:
    """Leave the layer's registry."""
    scored = scored_items(held_out)
    entries: list[dict[str, Any] | None] = [None] * len(held_out.concepts)
    by_item = np.array([concept.split_by == "item" for concept in held_out.concepts], bool)
    group = np.unique(held_out.named.group[held_out.items], return_inverse=True)[1].reshape(-1)
    for columns, groups in ((np.flatnonzero(by_item), scored.group), (np.flatnonzero(~by_item), group)):
        if len(columns):
            part = Scored(scored.score[:, columns], scored.positive[:, columns], scored.counted[:, columns], groups)
            half = halves(part, generator(run.config.run.seed, "concepts.halves", 0))  # of all layers alike
            for number, entry in zip(columns, _entries(part, half), strict=True):
                entries[number] = entry
    for index, concept in enumerate(held_out.concepts):
        if concept.kind == "gene_set":
            entries[index] = _gene_set_entry(held_out, index, run.config.run.seed)
    found, left_out = [], []
    for index, (concept, entry) in enumerate(zip(held_out.concepts, entries, strict=True)):
        if entry is None:
            left_out.append({"concept": concept.id, "name": concept.name, "why": _why(held_out, index)})
            continue
        window = int(held_out.stacked.window[index])
        score = "token" if concept.kind == "gene_set" else "window" if window else "mean"
        about = {
            "concept": concept.id, "kind": concept.kind, "name": concept.name, "score": score,
            "window": window or None, "groups": concept.split_by,
        }  # fmt: skip
        found.append(about | entry)
    write_checked_json(
        run.layer_results(layer) / THRESHOLDS_FILE,
        {
            "format_version": FORMAT_VERSION, "layer": layer, "hook": run.config.model.hook, "model": run.model_info.identity,
            "rules": _RULES_SAY, "intervals": "95 %, Wilson's at the number of observations that the groups are worth",
            "concepts": found, "left_out": left_out,
        },
    )  # fmt: skip


def _gene_set_entry(held_out: HeldOut, number: int, seed: int) -> dict[str, Any] | None:
    """As of other concepts, with tokens in place of items; `genes` names those it was measured on, so that new data can be compared."""
    tokens, names = held_out.of_genes.of(number), held_out.units.unit_name
    half = gene_halves(
        tokens, held_out.named.group, generator(seed, f"concepts.halves {held_out.concepts[number].id}", 0)
    )
    if half is None:
        return None
    (entry,) = _entries(as_scored(tokens), half[:, None], held_out.named.group[tokens.item])
    if entry is None:
        return None
    tested = {
        name: sorted(map(str, names[np.unique(tokens.unit[(half == TEST) & (tokens.is_member == side)])]))
        for name, side in (("test_members", True), ("test_others", False))
    }
    return {**entry, "genes": {"members": sorted(map(str, names[held_out.concepts[number].units])), **tested}}


def _entries(
    scored: Scored, half: npt.NDArray[np.int8], other_group: npt.NDArray[np.int64] | None = None
) -> list[dict[str, Any] | None]:
    """half: int8 [rows, concepts]. other_group: int64 [rows], where rows belong to groups of two kinds: the wider interval is taken."""
    validation, test = scored.where(half == VALIDATION), scored.where(half == TEST)
    thresholds = choose(validation)
    measured = [
        measure(test, threshold) if other_group is None else measure_by_both(test, threshold, other_group)
        for threshold in thresholds
    ]
    chosen_at = [measure(validation, threshold)["f1"].value for threshold in thresholds]
    found: list[dict[str, Any] | None] = []
    for number in range(scored.score.shape[1]):
        sizes = [_size(part, number) for part in (validation, test)]
        if min(min(size) for size in sizes) < LEAST or not np.isfinite(thresholds[:, number]).all():
            found.append(None)
            continue
        (n_positive, n_negative), (test_positive, test_negative) = sizes
        counted = test.counted[:, number]
        entry: dict[str, Any] = {
            "n_validation": n_positive + n_negative, "n_validation_positive": n_positive,
            "n_test": test_positive + test_negative, "n_test_positive": test_positive,
            "n_test_groups": len(np.unique(test.group[counted])),
            "prevalence": test_positive / (test_positive + test_negative),
            "thresholds": {
                rule: {"threshold": float(thresholds[index, number]), "f1_validation": float(chosen_at[index][number])}
                | {name: _numbers(measured[index][name], number) for name in MEASURES}
                for index, rule in enumerate(RULES)
            },
        }  # fmt: skip
        found.append(entry)
    return found


def _size(part: Scored, number: int) -> tuple[int, int]:
    used = part.counted[:, number] & np.isfinite(part.score[:, number])
    positive = int((used & part.positive[:, number]).sum())
    return positive, int(used.sum()) - positive


def _numbers(interval: Any, number: int) -> list[float | None]:
    """Value, low, high; null where a number is not known, such as the precision of a threshold that nothing passes."""
    values = (float(each[number]) for each in (interval.value, interval.low, interval.high))
    return [value if np.isfinite(value) else None for value in values]


def _why(held_out: HeldOut, number: int) -> str:
    concept = held_out.concepts[number]
    if concept.kind == "gene_set":
        return (
            f"each half of the held-out genes needs {LEAST_GENES} genes of the set and {LEAST_GENES} others with tokens"
        )
    if held_out.spaced and concept.spans is not None:
        return "only a sample of each item's tokens is stored, so that windows of tokens mean nothing"
    return f"each half of the held-out items needs {LEAST} items with the concept and {LEAST} without"


def read_thresholds(folder: Any) -> dict[str, Any]:
    """A layer's registry. Raises DamagedArtifact where it is not there, or not as it was written."""
    path = folder / THRESHOLDS_FILE
    content = read_checked_json(path)
    if content is None:
        raise DamagedArtifact(f"{path} is not there; run the stage concepts again", path)
    return content
