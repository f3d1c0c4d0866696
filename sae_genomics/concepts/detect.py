"""Concepts in new data, by a finished run's vectors and thresholds. Activations are scored as the model gives them and never stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.concepts.choosing import MEASURES, Scored, measure, measure_by_both
from sae_genomics.concepts.detect_sets import Sets
from sae_genomics.concepts.files import THRESHOLDS_FILE
from sae_genomics.concepts.gene_tokens import GeneTokens, as_scored
from sae_genomics.concepts.item_scores import Stacked, of_items, window_means
from sae_genomics.concepts.named import Concept, group_numbers, label_concepts, span_concepts
from sae_genomics.concepts.resampling import Interval
from sae_genomics.concepts.thresholds import read_thresholds
from sae_genomics.concepts.vectors import read_vectors
from sae_genomics.config import RunConfig, load_config
from sae_genomics.data.kinds import kind_named
from sae_genomics.errors import UserError
from sae_genomics.progress import Progress, stop_point
from sae_genomics.run import Run

ITEMS_AT_ONCE = 64
COLUMNS = [
    "item_id", "concept", "name", "kind", "layer", "score", "threshold", "detected", "start", "end", "n_tokens", "share", "share_others", "genes",
]  # fmt: skip
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Detector:
    """Some concepts of one layer. known: entries of thresholds.json. threshold: float64 [concepts]."""

    layer: int
    known: tuple[dict[str, Any], ...]
    stacked: Stacked
    threshold: npt.NDArray[np.float64]


def detectors(
    run: Run, layers: Sequence[int] | None, rule: str, concepts: Sequence[str] | None = None
) -> list[Detector]:
    """Of each concept those of the layers named; without any, the layer with the largest F1 on validation items.

    concepts: ids of the wanted ones; None: all.

    Raises UserError where the run has no thresholds, or thresholds for another model.
    """
    found: dict[int, tuple[list[dict[str, Any]], list[Any]]] = {}
    for layer in run.layers if layers is None else layers:
        folder = run.layer_results(layer)
        if layer not in run.layers:
            raise UserError(f"--layers {layer}: run {run.name} has the layers {', '.join(map(str, run.layers))}")
        if not (folder / THRESHOLDS_FILE).exists():
            config = run.config_file or "CONFIG"
            raise UserError(
                f"{folder / THRESHOLDS_FILE} is not there; make it with: python scripts/06_concepts.py --config {config} --set concepts.enabled=true"
            )
        registry = read_thresholds(folder)
        if registry["model"] != run.model_info.identity:
            raise UserError(
                f"{folder / THRESHOLDS_FILE} is of another model than {run.model_info.name}; run the stage concepts again"
            )
        vectors = {each.concept: each for each in read_vectors(folder)}
        known = [each for each in registry["concepts"] if each["concept"] in vectors]
        known = [each for each in known if concepts is None or each["concept"] in concepts]
        found[layer] = (known, [vectors[each["concept"]] for each in known])
    missing = sorted(set(concepts or ()) - {each["concept"] for known, _ in found.values() for each in known})
    if missing:
        raise UserError(
            f"--concepts {missing[0]}: run {run.name} has no thresholds for it; {THRESHOLDS_FILE} lists the ids"
        )
    if layers is None:
        found = _best_layer(found, rule)
    if not any(known for known, _ in found.values()):
        raise UserError(
            f"run {run.name} has no concept with thresholds; its held-out items are too few (see left_out in {THRESHOLDS_FILE})"
        )
    return [
        Detector(
            layer, tuple(known), Stacked.of(vectors, [each["window"] or 0 for each in known]),
            np.array([each["thresholds"][rule]["threshold"] for each in known], np.float64),
        )
        for layer, (known, vectors) in found.items()
        if known
    ]  # fmt: skip


def _best_layer(found: dict[int, tuple[list[dict[str, Any]], list[Any]]], rule: str) -> dict[int, Any]:
    best: dict[str, tuple[float, int]] = {}
    for layer, (known, _) in found.items():
        for each in known:
            f1 = each["thresholds"][rule]["f1_validation"]
            if each["concept"] not in best or f1 > best[each["concept"]][0]:
                best[each["concept"]] = (f1, layer)
    chosen = {}
    for layer, (known, vectors) in found.items():
        kept = [index for index, each in enumerate(known) if best[each["concept"]][1] == layer]
        chosen[layer] = ([known[index] for index in kept], [vectors[index] for index in kept])
    return chosen


def run_on(run: Run, data: Path, settings: dict[str, Any], folder: Path) -> Run:
    """A run of the same model on other data, below `folder`. data: the new file, or a config whose data are meant.

    settings: further keys of the section `data`; None is left out. Raises UserError for a setting that the kind does not have.
    """
    kind = run.kind
    if data.suffix in (".yaml", ".yml"):
        section = load_config(data).data
        if section.kind != kind.name:
            raise UserError(f"{data}: its data are {section.kind}, and run {run.name} reads {kind.name}")
        values = section.model_dump(exclude_unset=True)
    else:
        known = run.config.data.model_dump(exclude_unset=True)
        values = {key: value for key, value in known.items() if key in kind.carried_keys}
        values |= {"kind": kind.name, "path": str(data)}
    values |= {name: value for name, value in settings.items() if value is not None}
    values |= {"heldout_fraction": 0.0}
    unknown = sorted(set(values) - set(kind_named(kind.name).section.model_fields))
    if unknown:
        raise UserError(f"data of the kind {kind.name} have no setting {unknown[0]}; leave it out")
    paths = run.config.paths.model_copy(update={name: folder / name for name in ("results", "checkpoints", "logs")})
    # Each token of the new items counts: a sample of them is a matter of storage.
    activations = run.config.activations.model_copy(update={"tokens_per_cell": None})
    config: RunConfig = run.config.model_copy(
        update={"data": kind.section(**values), "paths": paths, "activations": activations}
    )
    return Run(config, run.config_file, run.overrides, is_owner=False)


@dataclass(frozen=True)
class Detected:
    """score: float64 [items, concepts] of each detector. rows: what is found, see `detect`. of_genes: of each detector, tokens of the genes
    that the registry of its gene sets was measured on."""

    score: list[npt.NDArray[np.float64]]
    rows: pd.DataFrame
    of_genes: list[GeneTokens]


@dataclass(frozen=True)
class _Tokens:
    """Every counted token of some items, item by item in the order of positions. scores: by each detector, float32 [T, concepts]. ptr: int64
    [items + 1]. position, unit: [T]."""

    scores: list[npt.NDArray[np.float32]]
    ptr: Int64
    position: npt.NDArray[np.int32]
    unit: npt.NDArray[np.int32]


def detect(new: Run, found: Sequence[Detector], everything: bool = False) -> Detected:
    """Score every item. new: prepared. everything: a row also for what is not found.

    Columns of rows: item_id, concept, name, kind, layer, score, threshold, detected, start and end (residues from 1, of the stretch that windows
    above the threshold cover; of the best window where none is; null where the whole item counts). Of gene sets also n_tokens (of the set's
    genes in the item), share (of these above the threshold), share_others (of all other tokens) and genes (names of those above).
    """
    from sae_genomics.activations.extraction.extract import loaded_model

    model, hook = loaded_model(new, may_compile=False), new.config.model.hook
    ids = new.kind.read_items(new, ["item_id"])["item_id"].to_numpy(object)
    progress = Progress("detect", len(ids), new.kind.nouns.items, None)
    scores: list[list[npt.NDArray[np.float64]]] = [[] for _ in found]
    of_genes: list[list[GeneTokens]] = [[] for _ in found]
    sets = [Sets.of(detector.known, new.kind.read_units(new)) for detector in found]
    rows = []
    for first in range(0, len(ids), ITEMS_AT_ONCE):
        stop_point()
        indices = np.arange(first, min(first + ITEMS_AT_ONCE, len(ids)), dtype=np.int64)
        tokens = model.tokenise(new.kind.read(new, indices), new.config.run.seed)
        scored = _token_scores(new, model, hook, tokens, found, len(indices))
        item = np.repeat(indices, np.diff(scored.ptr))
        for number, (detector, values) in enumerate(zip(found, scored.scores, strict=True)):
            score, start = of_items(values, scored.ptr, detector.stacked.window)
            rows.append(_rows(detector, values, scored, ids[indices], score, start, everything))
            if len(sets[number].numbers):
                score[:, sets[number].numbers], part = _set_rows(
                    detector, sets[number], values, scored, ids[indices], everything
                )
                rows.append(part)
                of_genes[number].append(sets[number].tokens(values, item, scored.unit))
            scores[number].append(score)
        progress.advance(len(indices))
    progress.finish()
    frame = pd.concat(rows, ignore_index=True)
    order = {each: number for number, each in enumerate(ids)}
    frame = frame.assign(order=frame["item_id"].map(order)).sort_values(
        ["order", "concept", "layer", "start"], kind="stable"
    )
    return Detected(
        [np.concatenate(parts) for parts in scores],
        frame.drop(columns="order").reset_index(drop=True),
        [GeneTokens.joined(parts) for parts in of_genes],
    )


def _token_scores(new: Run, model: Any, hook: str, tokens: Any, found: Sequence[Detector], n_items: int) -> _Tokens:
    """Read items by the model, and score their tokens."""
    from sae_genomics.activations.extraction.cutting import cut_batches

    layers = sorted({detector.layer for detector in found})
    made = [np.zeros((len(tokens), len(detector.known)), np.float32) for detector in found]
    finite = np.ones(len(tokens), bool)
    for sequences in cut_batches(tokens.lengths, new.config.activations.batch_tokens):
        rows = np.concatenate([np.arange(*tokens.item_ptr[each : each + 2]) for each in sequences])
        activations = model.forward_layers(tokens.take(sequences), layers, hook)
        for detector, values in zip(found, made, strict=True):
            part = detector.stacked.scores(activations[detector.layer].float().cpu().numpy())
            finite[rows] &= np.isfinite(part).all(axis=1)
            values[rows] = part
    counted = (tokens.unit >= 0) & ~tokens.special & finite
    if tokens.stored is not None:
        counted &= tokens.stored
    chosen = np.flatnonzero(counted)
    items = new.kind.read_items(new, ["item"])["item"].to_numpy(np.int64)
    first = int(np.searchsorted(items, tokens.item.min())) if len(tokens) else 0
    of = np.searchsorted(items, tokens.item[chosen]) - first
    order = chosen[np.lexsort((tokens.position[chosen], of))]
    ptr = np.concatenate([[0], np.cumsum(np.bincount(of, minlength=n_items))])
    return _Tokens([values[order] for values in made], ptr, tokens.position[order], tokens.unit[order])


def _rows(
    detector: Detector, values: npt.NDArray[np.float32], scored: _Tokens, ids: npt.NDArray[np.object_],
    score: npt.NDArray[np.float64], start: Int64, everything: bool,
) -> pd.DataFrame:  # fmt: skip
    """Of the concepts that are no gene sets."""
    ptr, position = scored.ptr, scored.position
    score = np.where([each["score"] == "token" for each in detector.known], np.nan, score)
    above = score >= detector.threshold
    whole = detector.stacked.window == 0
    item, concept = np.nonzero(
        (above & whole) if not everything else (whole & np.isfinite(score)) | (np.isfinite(score) & ~above)
    )
    width = np.minimum(detector.stacked.window[concept], np.diff(ptr)[item])
    begin = ptr[item] + np.maximum(start[item, concept], 0)
    has = ~whole[concept]
    low, high = (
        np.where(has, position[np.minimum(begin, len(position) - 1)], -1),
        np.where(has, position[np.minimum(begin + width, len(position)) - 1], -1),
    )
    parts = [_frame(detector, ids, item, concept, score[item, concept], above[item, concept], low, high)]
    windows = np.flatnonzero(~whole)
    if len(windows) and above[:, windows].any():
        item, number, first, last, best = _stretches(
            values[:, windows], ptr, detector.stacked.window[windows], detector.threshold[windows]
        )
        parts.append(
            _frame(
                detector,
                ids,
                item,
                windows[number],
                best,
                np.ones(len(item), bool),
                position[first],
                position[last - 1],
            )
        )
    return pd.concat(parts, ignore_index=True)


def _set_rows(
    detector: Detector, sets: Sets, values: npt.NDArray[np.float32], scored: _Tokens, ids: npt.NDArray[np.object_], everything: bool
) -> tuple[npt.NDArray[np.float64], pd.DataFrame]:  # fmt: skip
    """Of the gene sets: the items' scores, float64 [items, sets], and rows."""
    found = sets.found(values, scored.ptr, scored.unit, detector.threshold)
    item, column = np.nonzero(np.isfinite(found.score) if everything else found.detected)
    nowhere = np.full(len(item), -1)
    at = (item, column)
    rows = _frame(detector, ids, item, sets.numbers[column], found.score[at], found.detected[at], nowhere, nowhere)
    return found.score, rows.assign(
        n_tokens=pd.array(found.n_tokens[at], "Int32"),
        share=found.share[at],
        share_others=found.share_others[at],
        genes=found.genes(item, column, scored.ptr, sets.names[scored.unit]),
    )


