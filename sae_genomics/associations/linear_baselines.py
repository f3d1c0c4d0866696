"""Raw neurons, principal and independent components of a layer by the same procedure as its features: what needs no SAE."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from sae_genomics.associations.column_store import ColumnStore
from sae_genomics.associations.components import Pause, fit_rows, of_independent, of_principal, principal_components
from sae_genomics.associations.linear_units import LinearUnits, Moments
from sae_genomics.associations.signed_sums import SignedSums, signed_maxima
from sae_genomics.associations.triples import TokenBlock
from sae_genomics.progress import say

NAMES = ("neurons", "pca", "ica")
RANDOM = "random"  # random directions: what features are compared with against spans
MOMENT_ROWS = 1 << 18


@dataclass(frozen=True)
class FoundUnits:
    """units: of a baseline. note: what a reader must know of how they were found, or None."""

    units: LinearUnits
    note: str | None = None


def find_units(
    names: Sequence[str],
    d_model: int,
    training_rows: Iterable[npt.NDArray[np.float32]],
    seed: int,
    pause: Pause,
    n_random: int = 0,
) -> dict[str, FoundUnits]:
    """The units of each named linear baseline, from rows of training cells. n_random: directions of the baseline `random`.

    training_rows: float32 [n, d_model] blocks, about MOMENT_ROWS rows in all. Means and standard deviations of neurons are over all of
    them; components are found on rows at even distances among them, at most `components.fit_rows`.
    pause: called now and then; may raise.
    """
    moments, sample = Moments(d_model), _Sample(d_model, fit_rows(d_model))
    wants_components = "pca" in names or "ica" in names
    wants_rows = wants_components or RANDOM in names
    for rows in training_rows:
        pause()
        moments.add(rows)
        if wants_rows:
            sample.add(rows)
    found: dict[str, FoundUnits] = {}
    if "neurons" in names:
        found["neurons"] = FoundUnits(LinearUnits.of_neurons(moments))
    if RANDOM in names:
        found[RANDOM] = FoundUnits(_random_directions(moments, sample.rows, n_random, seed))
    if wants_components:
        # hundreds of small products: several threads take longer over them, and round differently
        with threadpool_limits(1):
            principal = principal_components(sample.rows)
            if "pca" in names:
                found["pca"] = FoundUnits(of_principal(principal, sample.rows))
            if "ica" in names:
                found["ica"] = FoundUnits(*of_independent(principal, sample.rows, _ica_seed(seed), pause))
    return found


def _random_directions(moments: Moments, rows: npt.NDArray[np.float32], n: int, seed: int) -> LinearUnits:
    """Directions of length 1, drawn from a sphere, through the mean of the rows."""
    generator = np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(b"associations random directions")]))
    directions = generator.standard_normal((n, len(moments.mean)))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return LinearUnits.of_directions(directions, moments.mean, rows)


def _ica_seed(seed: int) -> int:
    sequence = np.random.SeedSequence([seed, zlib.crc32(b"associations ica")])
    return int(sequence.generate_state(1)[0])


class _Sample:
    """Rows at even distances of those given block by block, at most `most`: whenever there are more, every second one goes."""

    def __init__(self, d_model: int, most: int):
        self._most, self._stride, self._given, self._n = most, 1, 0, 0
        self._rows = np.empty((min(most, 1024), d_model), dtype=np.float32)

    def add(self, rows: npt.NDArray[np.float32]) -> None:
        while True:
            chosen = np.arange(-self._given % self._stride, len(rows), self._stride)
            if self._n + len(chosen) <= self._most:
                break
            self._rows = self._rows[: self._n : 2].copy()
            self._n, self._stride = len(self._rows), 2 * self._stride
        self._make_room(self._n + len(chosen))
        self._rows[self._n : self._n + len(chosen)] = rows[chosen]
        self._n, self._given = self._n + len(chosen), self._given + len(rows)

    def _make_room(self, n: int) -> None:
        if n > len(self._rows):
            larger = np.empty((min(max(2 * len(self._rows), n), self._most), self._rows.shape[1]), dtype=np.float32)
            larger[: self._n] = self._rows[: self._n]
            self._rows = larger

    @property
    def rows(self) -> npt.NDArray[np.float32]:
        return self._rows[: self._n]


class LinearBaseline:
    """What a pass over the activations adds up for one linear baseline.

    cells: [cells of the sample, units], each sampled cell's maxima; closed by the caller.
    """

    def __init__(self, found: FoundUnits, n_genes: int, n_sampled: int, folder: Path):
        self.units, self.note = found.units, found.note
        self.sums = SignedSums(self.units, n_genes)
        self.cells = ColumnStore(n_sampled, self.units.n_units, folder)

    def add(self, block: TokenBlock, x: npt.NDArray[np.float32], sample_row: npt.NDArray[np.int64]) -> None:
        """x: float32 [T, d_model], the block's rows. sample_row: int64 [cells of the block], -1 for cells outside the sample."""
        projections = self.units.project(x)
        self.sums.add(block, projections)
        sampled = np.flatnonzero(sample_row >= 0)
        if len(sampled) and self.units.n_units:
            # every cell has a value of every unit: nothing is implicit, so signs do not matter to the ranks
            maxima = signed_maxima(self.units, projections, block, sampled)
            n = self.units.n_units
            self.cells.add(np.repeat(sample_row[sampled], n), np.tile(np.arange(n), len(sampled)), maxima.ravel())

    def tell(self, label: str) -> None:
        """Say what a reader must know."""
        if self.note is not None:
            say(f"{label}: {self.note}")

    def __enter__(self) -> LinearBaseline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cells.close()
