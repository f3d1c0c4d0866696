"""The concepts of a run: from its labels, its spans, gene sets, and files of examples.

- label: items with the label against items with another one. Items without a label count for nothing.
- span: residues within a domain against residues outside, in items that carry at least one span of any concept. An item without any span
  was perhaps never annotated, and cannot tell.
- gene_set: tokens of the set's genes against tokens of other genes in the same tenth of expression.
- examples: what the user's files say (`examples.py`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.concepts.concept import Bools, Concept, Ints, LeftOut, NamedConcepts, Spans
from sae_genomics.concepts.examples import example_concepts
from sae_genomics.concepts.item_table import input_columns, more_columns

if TYPE_CHECKING:
    from sae_genomics.concepts.section import ConceptsConfig
    from sae_genomics.data.units import Units
    from sae_genomics.run import Run
    from sae_genomics.validation.gene_sets import Collection

N_BINS = 10  # of expression, within which genes are alike
OTHERS_PER_GENE = 4
LEAST_HELDOUT = 2  # of groups or items, on each side of the split, with the concept and without
LEAST_HELDOUT_GENES = 3
_SHARE_ALONE = 0.25
_UNIT_SHARE = 1 / 3

__all__ = ["Concept", "LeftOut", "NamedConcepts", "Spans", "concepts_of"]


def concepts_of(run: Run, columns: pd.DataFrame | None = None) -> NamedConcepts:
    """All concepts that the settings ask for and the data can tell. columns: `input_columns`, where they are read already. Raises UserError for a file of examples that cannot be used."""
    settings = run.config.concepts
    wanted = ["item", "item_id", "heldout", "group", "label"]
    items, units = run.kind.read_items(run, wanted), run.kind.read_units(run)
    spans = run.kind.read_spans(run) if "span" in settings.kinds else None
    heldout_units = split_units(len(units), run.config.run.seed)
    parts = []
    if "label" in settings.kinds:
        parts.append(frequent_labels(items["label"], settings))
        parts += further_labels(run, items["item_id"], input_columns(run) if columns is None else columns)
    if spans is not None:
        parts.append(_large_enough(span_concepts(spans), settings))
    if "gene_set" in settings.kinds and run.kind.units_are_genes and settings.gene_sets:
        parts.append(gene_set_concepts(_collections(run), units, heldout_units, settings, run.config.run.seed))
    if "examples" in settings.kinds and settings.examples:
        parts.append(_large_enough(example_concepts(run, items["item_id"]), settings))
    found = [concept for concepts, _ in parts for concept in concepts]
    left_out = [each for _, out in parts for each in out]
    return with_split(found, left_out, items, heldout_units, run.config.run.seed)


def _collections(run: Run) -> list[Collection]:
    """The built-in gene sets and those of validation.gmt; downloaded databases are validate's."""
    from sae_genomics.validation.databases import load_collections

    settings = run.config.validation
    return load_collections(settings) if settings.builtin or settings.gmt or settings.sources else []


def _large_enough(concepts: list[Concept], settings: ConceptsConfig) -> tuple[list[Concept], list[LeftOut]]:
    """Those with enough items, at most `max_concepts` of them, the largest ones."""
    n = np.array([len(each.items) for each in concepts], np.int64)
    n_others = np.array([len(each.others) + (len(each.items) if each.spans else 0) for each in concepts], np.int64)
    enough = np.flatnonzero(np.minimum(n, n_others) >= settings.min_items)
    kept = set(enough[np.argsort(-n[enough], kind="stable")][: settings.max_concepts].tolist())
    left_out = [
        LeftOut(each.id, each.kind, each.name, _why(int(n[i]), int(n_others[i]), settings))
        for i, each in enumerate(concepts)
        if i not in kept
    ]
    return [each for i, each in enumerate(concepts) if i in kept], left_out


def further_labels(
    run: Run, item_ids: pd.Series, columns: pd.DataFrame
) -> Iterator[tuple[list[Concept], list[LeftOut]]]:
    """The concepts of concepts.label_columns and of the columns of concepts.labels, called `column: value`. Raises as `more_columns` does."""
    settings = run.config.concepts
    asked = ("concepts.labels", "concepts.label_columns")
    placed = more_columns(run, item_ids, settings.labels, columns[settings.label_columns], asked)
    for column in placed.columns:
        values = placed[column].map(
            lambda value: f"{value:g}" if isinstance(value, float) else value, na_action="ignore"
        )
        yield frequent_labels(values, settings, f"{column}: ", own_columns(run).get(str(column), str(column)))