def _stretches(
    values: npt.NDArray[np.float32], ptr: Int64, window: Int64, threshold: npt.NDArray[np.float64]
) -> tuple[Int64, Int64, Int64, Int64, npt.NDArray[np.float64]]:
    """Stretches that windows above the threshold cover: item, column, first token, one past the last, score of the best window."""
    means = window_means(values, ptr, window)
    token, column = np.nonzero(threshold[:, None] <= means.T)[::-1]  # column after column, tokens ascending
    item = np.searchsorted(ptr, token, side="right") - 1
    stop = token + np.minimum(window[column], np.diff(ptr)[item])
    new = np.ones(len(token), bool)
    new[1:] = (column[1:] != column[:-1]) | (item[1:] != item[:-1]) | (token[1:] > stop[:-1])
    begins = np.flatnonzero(new)
    ends = np.append(begins[1:], len(token)) - 1
    best = np.maximum.reduceat(means[token, column], begins) if len(begins) else np.zeros(0)
    return item[begins], column[begins], token[begins], stop[ends], best


def _frame(
    detector: Detector, ids: npt.NDArray[np.object_], item: Int64, concept: Int64, score: npt.NDArray[np.float64], above: npt.NDArray[np.bool_],
    start: npt.NDArray[np.integer], end: npt.NDArray[np.integer],
) -> pd.DataFrame:  # fmt: skip
    known = [{name: each[name] for name in ("concept", "name", "kind")} for each in detector.known]
    about = pd.DataFrame(known).iloc[concept].reset_index(drop=True)
    place = {"start": pd.array(start, "Int32"), "end": pd.array(end, "Int32")}
    frame = about.assign(
        item_id=ids[item],
        layer=detector.layer,
        score=score,
        threshold=detector.threshold[concept],
        detected=above,
        **place,
        n_tokens=pd.array([pd.NA] * len(item), "Int32"),
        share=np.nan,
        share_others=np.nan,
        genes=None,
    )
    for name in place:
        frame.loc[frame[name] < 0, name] = pd.NA
    return frame[COLUMNS]


