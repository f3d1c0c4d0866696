"""Proteins: sequences of residues, with annotated stretches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from sae_genomics.data.kind import DataKind
from sae_genomics.data.proteins.settings import NOUNS, ProteinsSection, input_files
from sae_genomics.hashes import hash_file, hash_values

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from sae_genomics.data.units import Units
    from sae_genomics.items import SequenceItems
    from sae_genomics.run import Run


class Proteins(DataKind):
    """Items are proteins, units are amino acids, spans are domains, motifs and sites."""

    name = "proteins"
    nouns = NOUNS
    section = ProteinsSection
    named_items = True
    input_keys = frozenset({"path", "spans", "labels"})
    own_keys: ClassVar[Mapping[str, str]] = {"data.max_items": "data.max_proteins"}

    def inputs(self, settings: ProteinsSection) -> list[Path]:
        """Sequences first, then spans and labels where there are any; a file that is two of these comes once."""
        return list(dict.fromkeys(input_files(settings).named.values()))

    def content_hash(self, settings: ProteinsSection) -> str:
        """Over all files, and which of them are there."""
        named = input_files(settings).named
        hashes = {path: hash_file(path) for path in dict.fromkeys(named.values())}
        return hash_values([[name, hashes[path]] for name, path in named.items()])

    def count_items(self, settings: ProteinsSection) -> int:
        """Proteins that the run uses, from the number of headers, or of lines."""
        from sae_genomics.data.proteins.records import count_records

        proteins = count_records(input_files(settings).sequences)
        return min(proteins, settings.max_proteins or proteins)

    def prepare_files(self, run: Run) -> tuple[Path, ...]:
        """items.parquet, units.parquet, plan.json, and spans.parquet where the input may have spans."""
        from sae_genomics.data.labelled import items_file
        from sae_genomics.data.proteins.tables import spans_file

        always = (run.units_file, items_file(run), run.plan_file)
        return (*always, spans_file(run)) if _may_have_spans(run) else always

    def prepare(self, run: Run) -> None:
        """See `data/proteins/prepare.py`."""
        from sae_genomics.data.proteins.prepare import prepare_proteins

        prepare_proteins(run)

    def read_items(self, run: Run, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """items.parquet; `name`, `length` and `n_windows` are given when asked for."""
        from sae_genomics.data.labelled import read_items
        from sae_genomics.data.proteins.tables import ITEMS

        return read_items(run, ITEMS, columns)

    def check_columns(self, settings: ProteinsSection, asked: Mapping[str, str]) -> None:
        """What JSONL lines have beside their sequences is not known before they are read."""
        from sae_genomics.data.proteins.labels import labels_of_records, read_columns_of
        from sae_genomics.data.proteins.records import is_jsonl

        files = input_files(settings)
        if not asked or is_jsonl(files.sequences):
            return
        there = labels_of_records([], files.sequences.name) if files.labels is None else read_columns_of(files.labels)
        for key, setting in asked.items():
            there.column(key, setting)

    def read_columns(self, run: Run, asked: Mapping[str, str]) -> pd.DataFrame:
        """Columns of data.labels, and what JSONL lines say beside sequence and spans."""
        import pandas as pd

        from sae_genomics.data.proteins.labels import labels_of_items
        from sae_genomics.data.proteins.settings import proteins_section

        items = self.read_items(run, ["item", "item_id"])
        labels = labels_of_items(input_files(proteins_section(run.config)), items["item"].to_numpy(), items["item_id"])
        return pd.DataFrame({key: labels.column(key, setting) for key, setting in asked.items()})

    def read_units(self, run: Run) -> Units:
        """Amino acids, in the order of the model's vocabulary."""
        from sae_genomics.data.units import Units

        return Units.read(run.units_file)

    def read_spans(self, run: Run) -> pd.DataFrame | None:
        """spans.parquet; None where the input says nothing of spans."""
        from sae_genomics.data.plan_file import read_plan
        from sae_genomics.data.proteins.tables import SPANS, spans_file

        if not _may_have_spans(run) or read_plan(run).get("n_spans") is None:
            return None
        return SPANS.read(spans_file(run))

    def read(self, run: Run, indices: npt.NDArray[np.int64]) -> SequenceItems:
        """The proteins' sequences."""
        from sae_genomics.data.proteins.shard import read_proteins

        return read_proteins(run, indices)


def _may_have_spans(run: Run) -> bool:
    """Whether spans are named, or may stand beside the sequences."""
    from sae_genomics.data.proteins.records import is_jsonl
    from sae_genomics.data.proteins.settings import proteins_section

    files = input_files(proteins_section(run.config))
    return files.spans is not None or is_jsonl(files.sequences)