def own_columns(run: Run) -> dict[str, str]:
    """The columns of the input that every run knows by another name: those of labels and of groups."""
    data = run.config.data
    label_key = getattr(data, "label_key", None) or getattr(data, "cell_type_key", None)
    return {str(key): name for key, name in ((data.group_key, "group"), (label_key, "label")) if key is not None}


def label_concepts(
    labels: pd.Series, prefix: str = "", wanted: Ints | None = None, column: str = "label"
) -> list[Concept]:
    """One concept per label. labels: [items], text or None. prefix: of the names. wanted: numbers of sorted labels; None: all."""
    codes, values = pd.factorize(labels, sort=True)
    known = np.flatnonzero(codes >= 0)
    code = codes[known]
    return [
        Concept(
            f"label:{prefix}{values[i]}",
            "label",
            f"{prefix}{values[i]}",
            "item",
            known[code == i],
            known[code != i],
            column=column,
        )
        for i in (range(len(values)) if wanted is None else wanted.tolist())
    ]


def frequent_labels(
    labels: pd.Series, settings: ConceptsConfig, prefix: str = "", column: str = "label"
) -> tuple[list[Concept], list[LeftOut]]:
    """Concepts of the most frequent labels with enough items, and the other labels.

    A concept is made for those alone: of thousands of families, lists of the items without each would not fit the memory.
    """
    codes, values = pd.factorize(labels, sort=True)
    n_known = int((codes >= 0).sum())
    sizes = np.bincount(codes[codes >= 0], minlength=len(values))
    enough = np.flatnonzero(np.minimum(sizes, n_known - sizes) >= settings.min_items)
    kept = np.sort(enough[np.argsort(-sizes[enough], kind="stable")][: settings.max_concepts])
    left_out = [
        LeftOut(
            f"label:{prefix}{values[i]}", "label", f"{prefix}{values[i]}",
            _why(int(sizes[i]), n_known - int(sizes[i]), settings),
        )
        for i in np.setdiff1d(np.arange(len(values)), kept)
    ]  # fmt: skip
    return label_concepts(labels, prefix, kept, column), left_out


def _why(n: int, n_others: int, settings: ConceptsConfig) -> str:
    """Why a concept of so many items, and so many to tell it from, has no vector."""
    if min(n, n_others) < settings.min_items:
        return f"{n:,} items with it and {n_others:,} that tell it from; concepts.min_items is {settings.min_items}"
    return f"{n:,} items with it; others have more (concepts.max_concepts = {settings.max_concepts})"


def span_concepts(spans: pd.DataFrame) -> list[Concept]:
    """One concept per kind of span. spans: as `DataKind.read_spans` gives them."""
    tell = np.unique(spans["item_index"].to_numpy(np.int64))
    concepts = []
    for concept, rows in spans.groupby("concept", sort=True):
        where = Spans.of(rows["item_index"], rows["start"], rows["stop"])
        carriers = np.unique(where.item)
        others = tell[~np.isin(tell, carriers, assume_unique=True)]
        concepts.append(
            Concept(f"span:{concept}", "span", str(rows["name"].iloc[0]), "token", carriers, others, spans=where)
        )
    return concepts


