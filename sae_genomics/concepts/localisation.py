"""Where in an item a concept is: windows of high scores against annotated spans, beside a ceiling, random windows and prevalence."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.artifacts import CONCEPT_LOCALISATION, CONCEPT_WINDOWS
from sae_genomics.associations.multiple_testing import benjamini_hochberg
from sae_genomics.concepts import spans_found
from sae_genomics.concepts.held_out import HeldOut, Localised
from sae_genomics.concepts.resampling import generator, grouped_mean, p_of
from sae_genomics.concepts.spans_found import Found, Stretches
from sae_genomics.run import Run

DRAWS = 99
SHOWN, SHOWN_RANDOM = 5, 3
LONGEST = 120  # tokens of a picture


def write_localisation(run: Run, layer: int, held_out: HeldOut) -> None:
    """Leave both tables of the layer; with a note and without rows where no concept has spans."""
    folder, note = run.layer_results(layer), why_not(run, held_out)
    if note:
        for table in (CONCEPT_LOCALISATION, CONCEPT_WINDOWS):
            table.write(
                folder / table.file,
                pd.DataFrame({column.name: pd.Series(dtype=object) for column in table.columns}),
                note=note,
            )
        return
    at = stretches(held_out)
    found = spans_found.best_windows(at.score, at)
    iou = spans_found.ious(found, at)
    random = generator(run.config.run.seed, "concepts.localisation", layer)
    CONCEPT_LOCALISATION.write(folder / CONCEPT_LOCALISATION.file, scores_table(held_out, at, iou, random))
    ids = run.kind.read_items(run, ["item_id"])["item_id"].to_numpy(object)
    CONCEPT_WINDOWS.write(folder / CONCEPT_WINDOWS.file, examples_table(held_out, at, found, iou, ids, random))


def why_not(run: Run, held_out: HeldOut) -> str:
    """Why nothing can be localised; empty where something can."""
    nouns = run.kind.nouns
    if not any(concept.spans is not None for concept in held_out.concepts):
        return f"No concept of this run has annotated {nouns.spans}, so there is nothing to find within {nouns.items}."
    if held_out.spaced:
        return f"Only a sample of each {nouns.item}'s {nouns.tokens} is stored ({run.kind.key('activations.tokens_per_item')}), so windows mean nothing."
    if not len(held_out.localised.item):
        return f"No held-out {nouns.item} carries one of the concepts."
    return ""


def stretches(held_out: HeldOut) -> Stretches:
    """The localised pairs with their truth; the score is each token's minus the item's mean."""
    pairs = held_out.localised
    lengths = np.diff(pairs.ptr)
    score = pairs.score.astype(np.float64)
    of_token = np.repeat(np.arange(len(lengths)), lengths)
    score -= (np.bincount(of_token, score, len(lengths)) / np.maximum(lengths, 1))[of_token]
    mask = np.zeros(len(score), bool)
    of_concept, item = pairs.concept[of_token], pairs.item[of_token]
    for number, concept in enumerate(held_out.concepts):  # its spans are its own; the tokens of all items go at once
        mine = np.flatnonzero(of_concept == number)
        if concept.spans is not None and len(mine):
            mask[mine] = concept.spans.contain(item[mine], pairs.position[mine].astype(np.int64) - 1)
    n_spans = np.bincount(spans_found.runs(mask, pairs.ptr)[0], minlength=len(lengths))
    return Stretches(pairs.ptr, score, mask, held_out.stacked.window[pairs.concept], n_spans)


def _groups(held_out: HeldOut) -> npt.NDArray[np.int64]:
    """What counts once, of each pair."""
    pairs, group = held_out.localised, held_out.named.group
    by_item = np.array([concept.split_by == "item" for concept in held_out.concepts], bool)[pairs.concept]
    own = np.where(by_item, len(group) + pairs.item, group[pairs.item])
    return np.unique(own, return_inverse=True)[1].reshape(-1).astype(np.int64)


def scores_table(
    held_out: HeldOut, at: Stretches, iou: npt.NDArray[np.float64], random: np.random.Generator
) -> pd.DataFrame:
    """One row per concept that was localised."""
    pairs, group, n = held_out.localised, _groups(held_out), len(held_out.concepts)

    def mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return grouped_mean(values, pairs.concept, group, n, random).value

    measured = {
        "iou": grouped_mean(iou, pairs.concept, group, n, random),
        "hits": grouped_mean(spans_found.pointing_hits(at), pairs.concept, group, n, random),
        "auprc": grouped_mean(spans_found.average_precision(at), pairs.concept, group, n, random),
    }
    null = _null(at, pairs, group, n, random)
    p = p_of(measured["iou"].value, null)
    usable = np.isfinite(iou)
    columns = {
        "concept": [each.concept for each in held_out.vectors],
        "name": [each.name for each in held_out.vectors],
        "n_items": np.bincount(pairs.concept[usable], minlength=n),
        "n_groups": measured["iou"].n_groups,
        "n_spans": np.bincount(pairs.concept, at.n_spans, n).astype(np.int64),
        "window": held_out.stacked.window,
        "iou_ceiling": mean(spans_found.ceilings(at)),
        "iou_random": null.mean(axis=1),
        "iou_random_high": np.quantile(null, 0.95, axis=1),
        "p_value": p,
        "q_value": benjamini_hochberg(p),
        "prevalence": mean(np.where(at.n_spans > 0, spans_found.prevalence(at), np.nan)),
    }
    for name, each in measured.items():
        columns |= {name: each.value, f"{name}_low": each.low, f"{name}_high": each.high}
    frame = pd.DataFrame(columns)
    return frame[frame["n_items"] > 0].reset_index(drop=True)


def _null(
    at: Stretches, pairs: Localised, group: npt.NDArray[np.int64], n: int, random: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Mean IoU over groups of each draw of random windows: float64 [concepts, draws]; NaN for a concept without spans here."""
    drawn = spans_found.random_ious(at, DRAWS, random)
    usable = np.flatnonzero(np.isfinite(drawn[:, 0]))
    width = int(group.max(initial=0)) + 1
    cells, cell = np.unique(pairs.concept[usable] * width + group[usable], return_inverse=True)
    cell = cell.reshape(-1)
    sums = np.zeros((len(cells), DRAWS))
    np.add.at(sums, cell, drawn[usable])
    means = sums / np.bincount(cell, minlength=len(cells))[:, None]
    null = np.zeros((n, DRAWS))
    np.add.at(null, cells // width, means)
    with np.errstate(invalid="ignore", divide="ignore"):
        return null / np.bincount(cells // width, minlength=n)[:, None]


def examples_table(
    held_out: HeldOut, at: Stretches, found: Found, iou: npt.NDArray[np.float64], ids: npt.NDArray[np.object_],
    random: np.random.Generator,
) -> pd.DataFrame:  # fmt: skip
    """The best, the worst and random items of each concept, each cut to the part around its best window."""
    pairs = held_out.localised
    in_window = found.cover(len(at.score))
    best_start = at.ptr[:-1].copy()
    best_start[found.stretch[::-1]] = found.start[::-1]  # the first of each item is its best
    names = held_out.units.unit_id.astype(object)
    rows = []
    for number, vector in enumerate(held_out.vectors):  # a few pictures of each concept
        mine = np.flatnonzero((pairs.concept == number) & np.isfinite(iou))
        order = mine[np.argsort(-iou[mine], kind="stable")]
        best = order[:SHOWN]
        worst = order[len(best) :][::-1][:SHOWN]
        rest = order[len(best) : len(order) - len(worst)]
        drawn = np.sort(random.choice(rest, min(SHOWN_RANDOM, len(rest)), replace=False)) if len(rest) else rest
        for choice, chosen in (("best", best), ("worst", worst), ("random", drawn)):
            for rank, pair in enumerate(chosen, 1):
                first, last = int(at.ptr[pair]), int(at.ptr[pair + 1])
                start = max(
                    first, min(int(best_start[pair]) + int(at.widths[pair]) // 2 - LONGEST // 2, last - LONGEST)
                )
                shown = slice(start, min(start + LONGEST, last))
                rows.append({
                    "concept": vector.concept, "name": vector.name, "choice": choice, "rank": rank,
                    "item_id": ids[pairs.item[pair]], "iou": iou[pair], "start": int(pairs.position[start]), "length": last - first,
                    "units": names[pairs.unit[shown]], "scores": at.score[shown].astype(np.float32),
                    "in_span": at.mask[shown], "in_window": in_window[shown],
                })  # fmt: skip
    return pd.DataFrame(rows, columns=[column.name for column in CONCEPT_WINDOWS.columns])
