"""Move items of one label toward another, and see how far they go beside random directions of the same length.

Directions and markers come from every second training item, m_A and m_B, the mean embeddings of both labels, from the others: else a
direction of pure noise would lead toward its own noise. What directions do is measured on held-out items of the label that is moved.
With e the items' embeddings,

    toward = (e' - e) . (m_B - m_A) / |m_B - m_A|^2,

1 where an item moved the whole way. What is predicted of B's marker units, hidden from the model, is measured beside it (markers.py).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from sae_genomics.artifacts.steering import CAUSAL_STEERING, STEERED_FILE
from sae_genomics.associations.multiple_testing import benjamini_hochberg
from sae_genomics.causal.directions import (
    CONCEPT,
    Direction,
    ItemMeans,
    between,
    concept_vectors,
    item_means,
    scaled,
    shuffled_directions,
)
from sae_genomics.causal.markers import MARKER, Readout, amounts, hidden_share, marker_units, roles
from sae_genomics.causal.over_items import mean_over, over_groups, p_above
from sae_genomics.causal.samples import Sample, evenly_of, paused_batches, read_sample, resumed_with, rows32
from sae_genomics.causal.steered_h5ad import Steered, write_steered
from sae_genomics.concepts.resampling import random_directions
from sae_genomics.data.groups import group_numbers
from sae_genomics.errors import UserError
from sae_genomics.progress import stop_point

if TYPE_CHECKING:
    from sae_genomics.models.base import FoundationModel
    from sae_genomics.run import Run
    from sae_genomics.sae.load import Encoder

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
LEAST_ITEMS = 10  # training items, and held-out items, that a label must have


@dataclass(frozen=True)
class Moved:
    """What vectors do to items: float64 [vectors, items] each, NaN where an item has no markers."""

    toward: Float64
    cosine: Float64
    nearer: Float64
    markers: Float64


@dataclass(frozen=True)
class Axis:
    """The way from one label's mean embedding to another's."""

    start: Float64
    stop: Float64

    def measure(self, before: Float64, after: Float64) -> tuple[Float64, Float64, Float64]:
        """Share of the way moved, cosine with the end seen from the middle, and whether the end is nearer: [items] each."""
        way, middle = self.stop - self.start, (self.start + self.stop) / 2
        toward = (after - before) @ way / max(float(way @ way), 1e-30)
        off, end = after - middle, self.stop - middle
        cosine = off @ end / np.maximum(np.linalg.norm(off, axis=1) * np.linalg.norm(end), 1e-30)
        return toward, cosine, (cosine > 0).astype(np.float64)


def write_steering(run: Run, layer: int, model: FoundationModel, encoder: Encoder) -> None:
    """Leave causal_steering.parquet and steered.h5ad of a layer. Raises UserError for a label of `causal.steer` that has too few items."""
    folder = run.layer_results(layer)
    items = run.kind.read_items(run, ["item", "item_id", "heldout", "label", "group"])
    pairs, note = _pairs(run, items)
    if not pairs:
        CAUSAL_STEERING.write(
            folder / CAUSAL_STEERING.file,
            CAUSAL_STEERING.schema.empty_table().to_pandas(),
            note=note,
            weights=encoder.weights,
        )
        write_steered(folder / STEERED_FILE, run, layer, model, [])
        return
    work = _Work(run, layer, model, encoder, items)
    tables, steered = [], []
    for pair in pairs:
        stop_point()
        rows, moved = work.steer(*pair)
        tables.append(rows)
        steered.append(moved)
    table = pd.concat(tables, ignore_index=True)
    for name in ("toward", "markers"):
        table[f"q_{name}"] = benjamini_hochberg(table[f"p_{name}"].to_numpy(np.float64))
    CAUSAL_STEERING.write(folder / CAUSAL_STEERING.file, table, weights=encoder.weights)
    write_steered(folder / STEERED_FILE, run, layer, model, steered)


def _pairs(run: Run, items: pd.DataFrame) -> tuple[list[tuple[str, str]], str | None]:
    """The pairs of labels to steer between, and why there are none."""
    settings = run.config.causal
    known = items[items["label"].notna()]
    counts = known.groupby("label")["heldout"].agg(["sum", "size"])
    least = np.minimum(counts["sum"], counts["size"] - counts["sum"])
    enough = least[least >= LEAST_ITEMS].sort_values(ascending=False, kind="stable").index.tolist()
    if settings.steer is None:
        some = [(str(one), str(other)) for one in enough for other in enough if one != other]
        some.sort(key=lambda pair: max(enough.index(pair[0]), enough.index(pair[1])))
        note = f"steering needs two labels with {LEAST_ITEMS} training and {LEAST_ITEMS} held-out items each; {len(enough)} have them"
        return some[: settings.steer_pairs], None if len(enough) > 1 else note
    for label in sorted({each for pair in settings.steer for each in pair}):
        if label not in enough:
            has = f"{label!r} has {int(least[label])}" if label in least.index else f"there is no label {label!r}"
            raise UserError(
                f"causal.steer: {has}; a label needs {LEAST_ITEMS} training items and as many held-out ones; "
                f"those that have them are {', '.join(map(str, enough)) or 'none'}"
            )
    return list(settings.steer), None if settings.steer else "causal.steer names no pair of labels"


class _Work:
    """What all pairs of a layer share. Training items are read once per label."""

    def __init__(self, run: Run, layer: int, model: FoundationModel, encoder: Encoder, items: pd.DataFrame):
        self.run, self.layer, self.model, self.encoder, self.items = run, layer, model, encoder, items
        self.settings = run.config.causal
        self.hook, self.batch_tokens = run.config.model.hook, run.config.activations.batch_tokens
        self.units = run.kind.read_units(run)
        self.concepts = concept_vectors(run.layer_results(layer))
        self._known: dict[str, tuple[Sample, ItemMeans]] = {}

    def training(self, label: str) -> tuple[Sample, ItemMeans]:
        """A label's training items, and what the layer has of them."""
        if label not in self._known:
            sample = self.sample(label, heldout=False)
            means = item_means(self.model, self.encoder, sample, self.layer, self.hook, self.batch_tokens)
            self._known[label] = sample, means
        return self._known[label]

    def sample(self, label: str, heldout: bool) -> Sample:
        """Some items of a label, at even distances."""
        chosen = (self.items["label"] == label) & (self.items["heldout"] == heldout)
        most = self.settings.steer_items if heldout else self.settings.steer_training_items
        return read_sample(self.run, self.model, evenly_of(np.flatnonzero(chosen), most))

    def generator(self, *about: str) -> np.random.Generator:
        """Random numbers that depend on the run's seed, the layer, and what they are for."""
        return np.random.default_rng(
            [self.run.config.run.seed, self.layer, *(zlib.crc32(each.encode()) for each in about)]
        )

    def steer(self, start: str, stop: str) -> tuple[pd.DataFrame, Steered]:
        """One pair: its rows of the table, and the items before and after."""
        (first, of_first), (second, of_second) = self.training(start), self.training(stop)
        axis = Axis(
            *(each.embedding[1::2].mean(axis=0) for each in (of_first, of_second))
        )  # of items that give no direction
        of_first, of_second = of_first.take(slice(0, None, 2)), of_second.take(slice(0, None, 2))
        first, second = (each.take(np.arange(0, len(each.rows), 2)) for each in (first, second))
        means = _joined(of_first, of_second)
        is_b = np.arange(len(means.inputs)) >= len(of_first.inputs)
        directions = self._directions(means, is_b, stop)
        markers = marker_units(
            np.concatenate([amounts(each, len(self.units)) for each in (first, second)]),
            is_b,
            self.settings.steer_markers,
        )
        sample = self.sample(start, heldout=True)
        group = group_numbers(self.run, self.items, sample.rows)
        length = float(np.linalg.norm(directions[0].vector))
        draws, doses = self.settings.steer_draws, self.settings.steer_doses
        generator = self.generator("steer", start, stop)
        drawn = np.concatenate([
            scaled(random_directions(draws, self.encoder.d_in, generator), length),
            shuffled_directions(means.inputs, is_b, length, draws, generator),
        ])  # fmt: skip
        offered = np.stack([each.vector for each in directions])
        steps = [offered * np.float32(dose) for dose in doses]
        nulls = [drawn * np.float32(dose) for dose in _compared(doses)]
        vectors = np.concatenate([np.zeros_like(offered[:1]), *nulls, *steps])
        moved = self._move(sample, vectors, axis, markers, generator)
        table = self._table(moved, directions, group)
        table = table.assign(
            from_label=start, to_label=stop, norm=table["dose"] * length,
            marker_units=",".join(map(str, self.units.unit_name[markers])),
        )  # fmt: skip
        steered = Steered(start, stop, sample, self.sample(stop, heldout=True), directions)
        return table, steered

    def _directions(self, means: ItemMeans, is_b: npt.NDArray[np.bool_], stop: str) -> list[Direction]:
        found = between(means, is_b, self.encoder, self.settings.steer_features)
        if stop in self.concepts:
            length = float(np.linalg.norm(found[0].vector))
            found.append(Direction(CONCEPT, scaled(self.concepts[stop], length)))
        return found

    def _move(
        self, sample: Sample, vectors: Float32, axis: Axis, markers: Int64, generator: np.random.Generator
    ) -> Moved:
        """Every vector on every item. The first vector is zero: what the others are compared with."""
        n, n_items = len(vectors), len(sample.rows)
        if self.model.outcome == "value":
            role = roles(sample, markers, generator)
        else:
            role = np.where(hidden_share(sample, self.model.hidden_share, generator), MARKER, 0).astype(np.int8)
        readout = Readout(
            self.model.outcome, self.units.token[markers].astype(np.int64), self.units.token.astype(np.int64)
        )
        usual = sample.usual
        embedding, score = np.zeros((n, n_items, self.model.info.d_model)), np.zeros((n, n_items))
        weight, seen = np.zeros(n_items), np.zeros(n_items)
        for sequences, rows, paused in paused_batches(
            self.model, sample, self.layer, self.hook, self.batch_tokens, role > 0
        ):
            lengths, item = paused.batch.lengths.astype(np.float64), sample.item[sequences]
            scores = np.full((n, len(sequences)), np.nan)
            for which, local, local_rows, found in resumed_with(
                self.model, paused, vectors, usual[rows], self.batch_tokens
            ):
                assert found.embedding is not None
                np.add.at(embedding, (which, item[local]), rows32(found.embedding) * lengths[local][:, None])
                order = np.repeat(np.arange(len(local)), paused.batch.lengths[local])
                scores[which, local] = readout.score(found, role[rows][local_rows], order, len(local))
            known = ~np.isnan(scores[0])
            np.add.at(score.T, item[known], scores[:, known].T)
            weight += np.bincount(item, lengths, minlength=n_items)
            seen += np.bincount(item[known], minlength=n_items)
        embedding /= np.maximum(weight, 1)[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            score = np.where(seen > 0, score / seen, np.nan)
        measured = [axis.measure(embedding[0], each) for each in embedding]
        toward, cosine, nearer = (np.stack(each) for each in zip(*measured, strict=True))
        return Moved(toward, cosine, nearer, score - score[0])

    def _table(self, moved: Moved, directions: list[Direction], group: Int64 | None) -> pd.DataFrame:
        """One row per dose and direction. Vectors: zero, the random ones at the doses compared, the directions at every dose."""
        draws, doses = self.settings.steer_draws, self.settings.steer_doses
        compared = _compared(doses)
        nulls = {dose: 1 + 2 * draws * number + np.arange(2 * draws) for number, dose in enumerate(compared)}
        rows = []
        for number, dose in enumerate(doses):
            for index, direction in enumerate(directions):
                at = 1 + 2 * draws * len(compared) + number * len(directions) + index
                row: dict[str, object] = {
                    "method": direction.method, "dose": dose, "n_random": draws,
                    "features": ",".join(map(str, direction.features)) or None,
                    "cosine_before": _over(moved.cosine[0], group), "cosine_after": _over(moved.cosine[at], group),
                    "nearer_before": _over(moved.nearer[0], group), "nearer_after": _over(moved.nearer[at], group),
                }  # fmt: skip
                for name in ("toward", "markers"):
                    row |= _beside(name, getattr(moved, name), at, nulls.get(dose), group)
                rows.append(row)
        return pd.DataFrame(rows)


def _beside(name: str, values: Float64, at: int, null: Int64 | None, group: Int64 | None) -> dict[str, object]:
    """One measure's columns: mean over items with interval, the same of both kinds of random directions, the larger p."""
    mean = mean_over(values[at], group)
    row: dict[str, object] = {name: mean.value, f"{name}_low": mean.low, f"{name}_high": mean.high}
    if name == "toward":
        row |= {"n_items": mean.n_items, "n_groups": mean.n_groups}
    drawn = np.full(2, np.nan)
    if null is not None:
        each = over_groups(values[null].T, group)
        each = each[~np.isnan(each).any(axis=1)]
        drawn = each.mean(axis=0) if len(each) else np.full(len(null), np.nan)
    kinds = dict(zip(("random", "shuffled"), np.split(drawn, 2), strict=True))
    for kind, of_kind in kinds.items():
        row |= {f"{name}_{kind}": float(of_kind.mean()), f"{name}_{kind}_high": float(of_kind.max())}
    row[f"p_{name}"] = max(p_above(mean.value, of_kind) for of_kind in kinds.values())
    return row


def _compared(doses: list[float]) -> list[float]:
    """The doses that are compared with random directions: the first and the last."""
    return list(dict.fromkeys((doses[0], doses[-1])))


def _over(values: Float64, group: Int64 | None) -> float:
    return mean_over(values, group).value


def _joined(first: ItemMeans, second: ItemMeans) -> ItemMeans:
    from scipy.sparse import csr_matrix, vstack

    return ItemMeans(
        np.concatenate([first.inputs, second.inputs]),
        csr_matrix(vstack([first.features, second.features])),
        np.concatenate([first.embedding, second.embedding]),
    )