def compare(new: Run, found: Sequence[Detector], detected: Detected, rule: str) -> pd.DataFrame:
    """Precision and recall in the new data, of the concepts that it has annotations of, beside the registry's. Empty without any.

    As in the registry, items without any span cannot tell which spans they lack, and items without a label which label.
    Intervals count groups where the new data have some. Gene sets need no annotation: tokens are counted, of the held-out genes that the
    registry was measured on (n_items, n_positive: tokens; counted: token), and intervals count genes or groups of items, whichever is wider.
    """
    truth = _truth(new)
    rows: list[dict[str, Any]] = []
    n, group = new.n_items, group_numbers(new.kind.read_items(new, ["group"])["group"])
    for detector, score, of_genes in zip(found, detected.score, detected.of_genes, strict=True):
        for number in np.unique(of_genes.concept).tolist():
            tokens = of_genes.of(number)
            row = {"counted": "token", "n_items": len(tokens.item), "n_positive": int(tokens.is_member.sum())}
            at = measure_by_both(as_scored(tokens), detector.threshold[[number]], group[tokens.item])
            rows.append(_compared(detector, number, at, 0, rule) | row)
        numbers = [number for number, each in enumerate(detector.known) if each["concept"] in truth]
        if not numbers:
            continue
        known = np.stack([truth[detector.known[number]["concept"]].item_truth(n) for number in numbers], axis=1)
        scored = Scored(score[:, numbers], known == 1, known >= 0, group)
        measured = measure(scored, detector.threshold[numbers])
        for column, number in enumerate(numbers):
            row = {"n_items": int((known[:, column] >= 0).sum()), "n_positive": int((known[:, column] == 1).sum())}
            rows.append(_compared(detector, number, measured, column, rule) | {"counted": "item"} | row)
    return pd.DataFrame(rows)


def _compared(detector: Detector, number: int, measured: dict[str, Interval], column: int, rule: str) -> dict[str, Any]:
    """A concept's measures in the new data and in the registry. column: of `measured`."""
    entry = detector.known[number]
    row = {"concept": entry["concept"], "name": entry["name"], "layer": detector.layer}
    row |= {"prevalence_registry": entry["prevalence"]}
    for name in MEASURES:
        values = entry["thresholds"][rule][name]
        row |= {name: float(measured[name].value[column])}
        row |= {f"{name}_{end}": float(getattr(measured[name], end)[column]) for end in ("low", "high")}
        row |= dict(zip((f"{name}_registry", f"{name}_registry_low", f"{name}_registry_high"), values, strict=True))
    return row


def _truth(new: Run) -> dict[str, Concept]:
    spans, labels = new.kind.read_spans(new), new.kind.read_items(new, ["label"])["label"]
    concepts = label_concepts(labels) if labels.notna().any() else []
    if spans is not None and len(spans):
        concepts += span_concepts(spans)
    return {each.id: each for each in concepts}
