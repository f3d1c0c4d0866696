"""A data kind of its own, outside the package: lines of a text file, made of letters. docs/data.md points here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from sae_genomics.atomic import atomic_path, write_json
from sae_genomics.data.kind import DataKind, DataSection, Nouns
from sae_genomics.data.plan_file import PLAN_VERSION
from sae_genomics.data.split import choose_items, split_items
from sae_genomics.data.units import Units
from sae_genomics.errors import DamagedArtifact, UserError
from sae_genomics.hashes import hash_file, hash_values
from sae_genomics.items import SequenceItems
from sae_genomics.run import Run
from sae_genomics.section import also

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class LinesSection(DataSection):
    """The lines."""

    kind: str = Field("lines", description="lines")
    path: str = Field(description="a text file, one item per line")
    labels: str | None = Field(None, description="a text file, the label of each line")
    max_lines: int | None = Field(None, ge=1, validation_alias=also("max_lines", "max_items"))


class Lines(DataKind):
    """Items are lines, units are letters."""

    name = "lines"
    nouns = Nouns(
        item="line", items="lines", unit="letter", units="letters", token="letter token", tokens="letter tokens",
        label="label", labels="labels", group="group", groups="groups", span="span", spans="spans",
    )  # fmt: skip
    section = LinesSection
    input_keys = frozenset({"path", "labels"})

    def inputs(self, settings: LinesSection) -> list[Path]:
        files = []
        for key in ("path", "labels"):
            named = getattr(settings, key)
            if named is not None:
                file = Path(named).expanduser().absolute()
                if not file.is_file():
                    raise UserError(f"data.{key}: no such file: {file}; set data.{key} to a text file")
                files.append(file)
        return files

    def content_hash(self, settings: LinesSection) -> str:
        return hash_values([hash_file(file) for file in self.inputs(settings)], settings.labels is not None)

    def count_items(self, settings: LinesSection) -> int:
        lines = len(self.inputs(settings)[0].read_text().splitlines())
        return min(lines, settings.max_lines or lines)

    def prepare_files(self, run: Run) -> tuple[Path, ...]:
        return run.units_file, _items_file(run), run.plan_file

    def prepare(self, run: Run) -> None:
        settings = run.config.data
        assert isinstance(settings, LinesSection)
        lines = run.data_file.read_text().splitlines()
        for number, line in enumerate(lines, 1):
            if unknown := set(line) - set(LETTERS):
                raise UserError(
                    f"data.path: {run.data_file}, line {number}: {sorted(unknown)[0]!r} is no letter; write A to Z"
                )
        rows = choose_items(len(lines), settings.max_lines, run.config.run.seed)
        heldout = split_items(len(rows), None, settings.heldout_fraction, run.config.run.seed)
        labels = run.data_files[1].read_text().splitlines() if settings.labels else [None] * len(lines)
        items = pd.DataFrame(
            {
                "item": rows,
                "item_id": [f"line {row + 1}" for row in rows],
                "heldout": heldout,
                "group": None,
                "label": [labels[row] for row in rows],
            }
        )
        text = "".join(lines[row] for row in rows)
        letters = np.array(list(LETTERS), dtype=object)
        counts = np.array([text.count(letter) for letter in LETTERS], dtype=np.float64)
        Units(np.arange(4, 4 + len(LETTERS), dtype=np.int32), letters, letters, counts).write(run.units_file)
        with atomic_path(_items_file(run)) as temporary:
            items.to_parquet(temporary)
        plan = {"format_version": PLAN_VERSION, "kind": self.name, "n_items": len(rows), "notes": []}
        plan["n_heldout"] = int(heldout.sum())
        write_json(run.plan_file, plan)

    def read_items(self, run: Run, columns: Sequence[str] | None = None) -> pd.DataFrame:
        try:
            return pd.read_parquet(_items_file(run), columns=None if columns is None else list(columns))
        except (OSError, ValueError) as error:
            raise DamagedArtifact(f"{_items_file(run)} cannot be read: {error}", _items_file(run)) from None

    def read_units(self, run: Run) -> Units:
        return Units.read(run.units_file)

    def read_spans(self, run: Run) -> None:
        return None

    def read(self, run: Run, indices: npt.NDArray[np.int64]) -> SequenceItems:
        rows = self.read_items(run, ["item"])["item"].to_numpy(np.int64)[indices]
        lines = run.data_file.read_text().splitlines()
        return SequenceItems(rows, [lines[row] for row in rows])


def _items_file(run: Run) -> Path:
    return run.prepare_dir / "items.parquet"