def gene_set_concepts(
    collections: list[Collection],
    units: Units,
    heldout_units: Bools,
    settings: ConceptsConfig,
    seed: int,
) -> tuple[list[Concept], list[LeftOut]]:
    """The `concepts.gene_sets` sets with the most genes of the data, each with matched other genes, on either side of the split."""
    place = {str(name).upper(): row for row, name in enumerate(units.unit_name)}
    bins = expression_bins(units.counts)
    sized: list[tuple[str, str, Ints]] = []
    left_out: list[LeftOut] = []
    for collection in collections:
        for gene_set in collection.sets:
            rows = np.array(sorted({place[gene.upper()] for gene in gene_set.genes if gene.upper() in place}), np.int64)
            n_heldout = int(heldout_units[rows].sum())
            if len(rows) < settings.min_genes or min(n_heldout, len(rows) - n_heldout) < LEAST_HELDOUT_GENES:
                why = f"{len(rows)} genes of the data, {n_heldout} of them held out; concepts.min_genes is {settings.min_genes}"
                left_out.append(LeftOut(f"gene_set:{gene_set.term}", "gene_set", gene_set.term, why))
            else:
                sized.append((collection.name, gene_set.term, rows))
    sized.sort(key=lambda each: -len(each[2]))
    for _, term, rows in sized[settings.gene_sets :]:
        why = f"{len(rows)} genes of the data; others have more (concepts.gene_sets = {settings.gene_sets})"
        left_out.append(LeftOut(f"gene_set:{term}", "gene_set", term, why))
    taken = sized[: settings.gene_sets]
    twice = pd.Series([term for _, term, _ in taken], dtype=object).duplicated(keep=False)
    names = [f"{source}/{term}" if double else term for (source, term, _), double in zip(taken, twice, strict=True)]
    concepts = [
        Concept(
            f"gene_set:{name}", "gene_set", term, "token", units=rows,
            other_units=matched_units(rows, bins, heldout_units, np.random.default_rng([seed, zlib.crc32(name.encode())])),
            split_by="gene",
        )
        for name, (_, term, rows) in zip(names, taken, strict=True)
    ]  # fmt: skip
    return concepts, left_out


def expression_bins(counts: npt.NDArray[np.float64]) -> Ints:
    """Which tenth of all units each is in by its counts: int64 [units]."""
    rank = np.empty(len(counts), np.int64)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    return rank * N_BINS // max(len(counts), 1)


def matched_units(members: Ints, bins: Ints, heldout: Bools, rng: np.random.Generator) -> Ints:
    """Other units, OTHERS_PER_GENE for each member where there are as many in its bin on its side of the split: int64, ascending."""
    is_member = np.zeros(len(bins), bool)
    is_member[members] = True
    stratum = bins * 2 + heldout
    wanted = OTHERS_PER_GENE * np.bincount(stratum[members], minlength=2 * N_BINS)
    candidates = rng.permutation(np.flatnonzero(~is_member))
    order = candidates[np.argsort(stratum[candidates], kind="stable")]
    of = stratum[order]
    number = np.arange(len(order)) - np.searchsorted(of, of)
    return np.sort(order[number < wanted[of]])


def split_units(n_units: int, seed: int) -> Bools:
    """A third of the units, held out: bool [units]."""
    rng = np.random.default_rng([seed, zlib.crc32(b"concepts.units")])
    heldout: Bools = rng.permutation(n_units) < round(n_units * _UNIT_SHARE)
    return heldout


def with_split(
    concepts: list[Concept], left_out: list[LeftOut], items: pd.DataFrame, heldout_units: Bools, seed: int
) -> NamedConcepts:
    """Say of each concept what it is split by. items: heldout, group."""
    heldout = items["heldout"].to_numpy(bool)
    grouped = bool(items["group"].notna().any())
    group = group_numbers(items["group"])
    alone = heldout
    if grouped or not heldout.any():
        rng = np.random.default_rng([seed, zlib.crc32(b"concepts.items")])
        alone = rng.permutation(len(items)) < round(len(items) * _SHARE_ALONE)
    split = [
        replace(each, split_by="group") if grouped and each.split_by != "gene" and _fits(each, heldout, group) else each
        for each in concepts
    ]
    return NamedConcepts(tuple(split), tuple(left_out), group, heldout, alone, heldout_units)


def _fits(concept: Concept, heldout: Bools, group: Ints) -> bool:
    """Whether both sides of a split have groups with the concept and groups without."""
    others = concept.others if concept.spans is None else np.concatenate([concept.items, concept.others])
    return all(
        len(np.unique(group[side[heldout[side] == part]])) >= LEAST_HELDOUT
        for side in (concept.items, others)
        for part in (False, True)
    )


def group_numbers(groups: pd.Series) -> Ints:
    """int64 [items]; an item without a group gets a number of its own."""
    codes = pd.factorize(groups)[0].astype(np.int64)
    missing = codes < 0
    codes[missing] = codes.max(initial=-1) + 1 + np.arange(missing.sum())
    return codes
