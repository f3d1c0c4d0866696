"""What an interrupted shard keeps: rows that are on the disk already need not be computed again.

HDF5 cannot go on with a file that was not closed. So the layers' unfinished files stay where they are, and a state file beside
the shard's tokens says after which window it was written, where each whole chunk lies in them, the rows after the last
whole chunk, and what the rows add up to. The next attempt copies the chunks into new files by the same calls that wrote
them, their checksums verified, and goes on with the next window: the finished file is that of an undisturbed run, bit for bit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sae_genomics.activations.extraction.summary import Summary
from sae_genomics.activations.format.chunks import read_chunks
from sae_genomics.activations.format.dtypes import DISK_DTYPES
from sae_genomics.activations.format.store import ActivationWriter
from sae_genomics.atomic import UNFINISHED, Partial, atomic_path, partial_named, partials_in
from sae_genomics.errors import Interrupted
from sae_genomics.hashes import hash_values
from sae_genomics.leftovers import has_ended
from sae_genomics.progress import say, stop_point
from sae_genomics.stages import stage_named

if TYPE_CHECKING:
    from sae_genomics.run import Run

KEEP_SECONDS = 20.0  # at most so much work is lost, and the windows at work
FORMAT_VERSION = 1
_KEY = "sae_genomics"


class DamagedRows(Exception):
    """Rows that were kept cannot be read back. They are forgotten by then: the shard can be begun anew."""


def state_file(run: Run, task: int) -> Path:
    """What says how far a shard is; there while it is unfinished."""
    tokens = run.tokens_file(task)
    return tokens.with_name(f"{UNFINISHED}{tokens.stem}.safetensors")


def _digest(facts: dict[str, Any], tensors: Mapping[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class KeptLayer:
    """One layer's rows and what they add up to.

    file: the unfinished file. offsets: int64 [chunks], where each whole chunk lies in it. tail: [n, d_model], the rows after
    them, in the dtype on disk. total, squared_norm, nonfinite: as in Summary.
    """

    file: Path
    offsets: npt.NDArray[np.int64]
    tail: npt.NDArray[Any]
    total: npt.NDArray[np.float64]
    squared_norm: float
    nonfinite: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Kept:
    """All layers' rows after the first `windows` windows, which are the shard's first `rows` rows."""

    windows: int
    rows: int
    layers: dict[int, KeptLayer]


class Keeper:
    """Keeps a shard's finished windows while the shard is at work.

    Use as a context manager around the files: after an interruption what was saved stays, after any other end it goes.

    fingerprints: layer -> fingerprint of the file that is to be.
    """

    def __init__(self, run: Run, task: int, fingerprints: Mapping[int, str]):
        self._run, self._task = run, task
        self._folders = [run.activations_file(layer, task).parent for layer in run.layers]
        self._state_file = state_file(run, task)
        self._fingerprints = {str(layer): fingerprint for layer, fingerprint in fingerprints.items()}
        self._key = ""
        self._open: set[Path] = set()  # files that this attempt writes
        self._saved: Kept | None = None
        self._saved_at = time.monotonic()

    # --- going on ---

    def go_on(
        self, plan: Any, writers: Mapping[int, ActivationWriter], summaries: Mapping[int, Summary]
    ) -> tuple[int, int]:
        """Write what an earlier attempt kept, where it had the same plan; returns how many windows and rows that is.

        plan: JSON values that decide which rows are added up together, in which order. Raises DamagedRows.
        """
        self._key = hash_values(FORMAT_VERSION, self._fingerprints, plan)
        self._open = {writer.path for writer in writers.values()}
        self._saved = kept = self._load()
        if kept is not None:
            try:
                for layer in writers:
                    self._saved = kept = self._move(kept, layer, writers[layer], summaries[layer])
            except (ValueError, FileNotFoundError) as problem:
                self.forget()
                raise DamagedRows(str(problem)) from problem
        self._remove_unused()
        self._saved_at = time.monotonic()
        if kept is None:
            return 0, 0
        say(f"extract shard {self._task}: goes on after row {kept.rows:,}, which an earlier attempt reached")
        return kept.windows, kept.rows

    def _move(self, kept: Kept, layer: int, writer: ActivationWriter, summary: Summary) -> Kept:
        """Copy a layer's rows into its new file, and remove the old one: never more than one layer takes room twice."""
        old, row = kept.layers[layer], 0
        for rows in read_chunks(old.file, old.offsets, writer.chunk_shape, DISK_DTYPES[writer.header.dtype]):
            count = min(len(rows), kept.rows - row)
            writer.write(row, rows[:count])
            row += count
            stop_point()
        writer.write(row, old.tail)
        if row + len(old.tail) != kept.rows:
            raise ValueError(f"{self._state_file} does not fit {old.file}")
        summary.begin_with(kept.rows, old.total, old.squared_norm, old.nonfinite)
        writer.to_disk()
        written = writer.written()
        if written is None:
            raise ValueError(f"{writer.path} cannot be gone on from")
        new = KeptLayer(writer.path, *written, old.total, old.squared_norm, old.nonfinite)
        moved = Kept(kept.windows, kept.rows, {**kept.layers, layer: new})
        self._save(moved)
        old.file.unlink(missing_ok=True)
        return moved

    # --- keeping ---

    def is_due(self) -> bool:
        return time.monotonic() - self._saved_at >= KEEP_SECONDS

    def save(self, kept: Kept) -> None:
        """Remember rows that are on the disk. A full disk is told where rows are written."""
        with contextlib.suppress(OSError):
            self._save(kept)
            self._saved, self._saved_at = kept, time.monotonic()

    def _save(self, kept: Kept) -> None:
        tensors: dict[str, npt.NDArray[Any]] = {}
        for layer, each in kept.layers.items():
            tensors |= {
                f"{layer}.offsets": each.offsets,
                f"{layer}.tail": each.tail,
                f"{layer}.total": each.total,
                f"{layer}.squared_norm": np.array([each.squared_norm]),
                f"{layer}.nonfinite": each.nonfinite,
            }
        tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
        facts = {
            "key": self._key,
            "windows": kept.windows,
            "rows": kept.rows,
            "files": {str(layer): each.file.name for layer, each in kept.layers.items()},
        }
        header = {"facts": facts, "digest": _digest(facts, tensors)}
        with atomic_path(self._state_file) as temporary:
            save_file(tensors, temporary, metadata={_KEY: json.dumps(header)})

    def refers_to(self, path: Path) -> bool:
        """Whether an unfinished file is to stay, because a later attempt goes on from it."""
        return self._saved is not None and any(each.file == path for each in self._saved.layers.values())

    def say_what_is_kept(self, n_rows: int) -> None:
        """One line at an interruption. n_rows: of the shard."""
        kept = self._saved.rows if self._saved is not None else 0
        then = f"the next attempt goes on after row {kept:,}" if kept else "the next attempt begins with the first"
        say(f"extract shard {self._task}: stopped; {kept:,} of {n_rows:,} rows are kept, {then}")

    # --- the state file ---

    def _load(self) -> Kept | None:
        """What an earlier attempt kept; None, with a line that says why, where there is nothing to go on from."""
        if not self._state_file.exists():
            return None
        try:
            with safe_open(self._state_file, framework="np") as file:
                header = json.loads((file.metadata() or {})[_KEY])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            facts = header["facts"]
            if header["digest"] != _digest(facts, tensors):
                raise ValueError("it is damaged")
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            return self._nothing(f"{self._state_file} cannot be read ({problem})")
        if facts["key"] != self._key:
            return self._nothing("rows were kept under other settings")
        layers = {}
        for name, file_name in facts["files"].items():
            path = self._run.activations_file(int(name), self._task).with_name(file_name)
            partial = partial_named(path, UNFINISHED)
            if not path.exists() or partial is None or not self._has_ended(partial):
                return self._nothing(f"{path} is not there, or another attempt may still write it")
            layers[int(name)] = KeptLayer(
                path, tensors[f"{name}.offsets"], tensors[f"{name}.tail"], tensors[f"{name}.total"],
                float(tensors[f"{name}.squared_norm"][0]), tensors[f"{name}.nonfinite"],
            )  # fmt: skip
        return Kept(facts["windows"], facts["rows"], layers)

    def _nothing(self, why: str) -> Kept | None:
        say(f"extract shard {self._task}: {why}; the shard starts from the beginning")
        return None

    def _has_ended(self, partial: Partial) -> bool:
        if partial.is_of_this_host:  # it may be this process, which tries again
            return partial.pid == os.getpid() or partial.is_of_a_dead_process
        return has_ended(self._run, stage_named("extract"), self._task, partial)

    # --- the end ---

    def forget(self) -> None:
        """Remove the state file, and the unfinished files of attempts at this shard that have ended."""
        self._saved = None
        self._state_file.unlink(missing_ok=True)
        self._remove_unused()

    def _remove_unused(self) -> None:
        name = self._run.activations_file(0, self._task).name
        for folder in self._folders:
            for partial in partials_in(folder, UNFINISHED):
                used = self.refers_to(partial.path) or partial.path in self._open
                if partial.final == name and not used and self._has_ended(partial):
                    partial.remove()

    def __enter__(self) -> Keeper:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open = set()
        if error is None or (isinstance(error, Exception) and not isinstance(error, Interrupted)):
            self.forget()
