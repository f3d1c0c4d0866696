"""Text: documents made of word pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from sae_genomics.data.kind import DataKind
from sae_genomics.data.text.settings import NOUNS, TextSection, text_section

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from sae_genomics.data.units import Units
    from sae_genomics.items import TextItems
    from sae_genomics.run import Run


class Text(DataKind):
    """Items are documents, units are the word pieces of the model's tokeniser."""

    name = "text"
    nouns = NOUNS
    section = TextSection
    input_keys = frozenset({"path"})
    carried_keys = frozenset({"text_key", "max_tokens"})
    own_keys: ClassVar[Mapping[str, str]] = {"data.max_items": "data.max_documents"}

    def inputs(self, settings: TextSection) -> list[Path]:
        """The file, or the folder's .txt files by name."""
        from sae_genomics.data.text.source import find_source

        return find_source(settings).files

    def content_hash(self, settings: TextSection) -> str:
        """Over what the files hold; of a folder the files' names count too, because they are the documents' names."""
        from sae_genomics.data.text.source import find_source

        return find_source(settings).content_hash()

    def count_items(self, settings: TextSection) -> int:
        """Documents that the run uses, from the number of lines or files."""
        from sae_genomics.data.text.source import find_source

        documents = find_source(settings).count()
        return min(documents, settings.max_documents or documents)

    def prepare_files(self, run: Run) -> tuple[Path, ...]:
        """items.parquet, units.parquet, plan.json, and the documents that the run uses."""
        from sae_genomics.data.labelled import items_file
        from sae_genomics.data.text.tables import documents_file

        return run.units_file, items_file(run), documents_file(run), run.plan_file

    def prepare(self, run: Run) -> None:
        """See `data/text/prepare.py`."""
        from sae_genomics.data.text.prepare import prepare_text

        prepare_text(run)

    def read_items(self, run: Run, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """items.parquet; `length` and `n_special` are given when asked for."""
        from sae_genomics.data.labelled import read_items
        from sae_genomics.data.text.tables import ITEMS

        return read_items(run, ITEMS, columns)

    def check_columns(self, settings: TextSection, asked: Mapping[str, str]) -> None:
        """Which keys lines have is not known before they are read; text without keys has none."""
        from sae_genomics.data.text.source import find_source

        if asked:
            source = find_source(settings)
            for key, setting in asked.items():
                source.check_key(key, setting)

    def read_columns(self, run: Run, asked: Mapping[str, str]) -> pd.DataFrame:
        """Keys of JSONL lines; `folder`, of a folder of files."""
        import pandas as pd

        from sae_genomics.data.text.source import find_source

        rows = self.read_items(run, ["item"])["item"].to_numpy()
        return pd.DataFrame(find_source(text_section(run.config)).values(rows, asked), dtype=object)

    def read_units(self, run: Run) -> Units:
        """Word pieces that come in the documents used, by their vocabulary id."""
        from sae_genomics.data.units import Units

        return Units.read(run.units_file)

    def read_spans(self, run: Run) -> None:
        """Text has no spans."""
        return

    def read(self, run: Run, indices: npt.NDArray[np.int64]) -> TextItems:
        """The documents' texts."""
        from sae_genomics.data.text.shard import read_documents

        return read_documents(run, indices)
